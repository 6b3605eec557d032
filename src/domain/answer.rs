//! What the callee hears: a bot over a WebSocket, spoken text, a recording, or somebody else's call XML.
//!
//! An [`Answer`] is checked when the campaign is created ([`Answer::validate`]): a template that names a missing column is
//! refused there, because at call time the callee has already picked up and every fault costs a billed, silent call. For
//! the same reason rendering ([`Answer::render`]) cannot fail and keeps within the carrier's limits whatever the contact's
//! values are. Limits are those of the carrier's XML reference for `<Stream>`, `<Speak>` and `<Play>`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use super::contact::Contact;
use super::template::Template;
use super::web_address::{self, MAX_BYTES};

/// Longest spoken text, in characters.
const MAX_TEXT_CHARS: usize = 3_000;
/// Longest `extraHeaders` attribute (`k=v,k2=v2`), in bytes.
const MAX_HEADER_BYTES: usize = 512;
/// Longest value of `voice` and `language`, in characters.
const MAX_VOICE_CHARS: usize = 50;
/// The audio formats of a stream that the carrier documents throughout. The first is its default.
const CONTENT_TYPES: [&str; 3] = [
    "audio/x-l16;rate=8000",
    "audio/x-l16;rate=16000",
    "audio/x-mulaw;rate=8000",
];

/// A list of faults: field path relative to the checked value, and reason.
type Faults = Vec<(String, String)>;

/// What to do when the callee picks up. Text, URLs and header values may use `{{firstName}}` and list columns.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Answer {
    /// Connects the call's audio to a bot, both ways, over a WebSocket.
    Stream {
        /// `wss://` (or `ws://`) address of the bot; names may stand in its path and query.
        #[schema(example = "wss://bot.example.com/call?tag={{tag}}")]
        url: String,
        /// Audio format: `audio/x-l16;rate=8000`, `audio/x-l16;rate=16000` or `audio/x-mulaw;rate=8000`.
        #[serde(rename = "contentType")]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content_type: Option<String>,
        /// Handed to the bot when the stream starts. Names are letters and digits; at most 512 bytes in all.
        #[serde(rename = "extraHeaders")]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extra_headers: Option<BTreeMap<String, String>>,
    },
    /// Reads a text aloud and hangs up.
    Speak {
        /// At most 3,000 characters.
        #[schema(example = "Hello {{firstName}}, your parcel arrives today.")]
        text: String,
        /// `WOMAN`, `MAN` or `Polly.` and a voice's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        voice: Option<String>,
        /// Language tag, for example `en-US`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language: Option<String>,
    },
    /// Plays an MP3 or WAV file and hangs up.
    Play {
        /// `https://` (or `http://`) address of the file.
        url: String,
    },
    /// Lets another server answer with call XML of its own.
    Xml {
        /// `https://` (or `http://`) address that the carrier is sent to.
        url: String,
    },
}

/// Shows the kind only: a rendered answer holds the contact's name and fields (promise P8).
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Stream { .. } => "Stream",
            Self::Speak { .. } => "Speak",
            Self::Play { .. } => "Play",
            Self::Xml { .. } => "Xml",
        };
        f.debug_struct(kind).finish_non_exhaustive()
    }
}

impl Answer {
    /// Checks every rule against a list's column names ([`super::contact::Columns::names`]).
    ///
    /// # Errors
    /// All faults at once, each as field path (relative to the answer) and reason.
    pub fn validate(&self, columns: &[String]) -> Result<(), Vec<(String, String)>> {
        let mut faults = Faults::new();
        match self {
            Self::Stream {
                url,
                content_type,
                extra_headers,
            } => {
                check_url(url, &["wss", "ws"], columns, &mut faults);
                if let Some(content_type) = content_type
                    && !CONTENT_TYPES.contains(&content_type.as_str())
                {
                    faults.push(fault(
                        "contentType",
                        format!("must be one of {}", CONTENT_TYPES.join(", ")),
                    ));
                }
                check_headers(extra_headers.as_ref(), columns, &mut faults);
            }
            Self::Speak {
                text,
                voice,
                language,
            } => {
                check_text(text, columns, &mut faults);
                if voice.as_deref().is_some_and(|voice| !is_voice(voice)) {
                    faults.push(fault(
                        "voice",
                        "must be WOMAN, MAN or Polly. and the name of a voice",
                    ));
                }
                if language
                    .as_deref()
                    .is_some_and(|language| !is_language(language))
                {
                    faults.push(fault("language", "must be a language tag such as en-US"));
                }
            }
            Self::Play { url } | Self::Xml { url } => {
                check_url(url, &web_address::HTTP, columns, &mut faults)
            }
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(faults)
        }
    }

    /// Whether the callee would hear nothing: a rendered text of which nothing is left, because all of it was to come from
    /// values that the contact does not have. Such a call is not made; it would be billed all the same.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        match self {
            Self::Speak { text, .. } => text.chars().all(|c| c.is_whitespace() || c.is_control()),
            Self::Stream { .. } | Self::Play { .. } | Self::Xml { .. } => false,
        }
    }

    /// The address that the carrier is sent to, if there is one, with a harmless value in place of every column: its host is
    /// the same for all contacts. `None` also for an older document's text that is no address.
    #[must_use]
    pub fn address(&self) -> Option<Url> {
        match self {
            Self::Speak { .. } => None,
            Self::Stream { url, .. } | Self::Play { url } | Self::Xml { url } => {
                Url::parse(&rendered(url, |template| template.render(|_| Some("x")))).ok()
            }
        }
    }

    /// Fills the contact's values in. Values in URLs and headers are percent-encoded. What the carrier would refuse as too
    /// long is cut: the end of a spoken text, whole values in a URL, whole headers in the order of their names.
    pub fn render(&self, contact: &Contact) -> Self {
        let url_of = |url: &str| {
            rendered(url, |template| {
                template.render_url(MAX_BYTES, |name| contact.value(name))
            })
        };
        match self {
            Self::Stream {
                url,
                content_type,
                extra_headers,
            } => Self::Stream {
                url: url_of(url),
                content_type: content_type.clone(),
                extra_headers: extra_headers.as_ref().map(|headers| {
                    let value_of = |value: &String| {
                        rendered(value, |template| {
                            template.render_url(MAX_HEADER_BYTES, |name| contact.value(name))
                        })
                    };
                    within_limit(
                        headers
                            .iter()
                            .map(|(key, value)| (key.clone(), value_of(value))),
                    )
                }),
            },
            Self::Speak {
                text,
                voice,
                language,
            } => {
                let text = rendered(text, |template| template.render(|name| contact.value(name)));
                Self::Speak {
                    text: text.chars().take(MAX_TEXT_CHARS).collect(),
                    voice: voice.clone(),
                    language: language.clone(),
                }
            }
            Self::Play { url } => Self::Play { url: url_of(url) },
            Self::Xml { url } => Self::Xml { url: url_of(url) },
        }
    }
}

/// Headers as the carrier's attribute wants them: `k=v,k2=v2`.
pub fn header_line(headers: &BTreeMap<String, String>) -> String {
    headers
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// Renders a text as a template. A text that is none was refused at creation; of an older document it is used as it is.
fn rendered(text: &str, render: impl Fn(&Template) -> String) -> String {
    Template::parse(text).map_or_else(|_| text.to_owned(), |template| render(&template))
}

/// The headers that fit into the carrier's limit, first come first served.
fn within_limit(headers: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let mut length = 0;
    headers
        .filter(|(key, value)| {
            // Two more bytes for "=" and ",".
            let longer = length + key.len() + value.len() + 2;
            let fits = longer <= MAX_HEADER_BYTES + 1;
            if fits {
                length = longer;
            }
            fits
        })
        .collect()
}

fn fault(path: impl Into<String>, reason: impl Into<String>) -> (String, String) {
    (path.into(), reason.into())
}

/// Parses a template and checks that the list has every column it names.
fn check_template(
    path: &str,
    text: &str,
    columns: &[String],
    faults: &mut Faults,
) -> Option<Template> {
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(error) => {
            faults.push(fault(path, error.to_string()));
            return None;
        }
    };
    let mut missing: Vec<&str> = template
        .names()
        .filter(|name| !columns.iter().any(|column| column == name))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    for name in missing {
        let known = if columns.is_empty() {
            "none".to_owned()
        } else {
            columns.join(", ")
        };
        faults.push(fault(
            path,
            format!("names the column \"{name}\", which the list does not have (it has: {known})"),
        ));
    }
    Some(template)
}

fn check_text(text: &str, columns: &[String], faults: &mut Faults) {
    if text.trim().is_empty() {
        faults.push(fault("text", "must not be empty"));
    } else if text.chars().count() > MAX_TEXT_CHARS {
        faults.push(fault(
            "text",
            format!("must have at most {MAX_TEXT_CHARS} characters"),
        ));
    }
    check_template("text", text, columns, faults);
}

fn check_url(url: &str, schemes: &[&str], columns: &[String], faults: &mut Faults) {
    if url.len() > MAX_BYTES {
        faults.push(fault("url", format!("must have at most {MAX_BYTES} bytes")));
        return;
    }
    let Some(template) = check_template("url", url, columns, faults) else {
        return;
    };
    if let Err(reason) = check_rendered_url(&template, schemes) {
        faults.push(fault("url", reason));
    }
}

/// Checks the URL with a harmless value in every place, and that no value can reach the scheme or the host: a contact list
/// must not choose the server that hears the call.
fn check_rendered_url(template: &Template, schemes: &[&str]) -> Result<(), String> {
    web_address::parse(&template.render(|_| Some("x")), schemes)?;
    let behind_scheme = template
        .literal_prefix()
        .split_once("://")
        .map_or("", |(_, rest)| rest);
    if template.names().next().is_some() && !behind_scheme.contains(['/', '?']) {
        return Err("may use columns only behind the host name".to_owned());
    }
    Ok(())
}

fn check_headers(
    headers: Option<&BTreeMap<String, String>>,
    columns: &[String],
    faults: &mut Faults,
) {
    let Some(headers) = headers else {
        return;
    };
    for (key, value) in headers {
        let path = format!("extraHeaders.{key}");
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            faults.push(fault(&path, "must have a name of letters and digits only"));
        }
        if let Some(template) = check_template(&path, value, columns, faults) {
            // The carrier joins headers with commas, and readers split at semicolons, too.
            let is_allowed = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | ';' | '=' | '"');
            if !template.render(|_| None).chars().all(is_allowed) {
                faults.push(fault(
                    &path,
                    "may contain only letters, digits and signs other than , ; = and quotes",
                ));
            }
        }
    }
    if header_line(headers).len() > MAX_HEADER_BYTES {
        faults.push(fault(
            "extraHeaders",
            format!("must have at most {MAX_HEADER_BYTES} bytes in all"),
        ));
    }
}

fn is_voice(voice: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphabetic() || byte == b'-')
    };
    matches!(voice, "WOMAN" | "MAN")
        || (voice.len() <= MAX_VOICE_CHARS && voice.strip_prefix("Polly.").is_some_and(is_name))
}

/// `xx` or `xxx`, then at most one region or script of 2 to 4 letters or digits.
fn is_language(language: &str) -> bool {
    let (tongue, region) = language
        .split_once('-')
        .map_or((language, None), |(tongue, region)| (tongue, Some(region)));
    (2..=3).contains(&tongue.len())
        && tongue.bytes().all(|byte| byte.is_ascii_alphabetic())
        && region.is_none_or(|region| {
            (2..=4).contains(&region.len())
                && region.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(json: &str) -> Answer {
        serde_json::from_str(json).unwrap()
    }

    /// Contact with a name and the field `city`.
    fn contact(name: &str, city: &str) -> Contact {
        Contact {
            seq: 0,
            number: String::from("+14155550123").try_into().unwrap(),
            first_name: Some(name.to_owned()),
            time_zone: None,
            fields: BTreeMap::from([("city".to_owned(), city.to_owned())]),
        }
    }

    /// The paths at fault for a list with the columns `firstName` and `city`.
    fn paths(answer: &Answer) -> Vec<String> {
        let columns = ["firstName".to_owned(), "city".to_owned()];
        answer
            .validate(&columns)
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|(path, _)| path)
            .collect()
    }

    #[track_caller]
    fn check(json: &str, expected: &[&str]) {
        assert_eq!(paths(&answer(json)), expected, "{json}");
    }

    #[test]
    fn good_answers_round_trip() {
        for json in [
            r#"{"type":"stream","url":"wss://bot.example.com/ws?c={{city}}"}"#,
            r#"{"type":"stream","url":"ws://bot:8080/{{city}}","contentType":"audio/x-mulaw;rate=8000","extraHeaders":{"c":"{{city}}","k":"a.b%20-_"}}"#,
            r#"{"type":"speak","text":"Hello {{firstName}} & <you>","voice":"Polly.Joanna-Neural","language":"en-US"}"#,
            r#"{"type":"speak","text":"Hola","voice":"WOMAN","language":"es-419"}"#,
            r#"{"type":"play","url":"https://cdn.example.com/{{ city }}.mp3"}"#,
            r#"{"type":"xml","url":"http://x.example.com/answer"}"#,
        ] {
            let answer = answer(json);
            assert_eq!(paths(&answer), Vec::<String>::new(), "{json}");
            assert_eq!(serde_json::to_string(&answer).unwrap(), json);
        }
    }

    #[test]
    fn unknown_types_are_refused_and_what_a_newer_program_stored_is_not() {
        for json in [
            r#"{"url":"wss://h"}"#,
            r#"{"type":"dance","url":"wss://h"}"#,
            r#"{"type":"stream"}"#,
            r#"{"type":"speak","text":1}"#,
        ] {
            assert!(serde_json::from_str::<Answer>(json).is_err(), "{json}");
        }
        let newer = r#"{"type":"speak","text":"x","loop":2}"#;
        assert!(serde_json::from_str::<Answer>(newer).is_ok());
    }

    #[test]
    fn faults_are_named() {
        for url in [
            "https://h/x",
            "h",
            "",
            "wss://",
            "wss:///path",
            "wss://user:pass@h/x",
            "wss://h/a b",
            "wss://{{city}}/x",
            "{{city}}",
            "wss://h{{city}}",
            "wss://h:{{city}}/",
            "wss://h/{{",
            "wss://h/{{town}}",
        ] {
            check(&format!(r#"{{"type":"stream","url":"{url}"}}"#), &["url"]);
        }
        check(r#"{"type":"play","url":"wss://h/x"}"#, &["url"]);
        check(r#"{"type":"xml","url":"file:///etc/passwd"}"#, &["url"]);
        check(
            &format!(
                r#"{{"type":"xml","url":"https://h/{}"}}"#,
                "x".repeat(MAX_BYTES)
            ),
            &["url"],
        );
        check(r#"{"type":"speak","text":" "}"#, &["text"]);
        check(
            r#"{"type":"speak","text":"{{town}} {{number}} {{town}}"}"#,
            &["text", "text"],
        );
        check(
            &format!(
                r#"{{"type":"speak","text":"{}"}}"#,
                "x".repeat(MAX_TEXT_CHARS + 1)
            ),
            &["text"],
        );
        check(
            r#"{"type":"speak","text":"x","voice":"woman","language":"english"}"#,
            &["voice", "language"],
        );
        check(
            r#"{"type":"speak","text":"x","voice":"Polly.\"/>","language":"e-US"}"#,
            &["voice", "language"],
        );
        check(
            r#"{"type":"stream","url":"wss://h","contentType":"audio/mp3"}"#,
            &["contentType"],
        );
        check(
            r#"{"type":"stream","url":"wss://h","extraHeaders":{"a-b":"x","c":"x,y","d":"{{town}}","e":"a b"}}"#,
            &[
                "extraHeaders.a-b",
                "extraHeaders.c",
                "extraHeaders.d",
                "extraHeaders.e",
            ],
        );
        let long = "x".repeat(MAX_HEADER_BYTES);
        check(
            &format!(r#"{{"type":"stream","url":"wss://h","extraHeaders":{{"a":"{long}"}}}}"#),
            &["extraHeaders"],
        );
    }

    #[test]
    fn a_missing_column_is_named_beside_those_that_exist() {
        let faults = answer(r#"{"type":"speak","text":"{{town}}"}"#)
            .validate(&["city".to_owned()])
            .unwrap_err();
        assert_eq!(
            faults[0].1,
            "names the column \"town\", which the list does not have (it has: city)"
        );
    }

    #[test]
    fn contacts_values_are_filled_in() {
        let contact = contact("Ada & Bob", "São Paulo/?");
        let speak = answer(r#"{"type":"speak","text":"Hi {{firstName}} in {{ city }}{{town}}!"}"#);
        let expected = answer(r#"{"type":"speak","text":"Hi Ada & Bob in São Paulo/?!"}"#);
        assert!(speak.render(&contact) == expected);
        let stream = answer(
            r#"{"type":"stream","url":"wss://h/{{city}}?n={{firstName}}","extraHeaders":{"c":"x{{city}}"}}"#,
        );
        let expected = answer(
            r#"{"type":"stream","url":"wss://h/S%C3%A3o%20Paulo%2F%3F?n=Ada%20%26%20Bob","extraHeaders":{"c":"xS%C3%A3o%20Paulo%2F%3F"}}"#,
        );
        assert!(stream.render(&contact) == expected);
    }

    #[test]
    fn a_text_of_which_nothing_is_left_is_silent() {
        for (text, name, is_silent) in [
            ("{{firstName}}", "", true),
            ("{{firstName}} {{town}}", " \u{1}", true),
            ("{{firstName}}", "Ada", false),
            ("Hi {{firstName}}", "", false),
        ] {
            let answer = answer(&format!(r#"{{"type":"speak","text":"{text}"}}"#));
            let rendered = answer.render(&contact(name, ""));
            assert_eq!(rendered.is_silent(), is_silent, "{text}");
        }
        assert!(!answer(r#"{"type":"play","url":"https://h/{{city}}"}"#).is_silent());
    }

    #[test]
    fn a_rendered_answer_prints_no_persons_data() {
        let answer =
            answer(r#"{"type":"speak","text":"{{firstName}}"}"#).render(&contact("Ada", ""));
        assert_eq!(format!("{answer:?}"), "Speak { .. }");
    }

    proptest! {
        #[test]
        fn rendered_answers_keep_the_carriers_limits(name in "\\PC{0,200}", city in "\\PC{0,20}", repeats in 0..60_usize) {
            let contact = contact(&name, &city);
            let names = "{{firstName}}{{city}}".repeat(repeats);
            let header = |key: &str| (key.to_owned(), names.clone());
            let stream = Answer::Stream {
                url: format!("wss://h/{names}"),
                content_type: None,
                extra_headers: Some(BTreeMap::from([header("a"), header("b"), header("c")])),
            };
            let Answer::Stream { url, extra_headers: Some(headers), .. } = stream.render(&contact) else { unreachable!() };
            prop_assert!(url.len() <= MAX_BYTES);
            let parsed = Url::parse(&url).unwrap();
            prop_assert_eq!(parsed.host_str(), Some("h"));
            let line = header_line(&headers);
            prop_assert!(line.len() <= MAX_HEADER_BYTES);
            prop_assert!(line.split(',').all(|pair| pair.is_empty() || pair.matches('=').count() == 1));

            let speak = Answer::Speak { text: format!("x{names}"), voice: None, language: None };
            let Answer::Speak { text, .. } = speak.render(&contact) else { unreachable!() };
            prop_assert!(text.chars().count() <= MAX_TEXT_CHARS);
        }

        #[test]
        fn any_text_is_valid_or_has_reasons(text in any::<String>()) {
            for answer in [
                Answer::Speak { text: text.clone(), voice: Some(text.clone()), language: Some(text.clone()) },
                Answer::Play { url: text.clone() },
                Answer::Stream {
                    url: format!("wss://h/{text}"),
                    content_type: Some(text.clone()),
                    extra_headers: Some(BTreeMap::from([(text.clone(), text)])),
                },
            ] {
                let faults = answer.validate(&[]).err().unwrap_or_default();
                prop_assert!(faults.iter().all(|(path, reason)| !path.is_empty() && !reason.is_empty()));
            }
        }
    }
}
