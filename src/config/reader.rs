//! Reading variables: every fault is collected, so that all can be named at once.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

/// A variable that cannot be used, and why. The value itself is not repeated: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct Fault {
    /// The environment variable.
    pub name: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// Everything that was wrong with the settings.
#[derive(Debug, thiserror::Error)]
#[error("{} setting(s) cannot be used: {}", .0.len(), .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Faults(pub Vec<Fault>);

/// Reads variables and collects what is wrong with them.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(super) faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            faults: Vec::new(),
        }
    }

    /// An empty variable counts as absent: that is how container platforms unset one.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    fn fault(&mut self, name: &'static str, reason: impl Into<String>) {
        self.faults.push(Fault {
            name,
            reason: reason.into(),
        });
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, name: &'static str, default: T) -> T {
        match self.text(name).map(|text| text.parse()) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                self.fault(name, error.to_string());
                default
            }
        }
    }

    pub(super) fn millis(&mut self, name: &'static str, default: u64) -> Duration {
        let value = self.parse(name, default);
        if value > 7 * 24 * 3_600_000 {
            self.fault(name, "is in milliseconds and may be one week at most");
        }
        Duration::from_millis(value)
    }

    /// Likewise, of which nothing would be no time at all.
    pub(super) fn some_millis(&mut self, name: &'static str, default: u64) -> Duration {
        let value = self.millis(name, default);
        if value.is_zero() {
            self.fault(name, "must be at least 1 ms");
        }
        value
    }

    pub(super) fn positive(&mut self, name: &'static str, default: f64) -> f64 {
        let value = self.parse(name, default);
        if value > 0.0 && value <= 10_000.0 {
            return value;
        }
        self.fault(name, "must be above 0 and at most 10000");
        default
    }

    pub(super) fn percent(&mut self, name: &'static str, default: u32) -> u32 {
        let value = self.parse(name, default);
        if value > 100 {
            self.fault(name, "is a percentage, 0 to 100");
        }
        value
    }

    pub(super) fn secret(&self, name: &str) -> Option<SecretString> {
        self.text(name).map(SecretString::from)
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        text.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// Origins as browsers send them, or `*`: any other text would never match, and nobody would see why.
    pub(super) fn origins(&mut self, name: &'static str) -> Vec<String> {
        let origins = self.list(name);
        let is_origin = |text: &String| {
            let url = Url::parse(text).ok();
            let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
            text == "*" || url.is_some_and(|url| url.origin().ascii_serialization() == *text)
        };
        if !origins.iter().all(is_origin) {
            let reason = "must be a list of origins such as https://app.example.com (scheme, host and port, \
                nothing behind), or *";
            self.fault(name, reason);
        }
        origins
    }

    #[cfg(feature = "crash-points")]
    pub(super) fn parsed_list<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Vec<T> {
        let mut values = Vec::new();
        for item in self.list(name) {
            match item.parse::<T>() {
                Ok(value) => values.push(value),
                Err(error) => self.fault(name, error.to_string()),
            }
        }
        values
    }

    pub(super) fn name(&mut self, name: &'static str, default: &str) -> String {
        let value = self.text(name).unwrap_or_else(|| default.to_owned());
        if value.contains(['$', '\0', ' ', '/', '\\', '"']) || value.starts_with("system.") {
            self.fault(name, "is not a name that MongoDB accepts");
        }
        value
    }

    pub(super) fn choice(&mut self, name: &'static str, choices: &[&'static str]) -> &'static str {
        let Some(text) = self.text(name) else {
            return choices[0];
        };
        match choices.iter().find(|choice| **choice == text) {
            Some(choice) => choice,
            None => {
                self.fault(name, format!("must be one of {}", choices.join(", ")));
                choices[0]
            }
        }
    }

    pub(super) fn url(&mut self, name: &'static str) -> Option<Url> {
        let text = self.text(name)?;
        match Url::parse(text.trim_end_matches('/')) {
            Ok(url)
                if matches!(url.scheme(), "http" | "https")
                    && url.has_host()
                    && url.fragment().is_none() =>
            {
                Some(url)
            }
            _ => {
                self.fault(name, "must be a full http or https URL without a fragment");
                None
            }
        }
    }

    /// A URL to which paths are appended.
    pub(super) fn base_url(&mut self, name: &'static str) -> Option<Url> {
        let url = self.url(name)?;
        if url.query().is_some() {
            self.fault(
                name,
                "must be a URL without a query: paths are appended to it",
            );
            return None;
        }
        Some(url)
    }
}
