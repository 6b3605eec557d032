//! Phone numbers: one normal form, E.164 (`+` and 8 to 15 digits), and no way to print one by accident.
//!
//! Contact lists come out of spreadsheets, phones and forms, so [`PhoneNumber::parse`] accepts what people write: spaces,
//! dots, dashes, brackets, `tel:`, a leading apostrophe, `00` for `+`, national form where the list has a default country.
//! It refuses what it would have to guess. Numbering plans come from libphonenumber's metadata (crate `phonenumber`);
//! metadata lags behind new ranges, so a number that no range knows is accepted as long as its country and its length are
//! possible.
//!
//! `Debug` and `Display` are masked (promise P8: nothing leaks). Only [`PhoneNumber::as_str`], [`PhoneNumber::digits`] and
//! [`PhoneNumber::to_u64`] give the number away, and the serialised form, which is what documents hold.

mod plan;

use std::fmt;

use phonenumber::metadata::DATABASE;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Fewest digits, country code included, that we dial. Shorter ones are service codes, not subscribers.
const MIN_DIGITS: usize = 8;
/// Most digits, country code included (ITU-T E.164, clause 6).
const MAX_DIGITS: usize = 15;

/// A phone number in E.164 form, for example `+14155550123`.
///
/// Deserialising checks the form only, never the numbering plan: what was stored once must load with any later metadata.
/// Input from people goes through [`PhoneNumber::parse`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PhoneNumber(String);

impl PhoneNumber {
    /// Reads a number as people write it.
    ///
    /// With a `default_country`, a number without `+` or `00` is read in that country's national form, with or without
    /// its trunk prefix, or as international where it already carries that country's code. Without one, bare digits are
    /// accepted only if they are a country code and a number of one of its known ranges.
    ///
    /// # Errors
    /// [`PhoneError`] names the reason and never holds the number.
    pub fn parse(raw: &str, default_country: Option<CountryCode>) -> Result<Self, PhoneError> {
        let (form, digits) = clean(raw)?;
        let read = match (form, default_country) {
            (Form::International, _) => plan::international(&digits)?,
            (Form::Bare, Some(country)) => plan::national(&digits, country)?,
            (Form::Bare, None) if plan::is_known(&digits) => digits,
            (Form::Bare, None) => return Err(PhoneError::NoCountry),
        };
        Self::try_from(format!("+{}", plan::settled(read)?))
    }

    /// The number in E.164 form, `+` included. Not for logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits without `+`, as the carrier writes them in its webhooks. Not for logs.
    pub fn digits(&self) -> &str {
        &self.0[1..]
    }

    /// The digits as an integer: 15 of them fit with room to spare, so sets of numbers can be kept as integers.
    pub fn to_u64(&self) -> u64 {
        self.digits()
            .bytes()
            .fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
    }

    /// The number with all but its last four digits starred, for example `+*******0123`.
    pub fn masked(&self) -> String {
        let (hidden, shown) = self.digits().split_at(self.digits().len() - 4);
        format!("+{}{shown}", "*".repeat(hidden.len()))
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl fmt::Display for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl TryFrom<String> for PhoneNumber {
    type Error = PhoneError;

    fn try_from(text: String) -> Result<Self, PhoneError> {
        let digits = text.strip_prefix('+').ok_or(PhoneError::NoCountry)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PhoneError::UnexpectedCharacter);
        }
        match digits.len() {
            ..MIN_DIGITS => Err(PhoneError::TooShort),
            MIN_DIGITS..=MAX_DIGITS if digits.starts_with('0') => {
                Err(PhoneError::UnknownCountryCode)
            }
            MIN_DIGITS..=MAX_DIGITS => Ok(Self(text)),
            _ => Err(PhoneError::TooLong),
        }
    }
}

impl From<PhoneNumber> for String {
    fn from(number: PhoneNumber) -> Self {
        number.0
    }
}

/// Why a text is not a phone number that we dial. The texts are for people and hold no part of the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PhoneError {
    /// Nothing but spaces and punctuation.
    #[error("the number is empty")]
    Empty,
    /// A spreadsheet's `9.19E+11`: the last digits are gone for good.
    #[error(
        "a spreadsheet turned the number into scientific notation and its last digits are lost; format the column as text"
    )]
    ScientificNotation,
    /// Letters: a vanity number, an extension, or not a number at all.
    #[error("the number contains letters")]
    Letters,
    /// A character that is neither a digit nor usual punctuation of numbers.
    #[error("the number contains a character that does not belong in a phone number")]
    UnexpectedCharacter,
    /// A `+` that is not the first character: usually two numbers in one cell.
    #[error("the number contains a plus sign that is not at its start; give one number only")]
    MisplacedPlus,
    /// Fewer than 8 digits.
    #[error("the number is too short: at least 8 digits with the country code are needed")]
    TooShort,
    /// More than 15 digits.
    #[error("the number is too long: at most 15 digits with the country code are allowed")]
    TooLong,
    /// No country has this calling code.
    #[error("the number starts with a country code that does not exist")]
    UnknownCountryCode,
    /// The country exists and has no numbers of this length.
    #[error("the number has a length that does not exist in its country")]
    ImpossibleLength,
    /// Neither the number nor the list says which country it belongs to.
    #[error(
        "the number has no country code; write it with + and the country code, or give a default country"
    )]
    NoCountry,
}

/// A country or territory with a numbering plan, by its ISO 3166-1 alpha-2 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CountryCode(phonenumber::country::Id);

/// The text is not the ISO 3166-1 alpha-2 code of a country with a numbering plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a two-letter country code (ISO 3166-1 alpha-2, for example IN or US)")]
pub struct CountryCodeError;

impl CountryCode {
    /// Reads a two-letter code in either case, for example `IN` or `us`.
    ///
    /// # Errors
    /// [`CountryCodeError`] for anything else, and for territories without a numbering plan of their own.
    pub fn parse(text: &str) -> Result<Self, CountryCodeError> {
        let id = text
            .trim()
            .to_ascii_uppercase()
            .parse()
            .map_err(|_| CountryCodeError)?;
        let country = Self(id);
        if DATABASE.by_id(country.as_str()).is_some() {
            Ok(country)
        } else {
            Err(CountryCodeError)
        }
    }

    /// The code in capitals.
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for CountryCode {
    type Error = CountryCodeError;

    fn try_from(text: String) -> Result<Self, CountryCodeError> {
        Self::parse(&text)
    }
}

impl From<CountryCode> for String {
    fn from(country: CountryCode) -> Self {
        country.as_str().to_owned()
    }
}

/// What the punctuation says about the digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// It began with `+` or `00`: the digits start with the country code.
    International,
    /// Digits only.
    Bare,
}

/// Strips the punctuation that people put into numbers and leaves the digits.
fn clean(raw: &str) -> Result<(Form, String), PhoneError> {
    let text = raw
        .trim_matches(is_filler)
        .trim_start_matches(['\'', '\u{2019}'])
        .trim_start_matches(is_filler);
    let text = match text.get(..4) {
        Some(scheme) if scheme.eq_ignore_ascii_case("tel:") => {
            text[4..].trim_start_matches(is_filler)
        }
        _ => text,
    };
    if is_scientific(text) {
        return Err(PhoneError::ScientificNotation);
    }
    let text = without_zero_decimals(text);
    let (plus, rest) = match text.strip_prefix(['+', '\u{ff0b}']) {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut digits = String::with_capacity(rest.len());
    for character in rest.chars() {
        match character {
            '0'..='9' => digits.push(character),
            '+' | '\u{ff0b}' => return Err(PhoneError::MisplacedPlus),
            _ if is_filler(character) || is_separator(character) => {}
            _ if character.is_alphabetic() => return Err(PhoneError::Letters),
            _ => return Err(PhoneError::UnexpectedCharacter),
        }
    }
    if digits.is_empty() {
        return Err(PhoneError::Empty);
    }
    if plus {
        return Ok((Form::International, digits));
    }
    match digits.strip_prefix("00") {
        Some(rest) => Ok((Form::International, rest.to_owned())),
        None => Ok((Form::Bare, digits)),
    }
}

/// White space, and the invisible marks that copying from a phone's address book leaves behind.
fn is_filler(character: char) -> bool {
    character.is_whitespace()
        || matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Dots, dashes and brackets. A slash is not among them: it more often separates two numbers than two groups.
fn is_separator(character: char) -> bool {
    matches!(
        character,
        '.' | '-' | '(' | ')' | '[' | ']' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{ff0d}'
    )
}

/// Whether the text is a float in scientific notation, as spreadsheets write long numbers.
fn is_scientific(text: &str) -> bool {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else {
        return false;
    };
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    is_digits(exponent) && mantissa.split(['.', ',']).all(is_digits)
}

/// Drops the `.0` of a number that went through a float: read as punctuation, it would append a digit to the number.
fn without_zero_decimals(text: &str) -> &str {
    match text.split_once('.') {
        Some((whole, "0" | "00"))
            if whole.len() >= MIN_DIGITS && whole.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            whole
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use phonenumber::metadata::Descriptor;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn country(code: &str) -> Option<CountryCode> {
        Some(CountryCode::parse(code).unwrap())
    }

    #[track_caller]
    fn check(raw: &str, default_country: Option<&str>, expected: Result<&str, PhoneError>) {
        let parsed = PhoneNumber::parse(raw, default_country.and_then(country));
        assert_eq!(
            parsed.as_ref().map(PhoneNumber::as_str),
            expected.as_ref().copied(),
            "{raw:?}"
        );
    }

    #[test]
    fn what_people_write_is_read() {
        for raw in [
            "+919876543210",
            "+91 98765 43210",
            " +91-98765-43210 ",
            "+91\u{a0}98765\u{202f}43210",
            "\u{202a}+91 98765 43210\u{202c}",
            "+91 (98765) [43210]",
            "+91.98765.43210",
            "tel:+919876543210",
            "TEL:+91-98765-43210",
            "'+919876543210",
            "'+91 9876543210",
            "00919876543210",
            "00 91 98765 43210",
            "\u{ff0b}919876543210",
            "919876543210",
            "919876543210.0",
            "\u{feff}919876543210",
        ] {
            check(raw, None, Ok("+919876543210"));
            check(raw, Some("IN"), Ok("+919876543210"));
        }
    }

    #[test]
    fn national_form_needs_a_country() {
        check("98765 43210", Some("IN"), Ok("+919876543210"));
        check("09876543210", Some("IN"), Ok("+919876543210"));
        check("98765 43210", Some("in"), Ok("+919876543210"));
        check("(415) 555-2671", Some("US"), Ok("+14155552671"));
        check("1 415 555 2671", Some("US"), Ok("+14155552671"));
        check("011 91 98765 43210", Some("US"), Ok("+919876543210"));
        check("020 7946 0018", Some("GB"), Ok("+442079460018"));
        check("442079460018", Some("GB"), Ok("+442079460018"));
        check("030 901820", Some("DE"), Ok("+4930901820"));
        check("4930901820", Some("DE"), Ok("+4930901820"));
        check("06 698 12345", Some("IT"), Ok("+390669812345"));
        check("(415) 555-2671", None, Err(PhoneError::NoCountry));
        check("09876543210", None, Err(PhoneError::NoCountry));
        // Another country's number must carry a plus sign: a list's country is no reason to guess.
        check(
            "919876543210",
            Some("US"),
            Err(PhoneError::ImpossibleLength),
        );
        check("+919876543210", Some("US"), Ok("+919876543210"));
    }

    #[test]
    fn an_indian_mobile_number_that_begins_like_the_country_code() {
        check("9198765432", Some("IN"), Ok("+919198765432"));
        check("919198765432", Some("IN"), Ok("+919198765432"));
    }

    #[test]
    fn a_trunk_prefix_after_the_country_code_goes() {
        check("+44 (0)20 7946 0018", None, Ok("+442079460018"));
        check("+49 (0) 30 901820", None, Ok("+4930901820"));
        check("+39 06 698 12345", None, Ok("+390669812345"));
        check("+33 06 31 96 65 43", None, Ok("+33631966543"));
    }

    #[test]
    fn ranges_that_the_metadata_does_not_know_are_accepted() {
        assert!(!plan::is_known("913123456789"));
        check("+913123456789", None, Ok("+913123456789"));
        check("3123456789", Some("IN"), Ok("+913123456789"));
        check("03123456789", Some("IN"), Ok("+913123456789"));
        check("913123456789", Some("IN"), Ok("+913123456789"));
        check("913123456789", None, Err(PhoneError::NoCountry));
        // Fictitious numbers of North America: examples and tests are full of them.
        check("+1 415 555 0123", None, Ok("+14155550123"));
        // Chinese numbers that begin like an old carrier selection code keep it.
        check("+86 179 1234 5678", None, Ok("+8617912345678"));
    }

    #[test]
    fn what_would_be_a_guess_is_refused() {
        for (raw, reason) in [
            ("", PhoneError::Empty),
            (" - ", PhoneError::Empty),
            ("+", PhoneError::Empty),
            ("9.19E+11", PhoneError::ScientificNotation),
            ("9.19877e11", PhoneError::ScientificNotation),
            ("9,19877E+11", PhoneError::ScientificNotation),
            ("919877E6", PhoneError::ScientificNotation),
            ("1-800-FLOWERS", PhoneError::Letters),
            ("+1 415 555 2671 ext. 5", PhoneError::Letters),
            ("n/a", PhoneError::Letters),
            ("e", PhoneError::Letters),
            (
                "+91 98765 43210 / 98765 43211",
                PhoneError::UnexpectedCharacter,
            ),
            ("tel:+91-98765-43210;ext=5", PhoneError::UnexpectedCharacter),
            ("\u{967}\u{968}\u{969}", PhoneError::UnexpectedCharacter),
            ("+919876543210 +919876543211", PhoneError::MisplacedPlus),
            ("++919876543210", PhoneError::MisplacedPlus),
            ("+999 1234 5678", PhoneError::UnknownCountryCode),
            ("+0123456789", PhoneError::UnknownCountryCode),
            ("+1 415 555", PhoneError::ImpossibleLength),
            ("+1 415 555 26711", PhoneError::ImpossibleLength),
            ("+91 98765 43210 98765 43211", PhoneError::ImpossibleLength),
            ("112", PhoneError::NoCountry),
        ] {
            check(raw, None, Err(reason));
        }
        check("112", Some("IN"), Err(PhoneError::ImpossibleLength));
        check("+290 5123", None, Err(PhoneError::TooShort));
    }

    #[test]
    fn nothing_prints_the_number() {
        let number = PhoneNumber::parse("+14155550123", None).unwrap();
        assert_eq!(number.masked(), "+*******0123");
        assert_eq!(format!("{number} {number:?}"), "+*******0123 +*******0123");
        assert_eq!(
            (number.as_str(), number.digits(), number.to_u64()),
            ("+14155550123", "14155550123", 14_155_550_123)
        );
    }

    #[test]
    fn stored_numbers_load_by_their_form_alone() {
        let load = |text: &str| {
            serde_json::from_value::<PhoneNumber>(text.into()).map_err(|error| error.to_string())
        };
        assert_eq!(load("+999123456789").unwrap().as_str(), "+999123456789");
        for bad in [
            "",
            "+",
            "14155550123",
            "+1415555",
            "+0155550123",
            "+1415555012345678",
            "+1415 5550123",
            "+٣١٤١٥٥٥٥",
        ] {
            let error = load(bad).unwrap_err();
            assert!(!error.contains("1415555"), "{error}");
        }
    }

    #[test]
    fn countries() {
        assert_eq!(CountryCode::parse(" us ").unwrap().as_str(), "US");
        assert_eq!(serde_json::to_string(&country("IN")).unwrap(), r#""IN""#);
        for bad in ["", "I", "IND", "XX", "AQ", "001", "91", "\u{131}n"] {
            assert_eq!(CountryCode::parse(bad), Err(CountryCodeError), "{bad}");
        }
    }

    /// Every country with a numbering plan.
    fn countries_with_plans() -> Vec<CountryCode> {
        DATABASE
            .iter()
            .filter_map(|plan| CountryCode::parse(plan.id()).ok())
            .collect()
    }

    #[test]
    fn every_countrys_example_numbers_are_read() {
        let countries = countries_with_plans();
        assert!(countries.len() > 200);
        for country in countries {
            let plan = DATABASE.by_id(country.as_str()).unwrap();
            let examples = |kind: Option<&'static Descriptor>| kind.and_then(Descriptor::example);
            let e164 = |example: &str| format!("+{}{example}", plan.country_code());
            let dialable =
                |example: &&str| (MIN_DIGITS..=MAX_DIGITS).contains(&(e164(example).len() - 1));
            let read = |raw: &str| PhoneNumber::parse(raw, Some(country)).map(String::from);

            let mobile = examples(plan.descriptors().mobile()).filter(dialable);
            let fixed = examples(plan.descriptors().fixed_line()).filter(dialable);
            for example in mobile.iter().chain(&fixed) {
                assert_eq!(read(&e164(example)), Ok(e164(example)), "{country}");
                assert_eq!(read(example), Ok(e164(example)), "{country}");
            }
            // A landline with its country code and without a plus sign can be another landline: Sweden, Kosovo.
            if let Some(example) = mobile {
                assert_eq!(read(&e164(example)[1..]), Ok(e164(example)), "{country}");
            }
        }
    }

    /// Digits that look like numbers in every country: trunk prefixes, dialing prefixes and country codes included.
    fn digits() -> impl Strategy<Value = String> {
        let code = select(countries_with_plans()).prop_map(|country| {
            DATABASE
                .by_id(country.as_str())
                .unwrap()
                .country_code()
                .to_string()
        });
        prop_oneof![
            "[0-9]{0,17}".boxed(),
            "(0|00|011|1|8|06|01)?[0-9]{5,12}".boxed(),
            (code, "0?[0-9]{4,12}")
                .prop_map(|(code, rest)| code + &rest)
                .boxed(),
        ]
    }

    proptest! {
        #[test]
        fn any_text_is_a_number_or_refused(raw in any::<String>(), country in select(countries_with_plans())) {
            let _ = PhoneNumber::parse(&raw, None).map_err(|error| error.to_string());
            let _ = PhoneNumber::parse(&raw, Some(country)).map_err(|error| error.to_string());
        }

        #[test]
        fn a_number_that_was_read_is_read_again_as_itself(
            raw in digits(),
            plus in any::<bool>(),
            country in select(countries_with_plans()),
        ) {
            let raw = if plus { format!("+{raw}") } else { raw };
            if let Ok(number) = PhoneNumber::parse(&raw, Some(country)) {
                prop_assert!((MIN_DIGITS..=MAX_DIGITS).contains(&number.digits().len()));
                prop_assert_eq!(number.to_u64().to_string(), number.digits());
                for again in [None, Some(country)] {
                    let read = PhoneNumber::parse(number.as_str(), again);
                    prop_assert_eq!(read.as_ref().map(PhoneNumber::as_str), Ok(number.as_str()));
                }
                let printed = format!("{number} {number:?}");
                prop_assert_eq!(printed.matches(|c: char| c.is_ascii_digit()).count(), 8);
                let stored = serde_json::to_string(&number).unwrap();
                let loaded: PhoneNumber = serde_json::from_str(&stored).unwrap();
                prop_assert_eq!(loaded, number);
            }
        }

        #[test]
        fn punctuation_changes_nothing(raw in digits(), country in select(countries_with_plans()), seed in any::<u64>()) {
            let signs = [" ", "-", ".", " (", ") ", "\u{a0}", "", ""];
            let spread: String = raw.chars().enumerate().flat_map(|(index, digit)| {
                // The last sign stays off: ".0" at the end means something.
                let sign = signs[usize::try_from((seed >> (index * 3 % 60)) % 8).unwrap()];
                [digit.to_string(), if index + 3 < raw.len() { sign.to_owned() } else { String::new() }]
            }).collect();
            prop_assert_eq!(PhoneNumber::parse(&spread, Some(country)), PhoneNumber::parse(&raw, Some(country)));
        }
    }
}
