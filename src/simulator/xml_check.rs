//! Reads an answer document as strictly as Plivo does: content type, well-formedness, known elements and attributes.

use std::time::Duration;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::dial::{LONGEST_CALL_SECONDS, Method, is_web_url, parse_method};

/// Largest document that Plivo reads, in bytes.
pub(super) const LARGEST_DOCUMENT: usize = 100 * 1024;

/// One instruction of a document, as far as the simulator carries it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Speak or Play: the callee listens, then the document goes on.
    Message,
    /// Stream, Dial, Record, `GetDigits`, `GetInput`: goes on until the callee hangs up.
    Conversation,
    /// Wait.
    Wait(Duration),
    /// DTMF: takes no time.
    Instant,
    /// Hangup, at once or after a time.
    Hangup { code: u16, after: Duration },
    /// Redirect: another document takes over.
    Redirect { url: String, method: Method },
}

/// An element: its name, the attributes it may have, and the elements it may contain.
type Element = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const PROMPTS: &[&str] = &["Speak", "Play"];
const SSML: &[&str] = &[
    "break", "emphasis", "lang", "p", "phoneme", "prosody", "s", "say-as", "sub", "w",
];

/// Plivo's elements (section 6 of the reference). The tags of speech markup take any attribute.
#[rustfmt::skip]
const ELEMENTS: &[Element] = &[
    ("Stream", &["bidirectional", "audioTrack", "streamTimeout", "contentType", "keepCallAlive", "extraHeaders",
        "statusCallbackUrl", "statusCallbackMethod", "noiseCancellation", "noiseCancellationLevel"], &[]),
    ("Speak", &["voice", "language", "loop"], SSML),
    ("Play", &["loop"], &[]),
    ("GetDigits", &["action", "method", "timeout", "digitTimeout", "numDigits", "finishOnKey", "retries", "redirect",
        "playBeep", "validDigits", "invalidDigitsSound", "log"], PROMPTS),
    ("GetInput", &["action", "method", "inputType", "executionTimeout", "digitEndTimeout", "speechEndTimeout", "numDigits",
        "finishOnKey", "language", "speechModel", "hints", "interimSpeechResultsCallback",
        "interimSpeechResultsCallbackMethod", "log", "redirect", "profanityFilter"], PROMPTS),
    ("Dial", &["action", "method", "timeout", "timeLimit", "callerId", "callerName", "hangupOnStar", "confirmSound",
        "confirmKey", "confirmTimeout", "dialMusic", "callbackUrl", "callbackMethod", "redirect", "digitsMatch",
        "digitsMatchBLeg", "sipHeaders"], &["Number", "User"]),
    ("Number", &["sendDigits", "sendOnPreanswer", "sendDigitsMode"], &[]),
    ("User", &["sendDigits", "sendOnPreanswer", "sipHeaders"], &[]),
    ("Record", &["action", "method", "fileFormat", "redirect", "timeout", "maxLength", "playBeep", "finishOnKey",
        "recordSession", "startOnDialAnswer", "recordChannelType", "transcriptionType", "transcriptionUrl",
        "transcriptionMethod", "callbackUrl", "callbackMethod"], &[]),
    ("Hangup", &["reason", "schedule"], &[]),
    ("Wait", &["length", "silence", "minSilence", "beep"], &[]),
    ("Redirect", &["method"], &[]),
    ("DTMF", &["async"], &[]),
    ("Response", &[], &["Stream", "Speak", "Play", "GetDigits", "GetInput", "Dial", "Record", "Hangup", "Wait",
        "Redirect", "DTMF"]),
];

/// An element that is being read.
struct Open {
    name: String,
    attributes: Vec<(String, String)>,
    text: String,
    has_children: bool,
}

impl Open {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.attribute(name) == Some(value)
    }
}

/// The instructions of a document, or why Plivo would answer "Invalid XML" to it.
pub(super) fn read(content_type: Option<&str>, body: &[u8]) -> Result<Vec<Step>, &'static str> {
    let media_type = content_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    if !media_type.eq_ignore_ascii_case("application/xml")
        && !media_type.eq_ignore_ascii_case("text/xml")
    {
        return Err("content type is not XML");
    }
    if body.len() > LARGEST_DOCUMENT {
        return Err("document is too large");
    }
    let text = std::str::from_utf8(body).map_err(|_| "document is not UTF-8")?;
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Open> = Vec::new();
    let mut steps = Vec::new();
    let mut finished = false;
    loop {
        match reader
            .read_event()
            .map_err(|_| "document is not well-formed")?
        {
            Event::Start(tag) => {
                let element = begin(&tag, open.last_mut(), finished)?;
                open.push(element);
            }
            Event::Empty(tag) => {
                let element = begin(&tag, open.last_mut(), finished)?;
                end(&element, &open, &mut steps)?;
                finished |= open.is_empty();
            }
            Event::End(_) => {
                let element = open.pop().ok_or("document is not well-formed")?;
                end(&element, &open, &mut steps)?;
                finished |= open.is_empty();
            }
            Event::Text(content) => add_text(&mut open, &content.xml10_content())?,
            Event::CData(content) => add_text(&mut open, &content.xml10_content())?,
            Event::GeneralRef(reference) => {
                let resolved = match reference
                    .resolve_char_ref()
                    .map_err(|_| "bad character reference")?
                {
                    Some(character) => character.to_string(),
                    None => {
                        quick_xml::escape::resolve_predefined_entity(&reference.xml10_content())
                            .ok_or("unknown entity")?
                            .to_owned()
                    }
                };
                add_text(&mut open, &resolved)?;
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::DocType(_) => return Err("document type declarations are not allowed"),
            Event::Eof => break,
        }
    }
    if finished {
        Ok(steps)
    } else {
        Err("document is empty or not closed")
    }
}

fn add_text(open: &mut [Open], text: &str) -> Result<(), &'static str> {
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err("text outside of the Response"),
    }
    Ok(())
}

fn begin(
    tag: &BytesStart<'_>,
    parent: Option<&mut Open>,
    finished: bool,
) -> Result<Open, &'static str> {
    let name = tag.name().into_inner().to_owned();
    let allowed_here = match parent {
        Some(parent) => {
            parent.has_children = true;
            let speech = SSML.contains(&parent.name.as_str());
            let children = element(&parent.name)
                .map_or(if speech { SSML } else { &[] }, |(_, _, children)| children);
            children.contains(&name.as_str())
        }
        None => name == "Response" && !finished,
    };
    if !allowed_here {
        return Err("unknown or misplaced element");
    }
    let mut attributes = Vec::new();
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|_| "malformed attribute")?;
        let key = attribute.key.into_inner().to_owned();
        if element(&name).is_some_and(|(_, known, _)| !known.contains(&key.as_str())) {
            return Err("unknown attribute");
        }
        let value = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|_| "malformed attribute")?;
        attributes.push((key, value.into_owned()));
    }
    Ok(Open {
        name,
        attributes,
        text: String::new(),
        has_children: false,
    })
}

fn element(name: &str) -> Option<&'static Element> {
    ELEMENTS.iter().find(|element| element.0 == name)
}

/// Checks a whole element and, where it is an instruction of the Response, adds its step.
fn end(element: &Open, open: &[Open], steps: &mut Vec<Step>) -> Result<(), &'static str> {
    let text = element.text.trim();
    let step = match element.name.as_str() {
        "Response" | "GetDigits" | "GetInput" | "Dial" if !text.is_empty() => {
            return Err("unexpected text");
        }
        "Response" => None,
        "Speak" if text.is_empty() && !element.has_children => return Err("Speak without text"),
        "Play" if !is_web_url(text) => return Err("Play without a web address"),
        "Speak" | "Play" => {
            number(element, "loop")?;
            Some(Step::Message)
        }
        "Stream" => {
            check_stream(element)?;
            Some(Step::Conversation)
        }
        "Dial" if !element.has_children => return Err("Dial without a destination"),
        "GetInput" if element.attribute("action").is_none() => {
            return Err("GetInput without an action");
        }
        "GetDigits" | "GetInput" | "Dial" | "Record" => Some(Step::Conversation),
        "Number" | "User" if text.is_empty() => return Err("empty destination"),
        "Hangup" => Some(Step::Hangup {
            code: match element.attribute("reason") {
                None => 4000,
                Some("rejected") => 3020,
                Some("busy") => 3010,
                Some(_) => return Err("unknown reason of a Hangup"),
            },
            after: seconds(element, "schedule")?.unwrap_or_default(),
        }),
        "Wait" => Some(Step::Wait(
            seconds(element, "length")?.unwrap_or(Duration::from_secs(1)),
        )),
        "Redirect" if !is_web_url(text) => return Err("Redirect without a web address"),
        "Redirect" => Some(Step::Redirect {
            url: text.to_owned(),
            method: parse_method(element.attribute("method"))
                .ok_or("unknown method of a Redirect")?,
        }),
        "DTMF" if text.is_empty() => return Err("DTMF without digits"),
        "DTMF" => Some(Step::Instant),
        // A destination of a Dial or a tag of speech markup.
        _ => None,
    };
    // Prompts inside GetDigits belong to it and are no steps of their own.
    if open.len() == 1 {
        steps.extend(step);
    }
    Ok(())
}

fn check_stream(stream: &Open) -> Result<(), &'static str> {
    let url = stream.text.trim();
    if !(url.starts_with("wss://") || url.starts_with("ws://"))
        || url.len() > 2048
        || !is_socket_url(url)
    {
        return Err("Stream without a WebSocket address");
    }
    for flag in ["bidirectional", "keepCallAlive", "noiseCancellation"] {
        if !matches!(stream.attribute(flag), None | Some("true" | "false")) {
            return Err("flag of a Stream is neither true nor false");
        }
    }
    let track = stream.attribute("audioTrack").unwrap_or("inbound");
    if !matches!(track, "inbound" | "outbound" | "both")
        || (stream.is("bidirectional", "true") && track != "inbound")
    {
        return Err("audioTrack of a Stream is not possible");
    }
    let content_types = [
        "audio/x-l16;rate=8000",
        "audio/x-l16;rate=16000",
        "audio/x-l16;rate=24000",
        "audio/x-mulaw;rate=8000",
    ];
    if stream
        .attribute("contentType")
        .is_some_and(|value| !content_types.contains(&value))
    {
        return Err("unknown contentType of a Stream");
    }
    if stream
        .attribute("extraHeaders")
        .is_some_and(|value| value.len() > 512)
    {
        return Err("extraHeaders of a Stream are too long");
    }
    number(stream, "streamTimeout")?;
    match number(stream, "noiseCancellationLevel")? {
        Some(level) if !(60..=100).contains(&level) => {
            Err("noiseCancellationLevel of a Stream is not possible")
        }
        _ => Ok(()),
    }
}

fn is_socket_url(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|parsed| parsed.has_host())
}

fn number(element: &Open, name: &str) -> Result<Option<u64>, &'static str> {
    element
        .attribute(name)
        .map(|value| value.parse().map_err(|_| "attribute is not a number"))
        .transpose()
}

fn seconds(element: &Open, name: &str) -> Result<Option<Duration>, &'static str> {
    let seconds = number(element, name)?;
    Ok(seconds.map(|seconds| Duration::from_secs(seconds.min(LONGEST_CALL_SECONDS))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(xml: &str) -> Result<Vec<Step>, &'static str> {
        read(Some("application/xml; charset=utf-8"), xml.as_bytes())
    }

    fn response(content: &str) -> Result<Vec<Step>, &'static str> {
        steps(&format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response>{content}</Response>\n"
        ))
    }

    #[test]
    fn good_documents_become_steps() {
        assert_eq!(steps("<Response/>"), Ok(vec![]));
        assert_eq!(response("  <!-- nothing -->  "), Ok(vec![]));
        assert_eq!(
            response(
                "<Speak voice=\"Polly.Joanna\">Hi &amp; <break time=\"1s\"/> &#233;</Speak><Hangup/>"
            ),
            Ok(vec![
                Step::Message,
                Step::Hangup {
                    code: 4000,
                    after: Duration::ZERO
                }
            ])
        );
        assert_eq!(
            response(
                "<Stream bidirectional=\"true\" keepCallAlive=\"true\" contentType=\"audio/x-mulaw;rate=8000\" \
                 extraHeaders=\"a=1,b=2\">wss://bot.example.com/ws?a=1&amp;b=2</Stream>"
            ),
            Ok(vec![Step::Conversation])
        );
        assert_eq!(
            response("<Play>https://example.com/a.mp3</Play><Wait length=\"2\"/>")
                .unwrap()
                .len(),
            2
        );
        assert_eq!(
            response(
                "<GetDigits action=\"https://example.com/d\"><Speak>Press 1</Speak></GetDigits>"
            ),
            Ok(vec![Step::Conversation])
        );
        assert_eq!(
            response("<Dial><Number>15550100001</Number></Dial>"),
            Ok(vec![Step::Conversation])
        );
        assert_eq!(
            response(
                "<Hangup reason=\"busy\" schedule=\"60\"/><Redirect method=\"GET\">http://example.com/x</Redirect>"
            ),
            Ok(vec![
                Step::Hangup {
                    code: 3010,
                    after: Duration::from_secs(60)
                },
                Step::Redirect {
                    url: "http://example.com/x".to_owned(),
                    method: Method::Get
                },
            ])
        );
    }

    #[test]
    fn bad_documents_are_refused() {
        for content in [
            "<Stream>wss://bot.example.com/ws?a=1&b=2</Stream>",
            "<Stream>https://bot.example.com/ws</Stream>",
            "<Stream bidirectional=\"true\" audioTrack=\"both\">wss://bot.example.com/</Stream>",
            "<Stream contentType=\"audio/mpeg\">wss://bot.example.com/</Stream>",
            "<Stream noiseCancellationLevel=\"10\">wss://bot.example.com/</Stream>",
            "<Speak volume=\"11\">Hi</Speak>",
            "<Speak></Speak>",
            "<Speak loop=\"often\">Hi</Speak>",
            "<Speak>Hi</speak>",
            "<speak>Hi</speak>",
            "<Speak>&nbsp;</Speak>",
            "<Play>not a url</Play>",
            "<Hangup reason=\"bored\"/>",
            "<Dial></Dial>",
            "<Dial><Number></Number></Dial>",
            "<GetInput><Speak>Hi</Speak></GetInput>",
            "<Number>15550100001</Number>",
            "<Speak voice=\"MAN\" voice=\"WOMAN\">Hi</Speak>",
            "<Wait length=\"-1\"/>",
            "stray text",
            "<Redirect>/relative</Redirect>",
        ] {
            assert!(response(content).is_err(), "{content}");
        }
        for xml in [
            "",
            "   ",
            "{\"a\":1}",
            "<html/>",
            "<Response>",
            "<Response/><Response/>",
            "<Response/>text",
            "</Response>",
        ] {
            assert!(steps(xml).is_err(), "{xml}");
        }
    }

    #[test]
    fn type_size_and_encoding_are_checked() {
        assert!(read(Some("text/xml"), b"<Response/>").is_ok());
        assert!(read(Some("application/json"), b"<Response/>").is_err());
        assert!(read(None, b"<Response/>").is_err());
        assert!(read(Some("text/xml"), b"<Response>\xff</Response>").is_err());
        let large = format!(
            "<Response><Speak>{}</Speak></Response>",
            "x".repeat(LARGEST_DOCUMENT)
        );
        assert!(read(Some("text/xml"), large.as_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn junk_never_panics(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), text in "[<>/&;A-Za-z=\" ]{0,80}") {
            let _checked = read(Some("text/xml"), &body);
            let _checked = steps(&text);
            let _checked = response(&text);
        }
    }
}
