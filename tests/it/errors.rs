//! Refusals: every one is a problem, tells what is wrong by its path, and writes nothing. Also what the middleware does for
//! every route.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::routing::get;
use reqwest::Method;
use ringmaster::middleware::{self, Pace};
use serde_json::{Value, json};
use tokio::sync::Notify;
use utoipa_axum::router::OpenApiRouter;

use crate::helpers::app::until;
use crate::helpers::edge::{ADMIN, Edge, send};
use crate::helpers::logs;

#[tokio::test]
async fn paths_and_methods_that_do_not_exist() {
    let edge = Edge::start("errors-paths").await;
    edge.get("", "/v1/nothing").await.problem(404, "not_found");
    edge.get(ADMIN, "/").await.problem(404, "not_found");
    let answer = send(edge.request(Method::PUT, ADMIN, "/v1/clients")).await;
    assert_eq!(
        answer.header("allow").map(|allow| allow.contains("POST")),
        Some(true)
    );
    answer.problem(405, "method_not_allowed");
    for resource in ["clients", "lists", "campaigns", "calls"] {
        let (wrong, unknown) = ("not-an-id", "0123456789abcdef01234567");
        let problem = edge
            .get(ADMIN, &format!("/v1/{resource}/{wrong}"))
            .await
            .problem(400, "invalid_id");
        assert_eq!(problem["errors"][0]["path"], "id", "{resource}");
        edge.get(ADMIN, &format!("/v1/{resource}/{unknown}"))
            .await
            .problem(404, "not_found");
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_are_told_by_field_or_line() {
    let edge = Edge::start("errors-bodies").await;
    let fault = async |body: Value| {
        let problem = edge
            .post(ADMIN, "/v1/clients", &body)
            .await
            .problem(422, "invalid");
        problem["errors"][0]["path"].as_str().unwrap().to_owned()
    };
    assert_eq!(fault(json!({"name": "Acme", "limit": 1})).await, "limit");
    assert_eq!(fault(json!({"name": 7})).await, "name");
    assert_eq!(fault(json!({})).await, "name");
    assert_eq!(
        fault(json!({"name": "Acme", "maxConcurrentCalls": -1})).await,
        "maxConcurrentCalls"
    );
    assert_eq!(
        fault(json!({"name": "Acme", "callerIds": ["+14155550100", "x"]})).await,
        "callerIds[1]"
    );

    for path in ["/v1/clients", "/v1/campaigns", "/v1/calls"] {
        let post = || edge.request(Method::POST, ADMIN, path);
        let json_post = || post().header("content-type", "application/json");
        let problem = send(json_post().body("{\n oops"))
            .await
            .problem(400, "invalid_json");
        assert_eq!(problem["errors"][0]["line"], 2, "{path}");
        send(post().body("{}"))
            .await
            .problem(415, "unsupported_media_type");
        send(post().form(&[("name", "Acme")]))
            .await
            .problem(415, "unsupported_media_type");
        let long = format!(r#"{{"name": "{}"}}"#, "x".repeat(2 * 1024 * 1024));
        send(json_post().body(long))
            .await
            .problem(413, "payload_too_large");
    }
    for collection in ["client", "plivoCampaign", "activeCalls"] {
        assert_eq!(edge.count(collection).await, 0, "{collection}");
    }
}

#[tokio::test]
async fn query_parameters_that_cannot_be() {
    let edge = Edge::start("errors-query").await;
    for (query, path) in [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("cursor=oops", "cursor"),
        ("pages=2", "pages"),
    ] {
        let answer = edge.get(ADMIN, &format!("/v1/clients?{query}")).await;
        let problem = answer.problem(400, "invalid_query");
        assert_eq!(problem["errors"][0]["path"], path, "{query}");
    }
}

#[tokio::test]
async fn request_ids_go_in_and_out() {
    let edge = Edge::start("errors-ids").await;
    let with_id = |id: &str| {
        edge.request(Method::GET, "", "/health/live")
            .header("x-request-id", id)
    };
    assert_eq!(
        send(with_id("abc-1")).await.header("x-request-id"),
        Some("abc-1")
    );
    let replaced = send(with_id("+14155550123")).await;
    assert_eq!(replaced.header("x-request-id").map(str::len), Some(36));
}

#[tokio::test]
async fn browsers_are_told_what_they_may_do() {
    let edge = Edge::start_with(
        "errors-browsers",
        &[("ALLOWED_ORIGINS", "https://ui.example")],
        |_, router| router,
    )
    .await;
    let answer = edge.get("", "/v1/nothing").await;
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("x-frame-options"), Some("DENY"));
    assert!(
        answer
            .header("content-security-policy")
            .unwrap()
            .contains("frame-ancestors 'none'")
    );

    let from = async |origin: &str| {
        let request = edge.request(Method::OPTIONS, "", "/v1/clients");
        let request = request.header("access-control-request-method", "POST");
        let request = request.header("access-control-request-headers", "idempotency-key");
        let answer = send(request.header("origin", origin)).await;
        answer
            .header("access-control-allow-origin")
            .map(str::to_owned)
    };
    assert_eq!(
        from("https://ui.example").await.as_deref(),
        Some("https://ui.example")
    );
    assert_eq!(from("https://evil.example").await, None);
}

#[tokio::test]
async fn a_panic_is_a_problem_and_the_process_goes_on() {
    let edge = Edge::start_with("errors-panic", &[], |state, router| {
        let panics = async || -> &'static str { panic!("on purpose, about +14155550199") };
        let guarded = OpenApiRouter::new().route("/v1/panic", get(panics));
        let (guarded, _) = middleware::guard(guarded, state, Pace::Bounded).split_for_parts();
        let open = axum::Router::new().route("/panic", get(panics));
        let added = guarded.with_state(state.clone()).merge(open);
        router.merge(middleware::apply(added, state))
    })
    .await;
    for path in ["/panic", "/v1/panic"] {
        let problem = edge.get(ADMIN, path).await.problem(500, "internal");
        assert!(!problem.to_string().contains("purpose"));
    }
    edge.get("", "/health/live").await.expect(200);
}

#[tokio::test]
async fn work_goes_on_when_the_caller_goes_away() {
    let (release, done) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (released, is_done) = (release.clone(), done.clone());
    let edge = Edge::start_with("errors-detach", &[], |state, router| {
        let slow = async move || {
            released.notified().await;
            is_done.store(true, Ordering::SeqCst);
            "done"
        };
        let routes = OpenApiRouter::new().route("/v1/slow", get(slow));
        let (routes, _) = middleware::guard(routes, state, Pace::Bounded).split_for_parts();
        router.merge(middleware::apply(routes.with_state(state.clone()), state))
    })
    .await;
    let request = edge.request(Method::GET, ADMIN, "/v1/slow");
    let gone = request.timeout(Duration::from_millis(300)).send().await;
    assert!(gone.unwrap_err().is_timeout());
    release.notify_one();
    until("the work is done", async || done.load(Ordering::SeqCst)).await;
}

#[tokio::test]
async fn without_the_database_the_api_says_when_to_come_back() {
    let unreachable = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200&directConnection=true";
    let settings = [("MONGODB_URI", unreachable)];
    let edge = Edge::start_with("errors-away", &settings, |_, router| router).await;
    edge.get("", "/health/live").await.expect(200);
    assert_eq!(
        edge.get("", "/health/ready").await.expect(503)["status"],
        "unavailable"
    );
    assert_eq!(edge.get("", "/health").await.expect(200)["database"], false);
    for (key, path) in [
        (ADMIN, "/v1/clients"),
        ("rm_unknown", "/v1/lists"),
        (ADMIN, "/v1/lists"),
    ] {
        let answer = edge.get(key, path).await;
        assert_eq!(answer.header("retry-after"), Some("2"));
        answer.problem(503, "unavailable");
    }
}

#[tokio::test]
async fn a_stopping_process_is_not_ready() {
    let edge = Edge::start("errors-stopping").await;
    assert_eq!(
        edge.get("", "/health/ready").await.expect(200)["status"],
        "ok"
    );
    edge.state.lifecycle.stop();
    assert_eq!(
        edge.get("", "/health/ready").await.expect(503)["status"],
        "stopping"
    );
}

#[tokio::test]
async fn the_log_has_a_line_for_each_request() {
    let edge = Edge::start("errors-log").await;
    let (client, key) = edge.tenant("Acme").await;
    let body = json!({"name": "Friends", "contacts": [{"number": "+919812345678"}]});
    let request = edge.request(Method::POST, &key, "/v1/lists").json(&body);
    send(request.header("x-request-id", "log-test-1"))
        .await
        .expect(201);
    let lines = logs::lines();
    let line = lines
        .iter()
        .find(|line| line.contains("log-test-1"))
        .unwrap();
    assert!(
        line.contains("\"http.route\":\"/v1/lists\"") && line.contains("\"http.status\":201"),
        "{line}"
    );
    assert!(line.contains(&client));
}
