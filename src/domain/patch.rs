//! A member of a PATCH body: absent, null, or a new value (RFC 7396).

use serde::{Deserialize, Deserializer};

/// What a PATCH says about one optional field. Declare it with `#[serde(default)]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Patch<T> {
    /// Not mentioned: stays as it is.
    #[default]
    Keep,
    /// `null`: is removed.
    Clear,
    /// Replaced.
    Set(T),
}

impl<T> Patch<T> {
    /// The field as it is afterwards.
    pub fn apply(self, current: Option<T>) -> Option<T> {
        match self {
            Self::Keep => current,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Option::deserialize(deserializer)? {
            None => Self::Clear,
            Some(value) => Self::Set(value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        company: Patch<String>,
    }

    #[test]
    fn absent_null_and_value_differ() {
        let patch = |json: &str| {
            let body: Body = serde_json::from_str(json).unwrap();
            body.company.apply(Some("old".to_owned()))
        };
        assert_eq!(patch("{}").as_deref(), Some("old"));
        assert_eq!(patch(r#"{"company": null}"#), None);
        assert_eq!(patch(r#"{"company": "new"}"#).as_deref(), Some("new"));
    }
}
