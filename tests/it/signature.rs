//! The V3 signature against every published vector, and its properties.

use std::slice;

use proptest::prelude::*;
use ringmaster::services::carrier::plivo_signature::{sign_v3, verify_v3};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Vectors {
    v3: Vec<Vector>,
    v2: Vec<Value>,
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    method: String,
    uri: String,
    nonce: String,
    auth_token: String,
    #[serde(default)]
    params: serde_json::Map<String, Value>,
    signature: String,
    expected: bool,
}

impl Vector {
    fn params(&self) -> Vec<(String, String)> {
        // A GET carries its parameters in the query; where a vector lists them apart, the SDKs merge them.
        self.params
            .iter()
            .flat_map(|(key, value)| {
                let values = value
                    .as_array()
                    .map_or(slice::from_ref(value), Vec::as_slice);
                values.iter().map(move |value| pair(key, value))
            })
            .collect()
    }
}

fn pair(key: &str, value: &Value) -> (String, String) {
    (
        key.to_owned(),
        value.as_str().expect("vectors hold strings").to_owned(),
    )
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../data/signature_vectors.json"))
        .expect("vectors are valid JSON")
}

#[test]
fn every_published_v3_vector_is_judged_as_expected() {
    let vectors = vectors().v3;
    assert!(vectors.len() >= 20, "vectors went missing");
    for vector in vectors {
        let verdict = verify_v3(
            &vector.method,
            &vector.uri,
            &vector.params(),
            &vector.nonce,
            &vector.signature,
            std::iter::once(vector.auth_token.as_str()),
        );
        assert_eq!(verdict, vector.expected, "vector {}", vector.id);
        if vector.expected && !vector.signature.contains(',') {
            let signed = sign_v3(
                &vector.method,
                &vector.uri,
                &vector.params(),
                &vector.nonce,
                &vector.auth_token,
            );
            assert_eq!(signed, vector.signature, "vector {}", vector.id);
        }
    }
}

#[test]
fn a_v2_signature_is_never_a_v3_signature() {
    for vector in vectors().v2 {
        let field = |name: &str| vector[name].as_str().unwrap_or_default().to_owned();
        let (uri, nonce, signature, token) = (
            field("uri"),
            field("nonce"),
            field("signature"),
            field("auth_token"),
        );
        for method in ["GET", "POST"] {
            let params = [("CallStatus".to_owned(), "completed".to_owned())];
            assert!(!verify_v3(
                method,
                &uri,
                &params,
                &nonce,
                &signature,
                std::iter::once(token.as_str())
            ));
        }
    }
}

#[test]
fn any_of_several_tokens_matches_and_an_empty_one_never_does() {
    let url = "https://example.com/hangup?call=1";
    let signed_with = |token: &str| sign_v3("POST", url, &[], "7", token);
    let verify = |header: &str, tokens: &[&str]| {
        verify_v3("POST", url, &[], "7", header, tokens.iter().copied())
    };

    assert!(verify(&signed_with("old"), &["new", "old"]));
    assert!(verify(
        &format!("{}, {}", signed_with("other"), signed_with("old")),
        &["new", "old"]
    ));
    assert!(!verify(&signed_with("other"), &["new", "old"]));
    assert!(!verify(&signed_with(""), &["", "new"]));
    assert!(!verify(&signed_with("old"), &[]));
}

/// A pair list whose keys and values are plain text of the characters that webhooks carry, and some that they should not.
fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("[A-Za-z]{1,12}", "[A-Za-z0-9 +:.=&%é_-]{0,20}"), 0..8)
}

fn url_of(query: &[(String, String)]) -> String {
    let mut url =
        url::Url::parse("https://example.com/plivo/hangup-url").expect("the URL is valid");
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url.into()
}

/// `text` with the character at `index` (modulo its length) replaced by another one.
fn with_one_change(text: &str, index: usize) -> String {
    let target = index % text.chars().count();
    text.chars()
        .enumerate()
        .map(|(position, character)| match character {
            _ if position != target => character,
            'x' => 'y',
            _ => 'x',
        })
        .collect()
}

fn method() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["GET", "POST"])
}

proptest! {
    #[test]
    fn what_was_signed_verifies(method in method(), query in pairs(), params in pairs(), nonce in "[0-9]{1,20}", token in ".{1,40}") {
        let url = url_of(&query);
        let signature = sign_v3(method, &url, &params, &nonce, &token);
        prop_assert!(verify_v3(method, &url, &params, &nonce, &signature, std::iter::once(token.as_str())));
        let shuffled: Vec<_> = params.iter().rev().cloned().collect();
        prop_assert!(verify_v3(method, &url, &shuffled, &nonce, &signature, std::iter::once(token.as_str())));
        let with_fragment = format!("{url}#rc=5&rp=all");
        prop_assert!(verify_v3(method, &with_fragment, &params, &nonce, &signature, std::iter::once(token.as_str())));
        let other_token = format!("{token}!");
        prop_assert!(!verify_v3(method, &url, &params, &nonce, &signature, std::iter::once(other_token.as_str())));
    }

    #[test]
    fn a_changed_query_value_fails(query in pairs(), params in pairs(), chosen in any::<usize>(), at in any::<usize>()) {
        prop_assume!(query.iter().any(|(_, value)| !value.is_empty()));
        let signature = sign_v3("POST", &url_of(&query), &params, "1", "token");
        let changeable: Vec<usize> = (0..query.len()).filter(|&index| !query[index].1.is_empty()).collect();
        let mut changed = query;
        let value = &mut changed[changeable[chosen % changeable.len()]].1;
        *value = with_one_change(value, at);
        prop_assert!(!verify_v3("POST", &url_of(&changed), &params, "1", &signature, std::iter::once("token")));
    }

    #[test]
    fn a_changed_parameter_fails(query in pairs(), params in pairs(), chosen in any::<usize>(), at in any::<usize>()) {
        prop_assume!(params.iter().any(|(_, value)| !value.is_empty()));
        let url = url_of(&query);
        let changeable: Vec<usize> = (0..params.len()).filter(|&index| !params[index].1.is_empty()).collect();
        let mut changed = params.clone();
        let value = &mut changed[changeable[chosen % changeable.len()]].1;
        *value = with_one_change(value, at);
        // Without separators two different lists can spell the same text; Plivo cannot tell those apart either.
        let spelled = |list: &[(String, String)]| {
            let mut sorted = list.to_vec();
            sorted.sort();
            sorted.into_iter().map(|(key, value)| key + &value).collect::<String>()
        };
        prop_assume!(spelled(&params) != spelled(&changed));
        let signature = sign_v3("POST", &url, &params, "1", "token");
        prop_assert!(!verify_v3("POST", &url, &changed, "1", &signature, std::iter::once("token")));
    }

    #[test]
    fn a_changed_nonce_path_or_signature_fails(nonce in "[0-9]{1,20}", at in any::<usize>()) {
        let url = "https://example.com/plivo/ring-url?call=1";
        let params = [("Event".to_owned(), "Ring".to_owned())];
        let signature = sign_v3("POST", url, &params, &nonce, "token");
        let token = || std::iter::once("token");
        prop_assert!(!verify_v3("POST", url, &params, &with_one_change(&nonce, at), &signature, token()));
        prop_assert!(!verify_v3("POST", &with_one_change(url, at % "https://example.com/plivo/ring-url".len()), &params, &nonce, &signature, token()));
        // The last character before the padding holds two unused bits, so only the 42 before it are all significant.
        prop_assert!(!verify_v3("POST", url, &params, &nonce, &with_one_change(&signature, at % 42), token()));
    }

    #[test]
    fn junk_is_refused_and_never_panics(method in ".{0,8}", url in ".{0,60}", params in prop::collection::vec((".{0,8}", ".{0,8}"), 0..4), nonce in ".{0,24}", header in "[,A-Za-z0-9+/= ]{0,120}|.{0,60}", token in ".{0,20}") {
        prop_assert!(!verify_v3(&method, &url, &params, &nonce, &header, std::iter::once(token.as_str())));
    }
}
