//! Whatever a contact's values are, the document has the elements that we wrote and no others, and is well-formed.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use quick_xml::Reader;
use quick_xml::events::Event;
use ringmaster::domain::answer::Answer;
use ringmaster::services::carrier::plivo_xml::answer_document;

#[derive(Debug, Arbitrary)]
struct Input {
    kind: u8,
    text: String,
    one: Option<String>,
    other: Option<String>,
    headers: Option<BTreeMap<String, String>>,
}

fuzz_target!(|input: Input| {
    let Input {
        kind,
        text,
        one,
        other,
        headers,
    } = input;
    let answer = match kind % 4 {
        0 => Answer::Stream {
            url: text,
            content_type: one,
            extra_headers: headers,
        },
        1 => Answer::Speak {
            text,
            voice: one,
            language: other.clone(),
        },
        2 => Answer::Play { url: text },
        _ => Answer::Xml { url: text },
    };
    let document = answer_document(&answer, other.as_deref());
    let mut reader = Reader::from_str(&document);
    let mut elements = 0;
    loop {
        match reader.read_event().expect("well-formed") {
            Event::Start(start) | Event::Empty(start) => {
                elements += 1;
                for attribute in start.attributes() {
                    attribute.expect("well-formed attributes");
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(elements, 2, "{document}");
});
