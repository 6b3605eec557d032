//! What was signed is accepted in any order of its parameters, and with another nonce, token or header it is not.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringmaster::services::carrier::plivo_signature::{sign_v3, verify_v3};

#[derive(Debug, Arbitrary)]
struct Request {
    is_get: bool,
    url: String,
    params: Vec<(String, String)>,
    nonce: String,
    token: String,
    header: String,
}

fuzz_target!(|request: Request| {
    let Request {
        is_get,
        url,
        mut params,
        nonce,
        token,
        header,
    } = request;
    let method = if is_get { "GET" } else { "POST" };
    let signature = sign_v3(method, &url, &params, &nonce, &token);
    params.reverse();
    let verify = |nonce: &str, header: &str, token: &str| {
        verify_v3(method, &url, &params, nonce, header, std::iter::once(token))
    };
    assert_eq!(verify(&nonce, &signature, &token), !token.is_empty());
    assert!(!verify(&format!("{nonce}x"), &signature, &token));
    assert!(!verify(&nonce, &signature, &format!("{token}x")));
    assert!(!verify(&nonce, &header, &token) || header.contains(&signature));
});
