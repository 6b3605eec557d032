//! Plivo's V3 webhook signature: signing (for the simulator) and checking (for the webhook routes). Pure, no IO.
//!
//! The scheme is the one that the official Python and Node SDKs execute, not the prose of the docs (they differ where
//! the URL has no query); `tests/data/signature_vectors.json` holds the vectors of every official SDK. V2 is not here on
//! purpose: it covers neither query nor body, so a replayed header would authenticate any forged event.
//!
//! Known limits of the scheme itself: parameters are concatenated without separators (moving a character from the end of
//! a key to the start of its value does not change the message) and there is no timestamp, so replays must be harmless.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use url::form_urlencoded;

/// Header with the signature made with the token of the account, or subaccount, that owns the call.
pub const SIGNATURE_HEADER: &str = "x-plivo-signature-v3";
/// Header with the signature made with the main account's token, whichever (sub)account owns the call.
pub const MAIN_SIGNATURE_HEADER: &str = "x-plivo-signature-ma-v3";
/// Header with the nonce that both signatures cover.
pub const NONCE_HEADER: &str = "x-plivo-signature-v3-nonce";

/// Length of an HMAC-SHA256 value in bytes.
const DIGEST_LENGTH: usize = 32;

/// The signature of one webhook request, as the header carries it (standard base64, 44 characters).
///
/// `url` is the whole URL as dialled; its fragment is not signed. `params` are the decoded form pairs of a POST body, in
/// any order, with empty values kept; they are empty for a GET, whose parameters are in the query of `url`.
pub fn sign_v3(
    method: &str,
    url: &str,
    params: &[(String, String)],
    nonce: &str,
    token: &str,
) -> String {
    STANDARD.encode(
        mac(token, &signed_message(method, url, params, nonce))
            .finalize()
            .into_bytes(),
    )
}

/// Whether a webhook request was signed by a holder of one of `tokens`.
///
/// The header may hold several comma-separated signatures (Plivo sends one for each active token) and there may be
/// several tokens (ours are being rotated): any match is valid. The comparison takes constant time. An empty token
/// matches nothing, so a hole in the configuration cannot open the door.
pub fn verify_v3<'a>(
    method: &str,
    url: &str,
    params: &[(String, String)],
    nonce: &str,
    signature_header: &str,
    tokens: impl Iterator<Item = &'a str>,
) -> bool {
    let candidates: Vec<Vec<u8>> = signature_header
        .split(',')
        .filter_map(|signature| STANDARD.decode(signature.trim()).ok())
        .filter(|signature| signature.len() == DIGEST_LENGTH)
        .collect();
    if candidates.is_empty() {
        return false;
    }
    let message = signed_message(method, url, params, nonce);
    tokens.filter(|token| !token.is_empty()).any(|token| {
        let mac = mac(token, &message);
        candidates
            .iter()
            .any(|signature| mac.clone().verify_slice(signature).is_ok())
    })
}

fn mac(token: &str, message: &str) -> Hmac<Sha256> {
    #[expect(
        clippy::expect_used,
        reason = "HMAC accepts a key of any length, so this cannot fail"
    )]
    let mut mac =
        Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("HMAC accepts a key of any length");
    mac.update(message.as_bytes());
    mac
}

/// The text that is signed: base URL, sorted query, sorted parameters and nonce, joined in Plivo's peculiar way.
fn signed_message(method: &str, url: &str, params: &[(String, String)], nonce: &str) -> String {
    let without_fragment = url.split_once('#').map_or(url, |(before, _)| before);
    let (base, query) = without_fragment
        .split_once('?')
        .unwrap_or((without_fragment, ""));

    let mut query: Vec<(Cow<'_, str>, Cow<'_, str>)> =
        form_urlencoded::parse(query.as_bytes()).collect();
    let mut body: Vec<(Cow<'_, str>, Cow<'_, str>)> = params
        .iter()
        .map(|(key, value)| (Cow::from(key), Cow::from(value)))
        .collect();
    if method.eq_ignore_ascii_case("GET") {
        query.append(&mut body);
    }
    query.sort_unstable();
    body.sort_unstable();

    let mut message = base.to_owned();
    if !query.is_empty() || !body.is_empty() {
        message.push('?');
    }
    for (index, (key, value)) in query.iter().enumerate() {
        if index > 0 {
            message.push('&');
        }
        message.extend([key.as_ref(), "=", value.as_ref()]);
    }
    if !query.is_empty() && !body.is_empty() {
        message.push('.');
    }
    for (key, value) in &body {
        message.extend([key.as_ref(), value.as_ref()]);
    }
    message.push('.');
    message.push_str(nonce);
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What was signed is accepted in any order of its parameters; with another nonce, token or address it is not.
        #[test]
        fn only_what_was_signed_is_accepted(
            method in "GET|POST", url in "https://h(\\PC{0,30})(\\?\\PC{0,30})?",
            mut params in proptest::collection::vec((any::<String>(), any::<String>()), 0..6),
            nonce in any::<String>(), token in "\\PC{1,40}",
        ) {
            let signature = sign_v3(&method, &url, &params, &nonce, &token);
            params.reverse();
            let verify = |url: &str, nonce: &str, signature: &str, token: &str| {
                verify_v3(&method, url, &params, nonce, signature, std::iter::once(token))
            };
            prop_assert!(verify(&url, &nonce, &signature, &token));
            let (both, other_nonce, other_token) =
                (format!("junk, {signature}"), format!("{nonce}x"), format!("{token}x"));
            prop_assert!(verify(&url, &nonce, &both, &token));
            prop_assert!(!verify(&url, &other_nonce, &signature, &token));
            prop_assert!(!verify(&url, &nonce, &signature, &other_token));
            prop_assert!(!verify(&url.replacen("https", "http", 1), &nonce, &signature, &token));
            prop_assert!(!verify(&url, &nonce, &signature, ""));
        }

        #[test]
        fn no_header_makes_it_panic_or_is_accepted_by_chance(
            header in "\\PC{0,100}|[A-Za-z0-9+/]{43}=", url in any::<String>(), nonce in any::<String>(), token in any::<String>(),
        ) {
            prop_assert!(!verify_v3("POST", &url, &[], &nonce, &header, std::iter::once(token.as_str())));
        }
    }
}
