//! Who gets in, and how far (promise P7).

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mongodb::bson::{Document, doc};
use reqwest::Method;
use serde_json::{Value, json};

use crate::helpers::app::until;
use crate::helpers::edge::{ADMIN, Edge, JWT_SECRET, send};
use crate::helpers::judge::{now_ms, until_passed};

const IN_A_FAR_FUTURE: i64 = 4_000_000_000;

fn token(claims: &Value, secret: &str, algorithm: Algorithm) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
}

#[tokio::test]
async fn nobody_gets_in_without_a_key() {
    let edge = Edge::start("auth-none").await;
    let answer = edge.get("", "/v1/clients").await;
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    answer.problem(401, "unauthorized");
    for wrong in [
        "wrong",
        "rm_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "a.b.c",
        &"x".repeat(5000),
    ] {
        edge.get(wrong, "/v1/clients")
            .await
            .problem(401, "unauthorized");
    }
    let basic = edge
        .request(Method::GET, "", "/v1/clients")
        .basic_auth("admin", Some(ADMIN));
    send(basic).await.problem(401, "unauthorized");
    edge.get(ADMIN, "/v1/clients").await.expect(200);
    let header = edge
        .request(Method::GET, "", "/v1/clients")
        .header("x-api-key", ADMIN);
    send(header).await.expect(200);
}

#[tokio::test]
async fn without_an_admin_key_there_is_no_admin() {
    let settings = [("ADMIN_API_KEY", ""), ("JWT_SECRET", "")];
    let edge = Edge::start_with("auth-no-admin", &settings, |_, router| router).await;
    edge.get(ADMIN, "/v1/clients")
        .await
        .problem(401, "unauthorized");
    let admin = token(
        &json!({"role": "admin", "exp": IN_A_FAR_FUTURE}),
        "",
        Algorithm::HS256,
    );
    edge.get(&admin, "/v1/clients")
        .await
        .problem(401, "unauthorized");
}

#[tokio::test]
async fn roles_may_what_they_may() {
    let edge = Edge::start("auth-roles").await;
    let (client, operator) = edge.tenant("Acme").await;
    let (viewer, _) = edge.key(&client, "viewer").await;
    let (other, _) = edge.tenant("Other").await;
    let own = format!("/v1/clients/{client}");
    let body = json!({"name": "x"});
    for key in [&operator, &viewer] {
        edge.get(key, &own).await.expect(200);
        edge.get(key, &format!("/v1/clients/{other}"))
            .await
            .problem(404, "not_found");
        edge.get(key, "/v1/clients").await.problem(403, "forbidden");
        edge.get(key, &format!("{own}/keys"))
            .await
            .problem(403, "forbidden");
        edge.post(key, "/v1/clients", &body)
            .await
            .problem(403, "forbidden");
        edge.patch(key, &own, &body).await.problem(403, "forbidden");
        edge.post(key, &format!("{own}/keys"), &json!({"role": "viewer"}))
            .await
            .problem(403, "forbidden");
        edge.delete(key, "/v1/keys/0123456789abcdef01234567")
            .await
            .problem(403, "forbidden");
    }
    let list = json!({"name": "May", "contacts": [{"number": "+14155550101"}]});
    edge.post(&viewer, "/v1/lists", &list)
        .await
        .problem(403, "forbidden");
    edge.post(&operator, "/v1/lists", &list).await.expect(201);
}

#[tokio::test]
async fn a_revoked_key_is_refused_within_5_s() {
    let edge = Edge::start("auth-revoked").await;
    let client = edge.client("Acme").await;
    let (key, id) = edge.key(&client, "operator").await;
    edge.get(&key, "/v1/lists").await.expect(200);
    let path = format!("/v1/keys/{id}");
    assert_eq!(edge.delete(ADMIN, &path).await.status, 204);
    until_passed(now_ms(), Duration::from_secs(5)).await;
    edge.get(&key, "/v1/lists")
        .await
        .problem(401, "unauthorized");
    assert_eq!(
        edge.delete(ADMIN, &path).await.status,
        204,
        "revoking twice is once"
    );
    edge.delete(ADMIN, "/v1/keys/0123456789abcdef01234567")
        .await
        .problem(404, "not_found");
    let keys = edge
        .get(ADMIN, &format!("/v1/clients/{client}/keys"))
        .await
        .expect(200);
    assert!(keys["items"][0]["revokedAt"].is_string());
}

#[tokio::test]
async fn a_suspended_client_is_refused_by_key_and_by_token() {
    let edge = Edge::start("auth-suspended").await;
    let (client, key) = edge.tenant("Acme").await;
    let claims = json!({"clientId": client, "role": "viewer", "exp": IN_A_FAR_FUTURE});
    let token = token(&claims, JWT_SECRET, Algorithm::HS256);
    let path = format!("/v1/clients/{client}");
    edge.patch(ADMIN, &path, &json!({"status": "suspended"}))
        .await
        .expect(200);
    for credential in [&key, &token] {
        edge.get(credential, "/v1/lists")
            .await
            .problem(403, "client_suspended");
    }
    edge.patch(ADMIN, &path, &json!({"status": "active"}))
        .await
        .expect(200);
    until("it is let in again", async || {
        edge.get(&key, "/v1/lists").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn tokens_are_as_good_as_their_claims() {
    let edge = Edge::start("auth-tokens").await;
    let (client, _) = edge.tenant("Acme").await;
    let sign = |claims: Value| token(&claims, JWT_SECRET, Algorithm::HS256);
    let viewer = sign(json!({"clientId": client, "role": "viewer", "exp": IN_A_FAR_FUTURE}));
    edge.get(&viewer, &format!("/v1/clients/{client}"))
        .await
        .expect(200);
    edge.get(&viewer, "/v1/clients")
        .await
        .problem(403, "forbidden");
    let admin = sign(json!({"role": "admin", "exp": IN_A_FAR_FUTURE}));
    edge.get(&admin, "/v1/clients").await.expect(200);

    let claims = json!({"clientId": client, "role": "operator", "exp": IN_A_FAR_FUTURE});
    let none = format!(
        "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.",
        viewer.split('.').nth(1).unwrap()
    );
    for refused in [
        token(&claims, "another secret", Algorithm::HS256),
        token(&claims, JWT_SECRET, Algorithm::HS384),
        none,
        sign(json!({"clientId": client, "role": "viewer", "exp": 1_000_000_000})),
        sign(json!({"clientId": client, "role": "viewer"})),
        sign(json!({"clientId": client, "role": "admin", "exp": IN_A_FAR_FUTURE})),
        sign(json!({"role": "operator", "exp": IN_A_FAR_FUTURE})),
        sign(
            json!({"clientId": "0123456789abcdef01234567", "role": "operator", "exp": IN_A_FAR_FUTURE}),
        ),
        sign(json!({"clientId": {"$gt": ""}, "role": "operator", "exp": IN_A_FAR_FUTURE})),
    ] {
        edge.get(&refused, "/v1/lists")
            .await
            .problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn keys_are_kept_as_hashes_and_their_use_is_noted() {
    let edge = Edge::start("auth-hashes").await;
    let (client, key) = edge.tenant("Acme").await;
    edge.get(&key, "/v1/lists").await.expect(200);
    let keys = edge.database.collection::<Document>("apiKeys");
    until("the use is noted", async || {
        let stored = keys.find_one(doc! {}).await.unwrap().unwrap();
        stored.get_datetime("lastUsedAt").is_ok()
    })
    .await;
    let stored = keys.find_one(doc! {}).await.unwrap().unwrap();
    assert!(
        !stored.to_string().contains(&key)
            && stored.get_binary_generic("keyHash").unwrap().len() == 32
    );
    let shown = edge.get(ADMIN, &format!("/v1/clients/{client}/keys")).await;
    assert!(!shown.text.contains(&key) && !shown.text.contains("keyHash"));
}
