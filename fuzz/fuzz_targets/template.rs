//! Values are data: whatever they are, a rendered URL keeps its host and stays within its length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmaster::domain::template::Template;
use url::Url;

const LONGEST: usize = 300;

fuzz_target!(|input: (&str, &str)| {
    let (text, value) = input;
    let Ok(template) = Template::parse(text) else {
        assert!(text.contains("{{") || text.contains("}}"));
        return;
    };
    assert!(text.starts_with(template.literal_prefix()));
    if template.names().next().is_none() {
        assert_eq!(template.render(|_| Some(value)), text);
    }
    let url = format!(
        "https://h.example/{{{{a}}}}?{}",
        text.replace(['{', '}', '#'], "")
    );
    let rendered = Template::parse(&url)
        .unwrap()
        .render_url(LONGEST, |_| Some(value));
    assert!(rendered.len() <= LONGEST.max(url.len()));
    assert_eq!(Url::parse(&rendered).unwrap().host_str(), Some("h.example"));
});
