//! What the callee hears, and what is done about machines, as people write it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::answer::Answer;
use crate::domain::campaign::MachineDetection;

/// An answer as it is sent. One flat object: serde reads the variants of a tagged enum from a buffer, where it loses the
/// path of a field at fault.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnswerIn {
    r#type: AnswerType,
    url: Option<String>,
    content_type: Option<String>,
    extra_headers: Option<BTreeMap<String, String>>,
    text: Option<String>,
    voice: Option<String>,
    language: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AnswerType {
    Stream,
    Speak,
    Play,
    Xml,
}

impl AnswerIn {
    /// The answer.
    ///
    /// # Errors
    /// Every field that is missing, or has no place in an answer of this type: path relative to the answer, and reason.
    pub fn read(self) -> Result<Answer, Vec<(String, String)>> {
        let given = [
            ("url", self.url.is_some()),
            ("contentType", self.content_type.is_some()),
            ("extraHeaders", self.extra_headers.is_some()),
            ("text", self.text.is_some()),
            ("voice", self.voice.is_some()),
            ("language", self.language.is_some()),
        ];
        let (needed, possible): (&str, &[&str]) = match self.r#type {
            AnswerType::Stream => ("url", &["contentType", "extraHeaders"]),
            AnswerType::Speak => ("text", &["voice", "language"]),
            AnswerType::Play | AnswerType::Xml => ("url", &[]),
        };
        let mut faults = Vec::new();
        for (field, is_given) in given {
            if is_given && field != needed && !possible.contains(&field) {
                let reason = "is not known in an answer of this type";
                faults.push((field.to_owned(), reason.to_owned()));
            }
        }
        let answer = match (self.r#type, self.url, self.text) {
            (AnswerType::Stream, Some(url), _) => Some(Answer::Stream {
                url,
                content_type: self.content_type,
                extra_headers: self.extra_headers,
            }),
            (AnswerType::Speak, _, Some(text)) => Some(Answer::Speak {
                text,
                voice: self.voice,
                language: self.language,
            }),
            (AnswerType::Play, Some(url), _) => Some(Answer::Play { url }),
            (AnswerType::Xml, Some(url), _) => Some(Answer::Xml { url }),
            _ => None,
        };
        match answer {
            Some(answer) if faults.is_empty() => Ok(answer),
            Some(_) => Err(faults),
            None => {
                faults.push((needed.to_owned(), "is missing".to_owned()));
                Err(faults)
            }
        }
    }
}

/// The variants of the answer that we give, with nothing beside their fields.
impl PartialSchema for AnswerIn {
    fn schema() -> RefOr<Schema> {
        let mut schema = Answer::schema();
        if let RefOr::T(Schema::OneOf(variants)) = &mut schema {
            for variant in &mut variants.items {
                if let RefOr::T(Schema::Object(object)) = variant {
                    object.additional_properties =
                        Some(Box::new(AdditionalProperties::FreeForm(false)));
                }
            }
        }
        schema
    }
}

impl ToSchema for AnswerIn {}

/// Answering-machine detection as people write it.
#[derive(Debug, Clone, Copy)]
pub struct MachineDetectionIn(Option<MachineDetection>);

impl MachineDetectionIn {
    /// What is asked of the carrier; `None` = no detection.
    #[must_use]
    pub fn wanted(self) -> Option<MachineDetection> {
        self.0
    }
}

impl<'de> Deserialize<'de> for MachineDetectionIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = MachineDetectionIn;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, \"continue\" or \"hangup\"")
            }

            fn visit_bool<E: Error>(self, is_wanted: bool) -> Result<Self::Value, E> {
                let wanted = is_wanted.then_some(MachineDetection::Continue);
                Ok(MachineDetectionIn(wanted))
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Self::Value, E> {
                match word {
                    "true" | "continue" => self.visit_bool(true),
                    "false" => self.visit_bool(false),
                    "hangup" => Ok(MachineDetectionIn(Some(MachineDetection::Hangup))),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(Words)
    }
}

impl PartialSchema for MachineDetectionIn {
    fn schema() -> RefOr<Schema> {
        let flag = ObjectBuilder::new().schema_type(Type::Boolean);
        let word = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["true", "false", "continue", "hangup"]));
        OneOfBuilder::new()
            .description(Some(
                "`true` or `continue` report an answering machine, `hangup` hangs up on it.",
            ))
            .item(flag)
            .item(word)
            .into()
    }
}

impl ToSchema for MachineDetectionIn {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_belong_to_a_type() {
        for (json, faults) in [
            (r#"{"type":"stream","url":"wss://h"}"#, &[][..]),
            (r#"{"type":"stream"}"#, &["url"]),
            (r#"{"type":"stream","url":"wss://h","text":"x"}"#, &["text"]),
            (
                r#"{"type":"play","url":"https://h","voice":"MAN","contentType":"x"}"#,
                &["contentType", "voice"],
            ),
            (r#"{"type":"speak","url":"https://h"}"#, &["url", "text"]),
            (r#"{"type":"xml","url":"https://h","text":null}"#, &[]),
        ] {
            let answer: AnswerIn = serde_json::from_str(json).unwrap();
            let found = answer.read().err().unwrap_or_default();
            let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
            assert_eq!(paths, faults, "{json}");
        }
    }

    #[test]
    fn what_we_show_is_what_we_take() {
        let answer = Answer::Speak {
            text: "Hi".to_owned(),
            voice: None,
            language: Some("en-US".to_owned()),
        };
        let shown = serde_json::to_string(&answer).unwrap();
        let taken: AnswerIn = serde_json::from_str(&shown).unwrap();
        assert!(taken.read().is_ok_and(|taken| taken == answer));
    }

    #[test]
    fn machine_detection_is_a_flag_or_a_word() {
        let read = |json: &str| serde_json::from_str::<MachineDetectionIn>(json);
        for (json, wanted) in [
            ("true", Some(MachineDetection::Continue)),
            ("\"true\"", Some(MachineDetection::Continue)),
            ("\"continue\"", Some(MachineDetection::Continue)),
            ("\"hangup\"", Some(MachineDetection::Hangup)),
            ("false", None),
        ] {
            assert_eq!(read(json).unwrap().wanted(), wanted, "{json}");
        }
        for json in ["1", "\"yes\"", "{}", "[]"] {
            let reason = read(json).unwrap_err().to_string();
            assert!(reason.contains("expected true, false,"), "{reason}");
        }
    }
}
