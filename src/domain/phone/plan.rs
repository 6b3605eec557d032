//! Numbering plans: which country's number a row of digits is, by libphonenumber's metadata.
//!
//! Digits can often be read in more than one way: with or without a trunk prefix, as national or as international. Each
//! way is a [`Reading`]; a reading that falls into a known range wins, and where none does, one of possible length.

use phonenumber::Metadata;
use phonenumber::metadata::{DATABASE, Descriptor, Descriptors};

use super::{CountryCode, PhoneError};

/// Country calling codes have one to three digits (ITU-T E.164, clause 6.2.1).
const MAX_COUNTRY_CODE_DIGITS: usize = 3;
/// A text whose digits still change after so many readings is no number that people write.
const MOST_READINGS: usize = 4;

/// Settles digits that start with a country code.
///
/// The number as written wins wherever the plan knows it, then without its trunk prefix (`+44 (0)20 …`); after that,
/// possible lengths decide in the same order, because metadata lags.
pub(super) fn international(digits: &str) -> Result<String, PhoneError> {
    let written = Reading::new(digits).ok_or(PhoneError::UnknownCountryCode)?;
    // The library asks every country that shares the code, so the usual case does without.
    if written.is_known() {
        return Ok(written.digits);
    }
    let stripped = Reading::by_library(&format!("+{digits}"), None);
    let readings = [&Some(written), &stripped];
    first(readings, Reading::is_known)
        .or_else(|| first(readings, Reading::is_possible))
        .ok_or(PhoneError::ImpossibleLength)
}

/// Settles digits without an international prefix in a country.
///
/// Where a country has long numbers that begin like its own code, both readings can be known: in Germany 49 151… is a
/// mobile number with its country code or a landline of area 0491. Mobile wins, lists hold hardly anything else; then the
/// national reading does.
pub(super) fn national(digits: &str, country: CountryCode) -> Result<String, PhoneError> {
    let code = DATABASE
        .by_id(country.as_str())
        .map_or(0, Metadata::country_code)
        .to_string();
    let subscriber = Reading::new(&format!("{code}{digits}"));
    let with_code = if digits.starts_with(&code) {
        Reading::new(digits)
    } else {
        None
    };
    let stripped = Reading::by_library(digits, Some(country));
    let readings = [&subscriber, &with_code, &stripped];
    // Where no range knows the number, its trunk prefix must go first: in countries with many lengths the number with
    // its leading zero would look possible.
    let stripped_first = [&stripped, &subscriber, &with_code];
    first(readings, Reading::is_mobile)
        .or_else(|| first(readings, Reading::is_known))
        .or_else(|| first(stripped_first, Reading::is_possible))
        .ok_or(PhoneError::ImpossibleLength)
}

/// Reads digits with a country code again until nothing changes any more, so that a number means the same whether a list
/// gives it as people write it or as we wrote it down: behind one trunk prefix there can be another.
pub(super) fn settled(mut digits: String) -> Result<String, PhoneError> {
    for _ in 0..MOST_READINGS {
        let again = international(&digits)?;
        if again == digits {
            return Ok(digits);
        }
        digits = again;
    }
    Err(PhoneError::ImpossibleLength)
}

/// Whether the digits are a number of a known range exactly as they stand.
pub(super) fn is_known(digits: &str) -> bool {
    Reading::new(digits).is_some_and(|reading| reading.is_known())
}

/// The digits of the first reading that fits.
fn first<const N: usize>(
    readings: [&Option<Reading>; N],
    fits: fn(&Reading) -> bool,
) -> Option<String> {
    readings
        .into_iter()
        .flatten()
        .find(|reading| fits(reading))
        .map(|reading| reading.digits.clone())
}

/// One way to read an input.
struct Reading {
    /// Country code and national number.
    digits: String,
    /// How many of the digits are the country code.
    code_len: usize,
    /// The numbering plans behind the code: several for shared ones such as +1.
    plans: Vec<&'static Metadata>,
}

impl Reading {
    /// Splits off the country code; no code is the beginning of another, so there is at most one.
    fn new(digits: &str) -> Option<Self> {
        if digits.starts_with('0') {
            return None;
        }
        (1..=MAX_COUNTRY_CODE_DIGITS.min(digits.len())).find_map(|code_len| {
            let plans = DATABASE.by_code(&digits[..code_len].parse::<u16>().ok()?)?;
            Some(Self {
                digits: digits.to_owned(),
                code_len,
                plans,
            })
        })
    }

    /// What libphonenumber's rules make of a text: they know each country's trunk and dialing prefixes.
    fn by_library(text: &str, country: Option<CountryCode>) -> Option<Self> {
        let number = phonenumber::parse(country.map(|country| country.0), text).ok()?;
        Self::new(&format!("{}{}", number.code().value(), number.national()))
    }

    fn national(&self) -> &str {
        &self.digits[self.code_len..]
    }

    /// Whether it is known as a mobile number. North America does not tell mobile numbers from others.
    fn is_mobile(&self) -> bool {
        self.is_in(|kinds| vec![kinds.mobile()])
    }

    /// Whether a known range covers it to its last digit.
    fn is_known(&self) -> bool {
        self.is_in(|kinds| {
            vec![
                kinds.mobile(),
                kinds.fixed_line(),
                kinds.voip(),
                kinds.personal_number(),
                kinds.toll_free(),
                kinds.uan(),
                kinds.shared_cost(),
                kinds.premium_rate(),
                kinds.pager(),
                kinds.voicemail(),
            ]
        })
    }

    /// Whether a range of one of these kinds covers it. The country's general pattern must cover it, too: that is the one
    /// made to tell national numbers from international ones where both look alike.
    fn is_in(&self, kinds: fn(&Descriptors) -> Vec<Option<&Descriptor>>) -> bool {
        let covers = |kind: &Descriptor| {
            let found = kind.national_number().find(self.national());
            found.is_some_and(|found| found.start() == 0 && found.end() == self.national().len())
        };
        self.plans
            .iter()
            .map(|plan| plan.descriptors())
            .any(|plan| {
                covers(plan.general())
                    && kinds(plan)
                        .into_iter()
                        .flatten()
                        .any(|kind| self.has_length_of(kind) && covers(kind))
            })
    }

    /// Whether there are subscribers with numbers of this length.
    fn is_possible(&self) -> bool {
        self.plans
            .iter()
            .map(|plan| plan.descriptors())
            .any(|plan| {
                let subscribers = [
                    plan.mobile(),
                    plan.fixed_line(),
                    plan.voip(),
                    plan.personal_number(),
                ];
                subscribers
                    .into_iter()
                    .flatten()
                    .any(|kind| self.has_length_of(kind))
            })
    }

    fn has_length_of(&self, kind: &Descriptor) -> bool {
        kind.possible_length()
            .iter()
            .any(|&length| usize::from(length) == self.national().len())
    }
}
