//! Any form, at any of our addresses: no panic, and what it tells does not depend on when it is read.
#![no_main]

use chrono::DateTime;
use libfuzzer_sys::fuzz_target;
use ringmaster::services::carrier::plivo_event::{
    Hook, call_record, digest, says_machine, webhook_event,
};

const HOOKS: [Hook; 6] = [
    Hook::Ring,
    Hook::Answer,
    Hook::Hangup,
    Hook::Fallback,
    Hook::Machine,
    Hook::Record,
];

fuzz_target!(|body: &[u8]| {
    let form: Vec<(String, String)> = url::form_urlencoded::parse(body).into_owned().collect();
    let at = DateTime::from_timestamp(1_750_000_000, 0).unwrap();
    for hook in HOOKS {
        let event = webhook_event(hook, &form, Some(1), at);
        assert_eq!(event, webhook_event(hook, &form, Some(1), at));
        if let Some(event) = event {
            assert_eq!(event.digest, digest(&form));
        }
    }
    drop(says_machine(&form).to_string());
    if let Ok(record) = serde_json::from_slice(body) {
        drop(call_record(&record));
    }
});
