//! The header of a list: what each column is for, and how a row becomes a contact.

use thiserror::Error;

use super::{ContactDraft, FIRST_NAME, MAX_COLUMNS, Row, RowError};
use crate::domain::phone::CountryCode;

/// Longest column name, in characters.
const MAX_NAME_CHARS: usize = 100;

/// The fields that have a name of ours in every list.
pub(super) const EMAIL: &str = "email";
/// See [`EMAIL`].
pub(super) const TAG: &str = "tag";

/// Why a header cannot be used; the whole file is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// No column is the number.
    #[error("no column holds the number; name one number, phone or mobile")]
    NoNumber,
    /// A column has no name.
    #[error("column {0} has no name")]
    Empty(usize),
    /// Two columns have the same name or meaning.
    #[error("the columns \"{0}\" and \"{1}\" mean the same; keep one of them")]
    Duplicate(String, String),
    /// More than 100 columns.
    #[error("the file has {0} columns; at most {MAX_COLUMNS} are allowed")]
    TooMany(usize),
    /// A column's name cannot be used in templates.
    #[error("column {0}: {1}")]
    Name(usize, NameError),
}

/// Why a text cannot name a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// Templates trim the names they look up, so they could never reach such a column.
    #[error("the name is empty, or begins or ends with a space")]
    Blank,
    /// More than 100 characters.
    #[error("the name has more than {MAX_NAME_CHARS} characters")]
    TooLong,
    /// Braces would clash with templates, a leading `$` with the database, control characters with everything.
    #[error("the name may not contain braces or control characters, nor begin with $")]
    Characters,
}

/// What a column is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    Number,
    FirstName,
    TimeZone,
    /// Kept under this name.
    Field(String),
}

impl Role {
    /// The role of a column by its name. Aliases are compared without case, spaces, `_` and `-`.
    pub(super) fn of(name: &str) -> Result<Self, NameError> {
        if name.is_empty() || name.trim() != name {
            return Err(NameError::Blank);
        }
        if name.chars().count() > MAX_NAME_CHARS {
            return Err(NameError::TooLong);
        }
        if name.starts_with('$')
            || name.contains(|c: char| c.is_control() || matches!(c, '{' | '}'))
        {
            return Err(NameError::Characters);
        }
        let alias: String = name
            .chars()
            .filter(|c| !matches!(c, ' ' | '_' | '-'))
            .collect();
        Ok(match alias.to_lowercase().as_str() {
            "number" | "phone" | "mobile" | "phonenumber" | "mobilenumber" => Self::Number,
            "firstname" | "name" => Self::FirstName,
            "timezone" | "tz" => Self::TimeZone,
            EMAIL => Self::Field(EMAIL.to_owned()),
            TAG => Self::Field(TAG.to_owned()),
            _ => Self::Field(name.to_owned()),
        })
    }

    /// Whether the column is the list's own: neither a part of every contact nor one of the fields that we name.
    pub(super) fn is_own(&self) -> bool {
        matches!(self, Self::Field(name) if !matches!(name.as_str(), EMAIL | TAG))
    }

    /// What must not occur twice: the meaning, and for other columns the name without case.
    fn identity(&self) -> String {
        match self {
            Self::Number => "number".to_owned(),
            Self::FirstName => FIRST_NAME.to_owned(),
            Self::TimeZone => "timeZone".to_owned(),
            Self::Field(name) => name.to_lowercase(),
        }
    }
}

/// A list's header, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// For each column its name as written and its role.
    columns: Vec<(String, Role)>,
}

impl Columns {
    /// Understands a header: names are trimmed, a byte order mark is removed, aliases are recognised.
    ///
    /// # Errors
    /// [`HeaderError`] says what to change in the file.
    pub fn from_header(header: &[&str]) -> Result<Self, HeaderError> {
        if header.len() > MAX_COLUMNS {
            return Err(HeaderError::TooMany(header.len()));
        }
        let mut columns: Vec<(String, Role)> = Vec::with_capacity(header.len());
        for (index, cell) in header.iter().enumerate() {
            let name = cell.trim_start_matches('\u{feff}').trim();
            if name.is_empty() {
                return Err(HeaderError::Empty(index + 1));
            }
            let role = Role::of(name).map_err(|fault| HeaderError::Name(index + 1, fault))?;
            if let Some((earlier, _)) = columns
                .iter()
                .find(|(_, known)| known.identity() == role.identity())
            {
                return Err(HeaderError::Duplicate(earlier.clone(), name.to_owned()));
            }
            columns.push((name.to_owned(), role));
        }
        if columns.iter().any(|(_, role)| *role == Role::Number) {
            Ok(Self { columns })
        } else {
            Err(HeaderError::NoNumber)
        }
    }

    /// The names that templates may use: `firstName` and every column that is kept as a field, in the file's order.
    pub fn names(&self) -> Vec<String> {
        let name = |role: &Role| match role {
            Role::FirstName => Some(FIRST_NAME.to_owned()),
            Role::Field(name) => Some(name.clone()),
            Role::Number | Role::TimeZone => None,
        };
        self.columns
            .iter()
            .filter_map(|(_, role)| name(role))
            .collect()
    }

    /// Reads a row. Cells are trimmed; empty ones are left out, but the number may not be empty.
    ///
    /// # Errors
    /// [`RowError`] names the first fault of the row.
    pub fn contact(
        &self,
        cells: &[&str],
        default_country: Option<CountryCode>,
    ) -> Result<ContactDraft, RowError> {
        if cells.len() != self.columns.len() {
            let few_or_many = if cells.len() < self.columns.len() {
                "few"
            } else {
                "many"
            };
            let reason = format!(
                "too {few_or_many} cells: {} instead of {}",
                cells.len(),
                self.columns.len()
            );
            return Err(RowError {
                column: None,
                reason,
            });
        }
        let mut row = Row::default();
        let mut number_column = "number";
        for ((name, role), cell) in self.columns.iter().zip(cells) {
            if *role == Role::Number {
                number_column = name;
            }
            row.take(role, cell, default_country)
                .map_err(|reason| RowError::new(name, reason))?;
        }
        row.finish(number_column)
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn columns(header: &[&str]) -> Columns {
        Columns::from_header(header).unwrap()
    }

    #[track_caller]
    fn check_row(header: &[&str], cells: &[&str], column: Option<&str>, reason: &str) {
        let error = columns(header).contact(cells, None).unwrap_err();
        assert_eq!(
            (error.column.as_deref(), error.reason.as_str()),
            (column, reason)
        );
    }

    #[test]
    fn aliases_in_every_spelling() {
        for name in [
            "number",
            "Phone",
            "MOBILE",
            "phone number",
            "Phone_Number",
            "mobile-number",
            "\u{feff}number",
            " number ",
        ] {
            let contact = columns(&[name]).contact(&["+14155550123"], None).unwrap();
            assert_eq!(contact.number.as_str(), "+14155550123", "{name}");
        }
        for name in ["firstName", "first_name", "First Name", "NAME"] {
            let columns = columns(&["number", name]);
            assert_eq!(columns.names(), ["firstName"]);
            assert_eq!(
                columns
                    .contact(&["+14155550123", "Ada"], None)
                    .unwrap()
                    .first_name
                    .as_deref(),
                Some("Ada")
            );
        }
        for name in ["timezone", "time_zone", "Time Zone", "tz"] {
            let columns = columns(&["number", name]);
            assert_eq!(columns.names(), Vec::<String>::new());
            let contact = columns
                .contact(&["+14155550123", "Asia/Kolkata"], None)
                .unwrap();
            assert_eq!(contact.time_zone, Some(Tz::Asia__Kolkata));
        }
    }

    #[test]
    fn other_columns_become_fields_under_their_own_name() {
        let columns = columns(&["Email", "Order No", "phone", "TAG"]);
        assert_eq!(columns.names(), ["email", "Order No", "tag"]);
        let contact = columns
            .contact(&["a@example.com", " 17 ", "+14155550123", ""], None)
            .unwrap();
        let fields: Vec<_> = contact
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(fields, [("Order No", "17"), ("email", "a@example.com")]);
    }

    #[test]
    fn bad_headers_say_what_to_change() {
        let long = "x".repeat(MAX_NAME_CHARS + 1);
        let many = vec!["a"; MAX_COLUMNS + 1];
        let duplicate =
            |first: &str, second: &str| HeaderError::Duplicate(first.to_owned(), second.to_owned());
        for (header, error) in [
            (vec![], HeaderError::NoNumber),
            (vec!["name", "city"], HeaderError::NoNumber),
            (vec!["number", " "], HeaderError::Empty(2)),
            (vec!["number", "Phone"], duplicate("number", "Phone")),
            (
                vec!["number", "name", "first_name"],
                duplicate("name", "first_name"),
            ),
            (vec!["number", "City", "city"], duplicate("City", "city")),
            (
                vec!["number", "a}b"],
                HeaderError::Name(2, NameError::Characters),
            ),
            (
                vec!["number", "$where"],
                HeaderError::Name(2, NameError::Characters),
            ),
            (
                vec!["number", "a\u{0}"],
                HeaderError::Name(2, NameError::Characters),
            ),
            (
                vec!["number", &long],
                HeaderError::Name(2, NameError::TooLong),
            ),
            (many, HeaderError::TooMany(MAX_COLUMNS + 1)),
        ] {
            assert_eq!(Columns::from_header(&header), Err(error));
        }
    }

    #[test]
    fn bad_rows_name_column_and_reason() {
        let header = ["Phone", "name", "tz", "city"];
        let long = "é".repeat(MAX_CELL + 1);
        check_row(
            &header,
            &["+14155550123"],
            None,
            "too few cells: 1 instead of 4",
        );
        check_row(
            &header,
            &["+14155550123", "", "", "", ""],
            None,
            "too many cells: 5 instead of 4",
        );
        check_row(
            &header,
            &[" ", "", "", ""],
            Some("Phone"),
            "the number is empty",
        );
        check_row(
            &header,
            &["+1 415", "", "", ""],
            Some("Phone"),
            "the number has a length that does not exist in its country",
        );
        check_row(
            &header,
            &["+14155550123", "", "Nowhere", ""],
            Some("tz"),
            "not an IANA time zone, for example Asia/Kolkata",
        );
        check_row(
            &header,
            &["+14155550123", "", "", &long],
            Some("city"),
            "has more than 1000 characters",
        );
        assert!(
            columns(&header)
                .contact(&["+14155550123", "", "", &"é".repeat(MAX_CELL)], None)
                .is_ok()
        );
    }

    const MAX_CELL: usize = 1_000;

    #[test]
    fn the_lists_country_completes_numbers() {
        let india = CountryCode::parse("IN").ok();
        assert_eq!(
            columns(&["number"])
                .contact(&["098765 43210"], india)
                .unwrap()
                .number
                .as_str(),
            "+919876543210"
        );
    }

    proptest! {
        #[test]
        fn any_header_and_row_give_a_contact_or_a_reason(
            header in vec("(number|phone|name|tz|email|\\PC{0,5})", 0..6),
            cells in vec("(\\+1415555012[0-9]|\\PC{0,8})", 0..6),
        ) {
            let header: Vec<&str> = header.iter().map(String::as_str).collect();
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            if let Ok(columns) = Columns::from_header(&header) {
                match columns.contact(&cells, None) {
                    Ok(contact) => {
                        let names = columns.names();
                        prop_assert!(contact.names().all(|name| names.iter().any(|known| known == name)));
                    }
                    Err(error) => prop_assert!(!error.reason.contains("1415555")),
                }
            }
        }
    }
}
