//! Clients: creating, changing, and the one rule between them.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};

use crate::helpers::edge::{ADMIN, Edge};

#[tokio::test]
async fn a_client_is_created_with_defaults_changed_and_listed() {
    let settings = [
        ("DEFAULT_CLIENT_MAX_CONCURRENT_CALLS", "7"),
        ("MAX_CALLS_PER_MINUTE", "30"),
    ];
    let edge = Edge::start_with("clients-life", &settings, |_, router| router).await;
    let body =
        json!({"name": "Acme", "email": "ops@acme.example", "callerIds": ["+1 415 555 0100"]});
    let client = edge.post(ADMIN, "/v1/clients", &body).await.expect(201);
    let path = format!("/v1/clients/{}", client["id"].as_str().unwrap());
    let mut expected = json!({
        "id": client["id"], "name": "Acme", "company": null, "email": "ops@acme.example",
        "maxConcurrentCalls": 7, "maxCallsPerMinute": 30, "guaranteedCalls": 0,
        "callerIds": ["+14155550100"], "maxCallsPerCallerId": null,
        "status": "active", "createdAt": client["createdAt"],
    });
    assert_eq!(client, expected);
    assert_eq!(edge.get(ADMIN, &path).await.expect(200), expected);
    let (viewer, _) = edge.key(client["id"].as_str().unwrap(), "viewer").await;
    let seen = edge.get(&viewer, &path).await.expect(200);
    assert_eq!(seen["callerIds"], json!(["+*******0100"]));

    let change =
        json!({"company": "Acme Ltd", "email": null, "maxConcurrentCalls": 3, "callerIds": []});
    let changed = edge.patch(ADMIN, &path, &change).await.expect(200);
    for (field, value) in change.as_object().unwrap() {
        expected[field] = value.clone();
    }
    assert_eq!(changed, expected);
    assert_eq!(edge.get(ADMIN, &path).await.expect(200), expected);
}

#[tokio::test]
async fn pages_follow_each_other_without_gap() {
    let edge = Edge::start("clients-pages").await;
    let mut created = Vec::new();
    for name in 0..5 {
        created.push(edge.client(&format!("Client {name}")).await);
    }
    created.reverse();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = edge
            .get(ADMIN, &format!("/v1/clients?limit=2{cursor}"))
            .await
            .expect(200);
        let ids = page["items"].as_array().unwrap().iter();
        seen.extend(ids.map(|client| client["id"].as_str().unwrap().to_owned()));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, created);
}

#[tokio::test]
async fn values_that_cannot_be_are_refused_and_change_nothing() {
    let edge = Edge::start("clients-refused").await;
    let id = edge.client("Acme").await;
    let path = format!("/v1/clients/{id}");
    let before = edge.get(ADMIN, &path).await.expect(200);
    for (change, fault) in [
        (json!({"name": ""}), "name"),
        (json!({"name": null}), "name"),
        (json!({"email": "nobody"}), "email"),
        (json!({"maxConcurrentCalls": 0}), "maxConcurrentCalls"),
        (json!({"maxConcurrentCalls": null}), "maxConcurrentCalls"),
        (json!({"guaranteedCalls": 11}), "guaranteedCalls"),
        (json!({"maxCallsPerCallerId": 0}), "maxCallsPerCallerId"),
        (
            json!({"callerIds": ["+14155550100", "+1-415-555-0100"]}),
            "callerIds[1]",
        ),
        (json!({"status": "gone"}), "status"),
        (json!({"id": id}), "id"),
    ] {
        let problem = edge
            .patch(ADMIN, &path, &change)
            .await
            .problem(422, "invalid");
        assert_eq!(problem["errors"][0]["path"], fault, "{change}");
    }
    let paths = |problem: Value| {
        let mut paths: Vec<_> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fault| fault["path"].as_str().unwrap().to_owned())
            .collect();
        paths.sort();
        paths
    };
    let wrong = json!({"name": null, "email": "nobody", "callerIds": ["x"]});
    let patched = edge.patch(ADMIN, &path, &wrong).await;
    assert_eq!(
        paths(patched.problem(422, "invalid")),
        ["callerIds[0]", "email", "name"]
    );
    let wrong = json!({"name": "", "callerIds": ["x"]});
    let posted = edge.post(ADMIN, "/v1/clients", &wrong).await;
    assert_eq!(
        paths(posted.problem(422, "invalid")),
        ["callerIds[0]", "name"]
    );
    assert_eq!(edge.get(ADMIN, &path).await.expect(200), before);
    let nobody = "/v1/clients/0123456789abcdef01234567";
    edge.patch(ADMIN, nobody, &json!({"name": "x"}))
        .await
        .problem(404, "not_found");
    assert_eq!(edge.count("client").await, 1);
}

#[tokio::test]
async fn guarantees_never_exceed_the_calls_that_there_are() {
    let edge = Edge::start_with("clients-cap", &[("GLOBAL_MAX_CALLS", "50")], |_, router| {
        router
    })
    .await;
    let body = json!({"name": "Acme", "guaranteedCalls": 10});
    let all =
        futures_util::future::join_all((0..8).map(|_| edge.post(ADMIN, "/v1/clients", &body)));
    let (made, refused): (Vec<_>, Vec<_>) = all
        .await
        .into_iter()
        .partition(|answer| answer.status == 201);
    assert_eq!((made.len(), refused.len()), (5, 3));
    for answer in refused {
        answer.problem(409, "guarantees_exhausted");
    }
    let id = made[0].json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/clients/{id}");
    let more = json!({"guaranteedCalls": 11, "maxConcurrentCalls": 20});
    edge.patch(ADMIN, &path, &more)
        .await
        .problem(409, "guarantees_exhausted");
    edge.patch(ADMIN, &path, &json!({"guaranteedCalls": 4}))
        .await
        .expect(200);
    edge.post(
        ADMIN,
        "/v1/clients",
        &json!({"name": "Late", "guaranteedCalls": 6}),
    )
    .await
    .expect(201);
    let guarantees = edge.store.client_guarantees().await.unwrap();
    assert_eq!(
        (guarantees.len(), guarantees.values().sum::<u32>()),
        (6, 50)
    );
}

#[tokio::test]
async fn keys_are_for_operators_and_viewers() {
    let edge = Edge::start("clients-keys").await;
    let client = edge.client("Acme").await;
    let path = format!("/v1/clients/{client}/keys");
    let key = edge
        .post(ADMIN, &path, &json!({"role": "viewer", "label": "wall"}))
        .await
        .expect(201);
    assert!(key["key"].as_str().unwrap().starts_with("rm_") && key["label"] == "wall");
    let admin = edge
        .post(ADMIN, &path, &json!({"role": "admin"}))
        .await
        .problem(422, "invalid");
    assert_eq!(admin["errors"][0]["path"], "role");
    edge.post(ADMIN, &path, &json!({"role": "owner"}))
        .await
        .problem(422, "invalid");
    edge.post(ADMIN, &path, &json!({"role": "viewer", "label": ""}))
        .await
        .problem(422, "invalid");
    let nobody = "/v1/clients/0123456789abcdef01234567/keys";
    edge.post(ADMIN, nobody, &json!({"role": "viewer"}))
        .await
        .problem(404, "not_found");
    edge.get(ADMIN, nobody).await.problem(404, "not_found");
    assert_eq!(edge.count("apiKeys").await, 1);
}

#[tokio::test]
async fn a_client_of_the_earlier_system_is_served_and_its_fields_survive_a_change() {
    let edge = Edge::start("clients-old").await;
    let clients = edge.database.collection::<Document>("client");
    let id = ObjectId::new();
    let old = doc! { "_id": id, "name": "Old", "apiKey": "plain", "password": "x", "maxConcurrentCalls": 4.0 };
    clients.insert_one(old).await.unwrap();
    let path = format!("/v1/clients/{}", id.to_hex());
    let shown = edge.get(ADMIN, &path).await;
    assert!(!shown.text.contains("plain") && !shown.text.contains("password"));
    let client = shown.expect(200);
    assert_eq!(
        (&client["maxConcurrentCalls"], &client["status"]),
        (&json!(4), &json!("active"))
    );
    edge.patch(ADMIN, &path, &json!({"maxConcurrentCalls": 5}))
        .await
        .expect(200);
    let stored = clients.find_one(doc! { "_id": id }).await.unwrap().unwrap();
    assert_eq!(stored.get_str("apiKey").unwrap(), "plain");
    assert_eq!(stored.get_i64("maxConcurrentCalls").unwrap(), 5);
}
