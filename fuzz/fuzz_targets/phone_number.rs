//! A number that was read is read again as itself, and is never printed whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmaster::domain::phone::{CountryCode, PhoneNumber};

fuzz_target!(|input: (&str, &str)| {
    let (country, text) = input;
    let country = CountryCode::parse(country).ok();
    for country in [
        None,
        country,
        CountryCode::parse("IN").ok(),
        CountryCode::parse("US").ok(),
    ] {
        let Ok(number) = PhoneNumber::parse(text, country) else {
            continue;
        };
        assert_eq!(number.to_u64().to_string(), number.digits());
        let again = PhoneNumber::parse(number.as_str(), None).unwrap();
        assert_eq!(again.as_str(), number.as_str());
        assert!(!format!("{number} {number:?}").contains(number.digits()));
    }
});
