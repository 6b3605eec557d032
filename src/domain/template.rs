//! Templates: text with `{{firstName}}` or `{{ column name }}` in it, filled in from a contact when the call is answered.
//!
//! Values are data. They are never parsed again, so a contact whose name is `{{number}}` is greeted by just that, and in a
//! URL they are percent-encoded, so no value can add a parameter, a path or another host.

use thiserror::Error;

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// Copied as it is.
    Text(String),
    /// Replaced by the contact's value of this name.
    Name(String),
}

/// Why a text is not a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// `{{` without its `}}`, or with another `{{` before it.
    #[error("has an opening {{{{ without a closing }}}}")]
    Unclosed,
    /// `}}` without its `{{`.
    #[error("has a closing }}}} without an opening {{{{")]
    Unopened,
    /// `{{ }}`.
    #[error("has {{{{ }}}} without a column name in it")]
    Nameless,
}

impl Template {
    /// Parses a text. Single braces are ordinary text; spaces around a name do not count.
    ///
    /// # Errors
    /// [`TemplateError`] for double braces that do not pair up or hold no name.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut segments = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(OPEN) {
            push_text(&mut segments, before)?;
            let (name, remainder) = after.split_once(CLOSE).ok_or(TemplateError::Unclosed)?;
            if name.contains(OPEN) {
                return Err(TemplateError::Unclosed);
            }
            let name = name.trim();
            if name.is_empty() {
                return Err(TemplateError::Nameless);
            }
            segments.push(Segment::Name(name.to_owned()));
            rest = remainder;
        }
        push_text(&mut segments, rest)?;
        Ok(Self { segments })
    }

    /// The names used, in order of appearance, repeats included.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Name(name) => Some(name.as_str()),
            Segment::Text(_) => None,
        })
    }

    /// The text before the first name: what no contact can influence.
    pub fn literal_prefix(&self) -> &str {
        match self.segments.first() {
            Some(Segment::Text(text)) => text,
            Some(Segment::Name(_)) | None => "",
        }
    }

    /// Fills the template in; a name without a value becomes nothing.
    pub fn render<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
        self.segments
            .iter()
            .fold(String::new(), |rendered, segment| match segment {
                Segment::Text(text) => rendered + text,
                Segment::Name(name) => rendered + lookup(name).unwrap_or_default(),
            })
    }

    /// Fills the template in as part of a URL of at most `max_len` bytes: values are percent-encoded, and a value that
    /// would make the URL too long is left out. The template's own text is always kept.
    pub fn render_url<'a>(
        &self,
        max_len: usize,
        lookup: impl Fn(&str) -> Option<&'a str>,
    ) -> String {
        let own_text: usize = self
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Text(text) => text.len(),
                Segment::Name(_) => 0,
            })
            .sum();
        let mut room = max_len.saturating_sub(own_text);
        let mut rendered = String::new();
        for segment in &self.segments {
            match segment {
                Segment::Text(text) => rendered.push_str(text),
                Segment::Name(name) => {
                    let value = lookup(name).unwrap_or_default();
                    // Encoding never makes a value shorter.
                    if room < value.len() {
                        continue;
                    }
                    let value = percent_encoded(value);
                    if let Some(left) = room.checked_sub(value.len()) {
                        room = left;
                        rendered.push_str(&value);
                    }
                }
            }
        }
        rendered
    }
}

/// Adds literal text, which may hold no closing braces.
fn push_text(segments: &mut Vec<Segment>, text: &str) -> Result<(), TemplateError> {
    if text.contains(CLOSE) {
        return Err(TemplateError::Unopened);
    }
    if !text.is_empty() {
        segments.push(Segment::Text(text.to_owned()));
    }
    Ok(())
}

/// Encodes everything but the unreserved characters of RFC 3986 (section 2.3), so the value is safe in any part of a URL.
fn percent_encoded(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.extend([byte >> 4, byte & 0xf].map(hex_digit));
        }
    }
    encoded
}

/// A number below 16 as a digit, in capitals as RFC 3986 (section 2.1) wants them.
fn hex_digit(nibble: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(nibble)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str) -> Vec<String> {
        Template::parse(text)
            .unwrap()
            .names()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn names_are_found_and_trimmed() {
        assert_eq!(
            names("Hello {{firstName}}, your {{ order no }} {{firstName}}"),
            ["firstName", "order no", "firstName"]
        );
        assert_eq!(names("no names, {single} braces } {"), Vec::<String>::new());
        assert_eq!(names(""), Vec::<String>::new());
    }

    #[test]
    fn values_replace_names_and_missing_ones_vanish() {
        let template = Template::parse("Hi {{firstName}}{{missing}}!").unwrap();
        assert_eq!(
            template.render(|name| (name == "firstName").then_some("Ada {{tag}}")),
            "Hi Ada {{tag}}!"
        );
    }

    #[test]
    fn braces_must_pair_up() {
        for (text, error) in [
            ("{{name", TemplateError::Unclosed),
            ("{{na{{me}}", TemplateError::Unclosed),
            ("name}}", TemplateError::Unopened),
            ("{{name}} }}", TemplateError::Unopened),
            ("{{}}", TemplateError::Nameless),
            ("{{  }}", TemplateError::Nameless),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text}");
        }
        assert_eq!(
            TemplateError::Unclosed.to_string(),
            "has an opening {{ without a closing }}"
        );
    }

    #[test]
    fn url_values_cannot_leave_their_place() {
        let template = Template::parse("https://h/p?a={{v}}&b=1").unwrap();
        assert_eq!(
            template.render_url(2048, |_| Some("x&y=z/../é #")),
            "https://h/p?a=x%26y%3Dz%2F..%2F%C3%A9%20%23&b=1"
        );
        assert_eq!(template.literal_prefix(), "https://h/p?a=");
        assert_eq!(Template::parse("{{v}}/x").unwrap().literal_prefix(), "");
    }

    #[test]
    fn a_value_that_makes_the_url_too_long_is_left_out() {
        let template = Template::parse("https://h/{{a}}?b={{b}}").unwrap();
        let lookup = |name: &str| Some(if name == "a" { "aaaaaaaaaa" } else { "b" });
        assert_eq!(template.render_url(20, lookup), "https://h/?b=b");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in any::<String>(), value in any::<String>()) {
            if let Ok(template) = Template::parse(&text) {
                template.render(|_| Some(&value));
                template.render_url(100, |_| Some(&value));
            }
        }

        #[test]
        fn text_without_double_braces_is_kept(text in "[^{}]*") {
            prop_assert_eq!(Template::parse(&text).unwrap().render(|_| None), text);
        }

        #[test]
        fn a_rendered_url_keeps_its_shape(value in any::<String>()) {
            let template = Template::parse("https://h.example/p/{{v}}?k={{v}}").unwrap();
            let rendered = url::Url::parse(&template.render_url(usize::MAX, |_| Some(&value))).unwrap();
            prop_assert_eq!(rendered.host_str(), Some("h.example"));
            prop_assert_eq!(rendered.query_pairs().count(), 1);
            prop_assert_eq!(rendered.query_pairs().next().unwrap().1, value);
            prop_assert_eq!(rendered.fragment(), None);
        }
    }
}
