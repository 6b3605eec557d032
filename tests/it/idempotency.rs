//! `Idempotency-Key`: one answer for one request, and one resource, whatever dies in between.

use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use axum::routing::post;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use ringmaster::domain::ids::ClientId;
use ringmaster::domain::role::Principal;
use ringmaster::error::ApiError;
use ringmaster::middleware::{self, Pace};
use ringmaster::routes::extract::NewId;
use ringmaster::services::idempotency::{ReservedId, Turn, Work};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;

use crate::helpers::edge::{ADMIN, Answer, Edge, send};

async fn create(edge: &Edge, key: &str, path: &str, once: &str, body: &Value) -> Answer {
    let request = edge
        .request(Method::POST, key, path)
        .header("idempotency-key", once);
    send(request.json(body)).await
}

/// Begins a request as a process does that dies before it answers.
async fn begin_and_die(edge: &Edge, path: &str, once: &str, body: &[u8]) -> Work {
    let parts: [&[u8]; 3] = [b"POST", path.as_bytes(), body];
    let turn = edge
        .state
        .idempotency
        .begin(Principal::ADMIN, once, &parts)
        .await
        .unwrap();
    let Turn::Work(work) = turn else {
        panic!("{turn:?}");
    };
    work
}

async fn let_a_minute_pass(edge: &Edge) {
    let records = edge.database.collection::<Document>("idempotencyKeys");
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 61_000);
    records
        .update_many(doc! {}, doc! { "$set": { "heldAt": past } })
        .await
        .unwrap();
}

#[tokio::test]
async fn the_same_request_has_the_same_answer() {
    let edge = Edge::start("once-same").await;
    let body = json!({"name": "Acme"});
    let first = create(&edge, ADMIN, "/v1/clients", "k-1", &body).await;
    assert_eq!(
        (first.status, first.header("idempotency-replayed")),
        (201, None)
    );
    let again = create(&edge, ADMIN, "/v1/clients", "k-1", &body).await;
    assert_eq!((again.status, &again.text), (201, &first.text));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.header("content-type"), first.header("content-type"));
    let other = create(
        &edge,
        ADMIN,
        "/v1/clients",
        "k-1",
        &json!({"name": "Other"}),
    )
    .await;
    other.problem(422, "idempotency_key_reused");
    assert_eq!(edge.count("client").await, 1);
}

/// As long as it may be without a key.
#[tokio::test]
async fn a_long_list_in_json_may_have_a_key() {
    let edge = Edge::start("once-long").await;
    let (_, key) = edge.tenant("Acme").await;
    let contact = |place| {
        let number = format!("+1415{:07}", 2_000_000 + place);
        json!({"number": number, "fields": {"a": "x".repeat(1000), "b": "y".repeat(1000)}})
    };
    let contacts: Vec<Value> = (0..1600).map(contact).collect();
    let body = json!({"name": "Long", "contacts": contacts});
    assert!(serde_json::to_vec(&body).unwrap().len() > 3 * 1024 * 1024);
    let list = create(&edge, &key, "/v1/lists", "k-1", &body).await;
    assert_eq!(list.expect(201)["accepted"], 1600);
    let other = json!({"name": "Other", "contacts": contacts});
    create(&edge, &key, "/v1/lists", "k-1", &other)
        .await
        .problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn many_at_once_create_one() {
    let edge = Edge::start("once-race").await;
    let body = json!({"name": "Acme"});
    let all = (0..10).map(|_| create(&edge, ADMIN, "/v1/clients", "k-1", &body));
    for answer in futures_util::future::join_all(all).await {
        match answer.status {
            201 => {}
            _ => {
                assert_eq!(answer.header("retry-after"), Some("5"));
                answer.problem(409, "request_in_progress");
            }
        }
    }
    assert_eq!(edge.count("client").await, 1);
}

#[tokio::test]
async fn keys_belong_to_their_client() {
    let edge = Edge::start("once-scope").await;
    let (_, one) = edge.tenant("One").await;
    let (_, other) = edge.tenant("Other").await;
    let body = json!({"name": "May", "contacts": [{"number": "+14155550101"}]});
    let of_one = create(&edge, &one, "/v1/lists", "k-1", &body)
        .await
        .expect(201);
    let of_other = create(&edge, &other, "/v1/lists", "k-1", &body)
        .await
        .expect(201);
    assert_ne!(of_one["id"], of_other["id"]);
}

#[tokio::test]
async fn refused_requests_may_be_tried_again() {
    let edge = Edge::start("once-refused").await;
    create(&edge, ADMIN, "/v1/clients", "k-1", &json!({"name": ""}))
        .await
        .problem(422, "invalid");
    create(&edge, ADMIN, "/v1/clients", "k-1", &json!({"name": "Acme"}))
        .await
        .expect(201);
    for wrong in ["", "with space", &"x".repeat(201)] {
        let answer = create(&edge, ADMIN, "/v1/clients", wrong, &json!({"name": "x"})).await;
        answer.problem(400, "invalid_idempotency_key");
    }
    assert_eq!(edge.count("client").await, 1);
}

#[tokio::test]
async fn a_request_whose_process_died_is_taken_over_after_a_minute() {
    let edge = Edge::start("once-dead").await;
    let body = json!({"name": "Acme"});
    let bytes = serde_json::to_vec(&body).unwrap();
    let ReservedId(reserved) = begin_and_die(&edge, "/v1/clients", "k-1", &bytes)
        .await
        .reserved();
    let waiting = create(&edge, ADMIN, "/v1/clients", "k-1", &body).await;
    waiting.problem(409, "request_in_progress");
    // It had created the client already.
    let id = ObjectId::from_bytes(reserved);
    let clients = edge.database.collection::<Document>("client");
    clients
        .insert_one(doc! { "_id": id, "name": "Acme, as created before" })
        .await
        .unwrap();
    let_a_minute_pass(&edge).await;
    let client = create(&edge, ADMIN, "/v1/clients", "k-1", &body)
        .await
        .expect(201);
    assert_eq!(client["id"], id.to_hex());
    assert_eq!(client["name"], "Acme, as created before");
    assert_eq!(edge.count("client").await, 1);
}

#[tokio::test]
async fn a_retry_after_a_failure_has_the_same_id() {
    let ids = Arc::new(Mutex::new(Vec::new()));
    let seen = ids.clone();
    let edge = Edge::start_with("once-failure", &[], |state, router| {
        let fails_once = async move |NewId(id): NewId<ClientId>| {
            let mut seen = seen.lock().unwrap();
            seen.push(id);
            match seen.len() {
                1 => Err(ApiError::unavailable("not now", 1)),
                _ => Ok(StatusCode::CREATED),
            }
        };
        let routes = OpenApiRouter::new().route("/v1/flaky", post(fails_once));
        let (routes, _) = middleware::guard(routes, state, Pace::Bounded).split_for_parts();
        router.merge(middleware::apply(routes.with_state(state.clone()), state))
    })
    .await;
    let ask = async || create(&edge, ADMIN, "/v1/flaky", "k-1", &json!({})).await;
    ask().await.problem(503, "unavailable");
    assert_eq!(ask().await.status, 201);
    assert_eq!(ask().await.header("idempotency-replayed"), Some("true"));
    let ids = ids.lock().unwrap();
    assert_eq!((ids.len(), ids[0]), (2, ids[1]));
}

#[tokio::test]
async fn one_who_wakes_up_late_changes_nothing() {
    let edge = Edge::start("once-late").await;
    let body = json!({"name": "Acme"});
    let bytes = serde_json::to_vec(&body).unwrap();
    let sleeper = begin_and_die(&edge, "/v1/clients", "k-1", &bytes).await;
    let_a_minute_pass(&edge).await;
    let first = create(&edge, ADMIN, "/v1/clients", "k-1", &body).await;
    sleeper.release().await.unwrap();
    let again = create(&edge, ADMIN, "/v1/clients", "k-1", &body).await;
    assert_eq!((again.text, again.status), (first.text, 201));
}

#[tokio::test]
async fn a_key_is_shown_once_and_stored_nowhere() {
    let edge = Edge::start("once-key").await;
    let client = edge.client("Acme").await;
    let path = format!("/v1/clients/{client}/keys");
    let body = json!({"role": "operator"});
    let key = create(&edge, ADMIN, &path, "k-1", &body).await.expect(201);
    create(&edge, ADMIN, &path, "k-1", &body)
        .await
        .problem(409, "shown_once");
    let records = edge.database.collection::<Document>("idempotencyKeys");
    let record = records.find_one(doc! {}).await.unwrap().unwrap();
    assert!(
        record
            .get_document("answer")
            .unwrap()
            .get("body")
            .is_none_or(|body| body.as_null().is_some())
    );
    edge.get(key["key"].as_str().unwrap(), "/v1/lists")
        .await
        .expect(200);
}

#[tokio::test]
async fn uploads_make_one_list_even_when_the_first_answer_was_lost() {
    let edge = Edge::start("once-upload").await;
    let (client, _) = edge.tenant("Acme").await;
    let path = format!("/v1/lists?clientId={client}");
    let upload_of = async |name: &'static str, file: &'static str| {
        let file = Part::bytes(file.as_bytes().to_vec()).file_name("x.csv");
        let form = Form::new().text("name", name).part("file", file);
        let request = edge
            .request(Method::POST, ADMIN, &path)
            .header("idempotency-key", "k-1");
        send(request.multipart(form)).await
    };
    let upload = async || upload_of("May", "number\n+14155550101\n").await;
    let first = upload().await.expect(201);
    let again = upload().await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.expect(201), first);
    let others = [
        ("May", "number\n+14155550102\n"),
        ("June", "number\n+14155550101\n"),
    ];
    for (name, file) in others {
        upload_of(name, file)
            .await
            .problem(422, "idempotency_key_reused");
    }
    // The list was made, and the process died before its answer was kept.
    let records = edge.database.collection::<Document>("idempotencyKeys");
    records
        .update_one(doc! {}, doc! { "$set": { "answer": null } })
        .await
        .unwrap();
    let_a_minute_pass(&edge).await;
    for (name, file) in others {
        upload_of(name, file)
            .await
            .problem(422, "idempotency_key_reused");
    }
    assert_eq!(upload().await.expect(201), first);
    // The process died in mid-import.
    let lists = edge.database.collection::<Document>("plivo-list");
    let importing = doc! { "$set": { "status": "importing", "updatedAt": DateTime::now() } };
    lists.update_one(doc! {}, importing).await.unwrap();
    records
        .update_one(doc! {}, doc! { "$set": { "answer": null } })
        .await
        .unwrap();
    let_a_minute_pass(&edge).await;
    upload().await.problem(409, "request_in_progress");
    let long_ago = doc! { "$set": { "updatedAt": DateTime::from_millis(0) } };
    lists.update_one(doc! {}, long_ago).await.unwrap();
    let second = upload().await.expect(201);
    assert_ne!(second["id"], first["id"]);
    assert_eq!(
        (
            edge.count("plivo-list").await,
            edge.count("plivo-list-data").await
        ),
        (1, 1)
    );
}
