//! The call XML that Plivo fetches from our answer URL.
//!
//! Pure: takes a rendered [`Answer`], gives a document. Everything that came from outside is written as text or attribute
//! value by an XML writer, so no contact's name can add an element; characters that XML 1.0 cannot carry are dropped,
//! because Plivo drops the answered and billed call over a document that does not parse (code 8011). Element and attribute
//! names are case-sensitive; a document may have at most 100 KB, which the limits of a rendered answer keep far below.

use std::borrow::Cow;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use crate::domain::answer::{Answer, header_line};

/// The media type to serve the documents with.
pub const CONTENT_TYPE: &str = "application/xml";

/// What the callee gets. `answer` must be rendered.
pub fn answer_document(answer: &Answer) -> String {
    match answer {
        Answer::Stream {
            url,
            content_type,
            extra_headers,
        } => {
            let headers = extra_headers
                .as_ref()
                .map(header_line)
                .filter(|line| !line.is_empty());
            let attributes = [
                ("bidirectional", Some("true")),
                ("keepCallAlive", Some("true")),
                ("contentType", content_type.as_deref()),
                ("extraHeaders", headers.as_deref()),
            ];
            document(Some(("Stream", &attributes, url)))
        }
        Answer::Speak {
            text,
            voice,
            language,
        } => {
            let attributes = [
                ("voice", voice.as_deref()),
                ("language", language.as_deref()),
            ];
            document(Some(("Speak", &attributes, text)))
        }
        Answer::Play { url } => document(Some(("Play", &[], url))),
        Answer::Xml { url } => document(Some(("Redirect", &[], url))),
    }
}

/// Ends the call: for a ghost call, whose token is stale, and for one that must not go on.
pub fn hangup_document() -> String {
    document(Some(("Hangup", &[], "")))
}

/// Nothing to do: what webhooks other than the answer get.
pub fn empty_document() -> String {
    document(None)
}

/// An element: name, attributes (those without a value are left out) and text.
type Element<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)], &'a str);

/// A `<Response>` with at most one element in it.
fn document(element: Option<Element<'_>>) -> String {
    let mut events = vec![
        Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)),
        Event::Start(BytesStart::new("Response")),
    ];
    let text;
    if let Some((name, attributes, content)) = element {
        let mut start = BytesStart::new(name);
        for (key, value) in attributes {
            if let Some(value) = value {
                start.push_attribute((*key, carried(value)));
            }
        }
        text = carried(content);
        if text.is_empty() {
            events.push(Event::Empty(start));
        } else {
            events.extend([
                Event::Start(start),
                Event::Text(BytesText::new(&text)),
                Event::End(BytesEnd::new(name)),
            ]);
        }
    }
    events.push(Event::End(BytesEnd::new("Response")));
    written(events)
}

fn written(events: Vec<Event<'_>>) -> String {
    let mut writer = Writer::new(Vec::new());
    for event in events {
        #[expect(clippy::expect_used, reason = "writing to a Vec cannot fail")]
        writer.write_event(event).expect("a Vec takes every byte");
    }
    String::from_utf8_lossy(&writer.into_inner()).into_owned()
}

/// The characters of a text that XML 1.0 can carry (section 2.2, production 2, `Char`).
fn carried(text: &str) -> Cow<'_, str> {
    let is_char = |c: char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{fffd}' | '\u{10000}'..);
    if text.chars().all(is_char) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.chars().filter(|&c| is_char(c)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use quick_xml::Reader;

    use super::*;
    use crate::domain::contact::Contact;

    const DECLARATION: &str = r#"<?xml version="1.0" encoding="UTF-8"?>"#;

    fn speak(text: &str) -> Answer {
        Answer::Speak {
            text: text.to_owned(),
            voice: None,
            language: None,
        }
    }

    #[track_caller]
    fn check(document: &str, body: &str) {
        assert_eq!(document, format!("{DECLARATION}{body}"));
    }

    #[test]
    fn a_bare_stream() {
        let answer = Answer::Stream {
            url: "wss://h/ws?a=1&b=2".to_owned(),
            content_type: None,
            extra_headers: None,
        };
        check(
            &answer_document(&answer),
            r#"<Response><Stream bidirectional="true" keepCallAlive="true">wss://h/ws?a=1&amp;b=2</Stream></Response>"#,
        );
    }

    #[test]
    fn a_full_stream() {
        let headers = BTreeMap::from([
            ("b".to_owned(), "2".to_owned()),
            ("a".to_owned(), "1".to_owned()),
        ]);
        let answer = Answer::Stream {
            url: "wss://h/ws".to_owned(),
            content_type: Some("audio/x-mulaw;rate=8000".to_owned()),
            extra_headers: Some(headers),
        };
        check(
            &answer_document(&answer),
            "<Response><Stream bidirectional=\"true\" keepCallAlive=\"true\" contentType=\"audio/x-mulaw;rate=8000\" \
             extraHeaders=\"a=1,b=2\">wss://h/ws</Stream></Response>",
        );
    }

    #[test]
    fn the_other_documents() {
        let answer = Answer::Speak {
            text: "Hi <b>& \"you\"".to_owned(),
            voice: Some("Polly.Aditi".to_owned()),
            language: Some("en-IN".to_owned()),
        };
        check(
            &answer_document(&answer),
            "<Response><Speak voice=\"Polly.Aditi\" language=\"en-IN\">Hi &lt;b&gt;&amp; &quot;you&quot;</Speak></Response>",
        );
        let url = || "https://h/x?a=1&b=2".to_owned();
        check(
            &answer_document(&Answer::Play { url: url() }),
            "<Response><Play>https://h/x?a=1&amp;b=2</Play></Response>",
        );
        check(
            &answer_document(&Answer::Xml { url: url() }),
            "<Response><Redirect>https://h/x?a=1&amp;b=2</Redirect></Response>",
        );
        check(&hangup_document(), "<Response><Hangup/></Response>");
        check(&empty_document(), "<Response></Response>");
    }

    /// An element as a strict parser sees it.
    struct Parsed {
        name: String,
        attributes: Vec<(String, String)>,
        text: String,
    }

    /// Every element of a document.
    fn parsed(document: &str) -> Vec<Parsed> {
        let mut reader = Reader::from_str(document);
        reader.config_mut().check_end_names = true;
        let mut elements: Vec<Parsed> = Vec::new();
        loop {
            match reader.read_event().unwrap() {
                Event::Start(start) | Event::Empty(start) => {
                    let attributes = start.attributes().map(|attribute| {
                        let attribute = attribute.unwrap();
                        let value = attribute
                            .normalized_value(quick_xml::XmlVersion::Implicit1_0)
                            .unwrap();
                        (attribute.key.as_ref().to_owned(), value.into_owned())
                    });
                    elements.push(Parsed {
                        name: start.name().as_ref().to_owned(),
                        attributes: attributes.collect(),
                        text: String::new(),
                    });
                }
                Event::Text(text) => elements
                    .last_mut()
                    .unwrap()
                    .text
                    .push_str(&text.xml10_content()),
                Event::GeneralRef(reference) => {
                    let text = match reference.resolve_char_ref().unwrap() {
                        Some(character) => character.to_string(),
                        None => quick_xml::escape::resolve_predefined_entity(&reference)
                            .unwrap()
                            .to_owned(),
                    };
                    elements.last_mut().unwrap().text.push_str(&text);
                }
                Event::Eof => return elements,
                Event::Decl(_) | Event::End(_) => {}
                other
                @ (Event::CData(_) | Event::Comment(_) | Event::PI(_) | Event::DocType(_)) => {
                    panic!("unexpected {other:?}")
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_out_as_it_went_in(text in any::<String>()) {
            let document = answer_document(&speak(&text));
            let elements = parsed(&document);
            prop_assert_eq!(elements.len(), 2);
            prop_assert_eq!(&elements[1].name, "Speak");
            prop_assert_eq!(elements[1].text.clone(), carried(&text).into_owned());
        }

        #[test]
        fn any_attribute_comes_out_as_it_went_in(text in any::<String>()) {
            let answer = Answer::Stream { url: "wss://h".to_owned(), content_type: Some(text.clone()), extra_headers: None };
            let elements = parsed(&answer_document(&answer));
            prop_assert_eq!(elements.len(), 2);
            let (key, value) = elements[1].attributes.last().unwrap();
            prop_assert_eq!(key, "contentType");
            prop_assert_eq!(value.clone(), carried(&text).into_owned());
        }

        #[test]
        fn text_without_control_characters_is_kept_whole(text in "\\PC*") {
            prop_assert_eq!(carried(&text).into_owned(), text);
        }

        #[test]
        fn a_rendered_answer_stays_under_100_kb(sign in any::<char>(), count in 0..=200_usize) {
            let value = sign.to_string().repeat(count);
            let names = "{{v}}".repeat(50);
            let contact = Contact {
                seq: 0,
                number: String::from("+14155550123").try_into().unwrap(),
                first_name: None,
                time_zone: None,
                fields: BTreeMap::from([("v".to_owned(), value)]),
            };
            let stream = Answer::Stream {
                url: format!("wss://h/{names}"),
                content_type: None,
                extra_headers: Some(BTreeMap::from([("h".to_owned(), names.clone())])),
            };
            for answer in [stream, speak(&names), Answer::Play { url: format!("https://h/{names}") }] {
                prop_assert!(answer_document(&answer.render(&contact)).len() < 100_000);
            }
        }
    }
}
