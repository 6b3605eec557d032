//! The carrier simulator from outside, by plain HTTP and a receiver of webhooks: what it promises to be like.

mod books;
mod dial;
mod documents;
mod faults;
mod lookup;
mod webhooks;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use reqwest::Client;
use ringmaster::services::carrier::plivo_signature::verify_v3;
use ringmaster::simulator::{
    ApiLimit, DialRecord, EventKind, MsRange, OutcomeMix, Simulator, SimulatorOptions,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::form_urlencoded;

const AUTH_ID: &str = "MATEST00000000000000";
const TOKEN: &str = "test-token";
const FROM: &str = "+15550100001";
const TO: &str = "15550100002";

/// One webhook as it arrived.
#[derive(Clone, Debug)]
struct Hook {
    method: String,
    path: String,
    query: String,
    body: String,
    content_type: String,
    signature: String,
    signed: bool,
}

impl Hook {
    /// Decoded parameters of a POST body, or of the query of a GET.
    fn params(&self) -> BTreeMap<String, String> {
        let source = if self.method == "GET" {
            &self.query
        } else {
            &self.body
        };
        form_urlencoded::parse(source.as_bytes())
            .into_owned()
            .collect()
    }

    fn event(&self) -> String {
        self.params().remove("Event").unwrap_or_default()
    }
}

/// What the receiver answers at a path.
#[derive(Clone)]
struct Answer {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn xml(content: &str) -> Self {
        Self {
            status: 200,
            content_type: "application/xml",
            body: format!("<Response>{content}</Response>"),
        }
    }

    fn status(status: u16) -> Self {
        Self {
            status,
            content_type: "text/plain",
            body: String::new(),
        }
    }
}

#[derive(Default)]
struct Inbox {
    hooks: Vec<Hook>,
    /// Answers by path: each is used once, the last one for ever.
    answers: HashMap<String, VecDeque<Answer>>,
}

/// The service's side: takes webhooks, checks their signatures, answers as told (a short Speak by default).
struct Receiver {
    base: String,
    inbox: Arc<Mutex<Inbox>>,
}

#[derive(Clone)]
struct ReceiverState {
    base: String,
    inbox: Arc<Mutex<Inbox>>,
}

impl Receiver {
    #[expect(
        clippy::disallowed_methods,
        reason = "the receiver is a server of its own, which ends with the test's runtime"
    )]
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let state = ReceiverState {
            base: base.clone(),
            inbox: Arc::clone(&inbox),
        };
        let app = Router::new().fallback(receive).with_state(state);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { base, inbox }
    }

    fn answers(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.inbox
            .lock()
            .unwrap()
            .answers
            .insert(path.to_owned(), answers.into_iter().collect());
    }

    fn hooks(&self) -> Vec<Hook> {
        self.inbox.lock().unwrap().hooks.clone()
    }

    fn events(&self) -> Vec<String> {
        self.hooks().iter().map(Hook::event).collect()
    }

    fn at(&self, path: &str) -> Vec<Hook> {
        self.hooks()
            .into_iter()
            .filter(|hook| hook.path == path)
            .collect()
    }

    async fn wait_for(&self, path: &str, count: usize) -> Vec<Hook> {
        until(&format!("{count} webhooks at {path}"), || {
            self.at(path).len() >= count
        })
        .await;
        self.at(path)
    }
}

async fn receive(
    State(state): State<ReceiverState>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let body = String::from_utf8(body.to_vec()).unwrap();
    let url = format!("{}{uri}", state.base);
    let params: Vec<(String, String)> = form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
    let verify = |header: &str| {
        verify_v3(
            method.as_str(),
            &url,
            &params,
            &text("x-plivo-signature-v3-nonce"),
            &text(header),
            [TOKEN].into_iter(),
        )
    };
    let hook = Hook {
        method: method.to_string(),
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        content_type: text("content-type"),
        signature: text("x-plivo-signature-v3"),
        signed: verify("x-plivo-signature-v3") && verify("x-plivo-signature-ma-v3"),
        body,
    };
    let mut inbox = state.inbox.lock().unwrap();
    let answer = match inbox.answers.get_mut(&hook.path) {
        Some(answers) if answers.len() > 1 => answers.pop_front().unwrap(),
        Some(answers) => answers.front().cloned().unwrap(),
        None => Answer::xml("<Speak>Hello</Speak>"),
    };
    inbox.hooks.push(hook);
    let status = StatusCode::from_u16(answer.status).unwrap();
    (
        status,
        [(header::CONTENT_TYPE, answer.content_type)],
        answer.body,
    )
        .into_response()
}

/// Polls until a condition holds.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited in vain for {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A carrier, a receiver and a client of both.
struct World {
    carrier: Simulator,
    receiver: Receiver,
    client: Client,
}

/// Quick and predictable: everybody answers, nothing takes long, nothing is limited.
fn options() -> SimulatorOptions {
    SimulatorOptions {
        auth_id: AUTH_ID.to_owned(),
        auth_tokens: vec![TOKEN.to_owned()],
        cps: 0,
        api_limit: ApiLimit {
            requests: 0,
            window_ms: 1,
        },
        seed: Some(7),
        outcome_mix: OutcomeMix::ANSWERED,
        ring_delay_ms: MsRange::exactly(5),
        ring_duration_ms: MsRange::exactly(20),
        talk_duration_ms: MsRange::exactly(30),
        machine_detection_ms: MsRange::exactly(5),
        cdr_delay_ms: 0,
        webhook_retry_spacing_ms: 5,
        ..SimulatorOptions::default()
    }
}

/// Calls ring for ever, so that they are there to be looked at.
fn ringing() -> SimulatorOptions {
    SimulatorOptions {
        ring_duration_ms: MsRange::exactly(3_600_000),
        ..options()
    }
}

/// Calls talk for ever.
fn talking() -> SimulatorOptions {
    SimulatorOptions {
        talk_duration_ms: MsRange::exactly(3_600_000),
        ..options()
    }
}

impl World {
    async fn with(options: SimulatorOptions) -> Self {
        Self::at("127.0.0.1:0", options).await
    }

    async fn at(address: &str, options: SimulatorOptions) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let client = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        Self {
            carrier: Simulator::start(listener, options).await.unwrap(),
            receiver: Receiver::start().await,
            client,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v1/Account/{AUTH_ID}/{path}", self.carrier.base_url())
    }

    /// A dial request's body, with callbacks for every event and the given changes (null removes a field).
    fn body(&self, changes: &Value) -> Value {
        let base = &self.receiver.base;
        let mut body = json!({
            "from": FROM,
            "to": TO,
            "answer_url": format!("{base}/answer?call=c1&dial=d1&client=cl1&campaign=ca1"),
            "ring_url": format!("{base}/ring?call=c1"),
            "hangup_url": format!("{base}/hangup?call=c1"),
        });
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                body.as_object_mut().unwrap().remove(name);
            } else {
                body[name] = value.clone();
            }
        }
        body
    }

    async fn dial_raw(&self, changes: Value) -> reqwest::Result<reqwest::Response> {
        let body = self.body(&changes);
        self.client
            .post(self.url("Call/"))
            .basic_auth(AUTH_ID, Some(TOKEN))
            .json(&body)
            .send()
            .await
    }

    async fn dial(&self, changes: Value) -> String {
        let response = self.dial_raw(changes).await.unwrap();
        assert_eq!(response.status(), 201);
        let body: Value = response.json().await.unwrap();
        body["request_uuid"].as_str().unwrap().to_owned()
    }

    async fn refused(&self, changes: Value) -> (u16, String) {
        let response = self.dial_raw(changes).await.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        assert!(body["api_id"].is_string());
        (status, body["error"].as_str().unwrap().to_owned())
    }

    async fn api(&self, method: Method, path: &str) -> (u16, Value) {
        let response = self
            .client
            .request(method, self.url(path))
            .basic_auth(AUTH_ID, Some(TOKEN))
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.api(Method::GET, path).await
    }

    async fn delete(&self, path: &str) -> u16 {
        self.api(Method::DELETE, path).await.0
    }

    fn record(&self, uuid: &str) -> DialRecord {
        let wanted = |record: &DialRecord| record.request_uuid.as_deref() == Some(uuid);
        self.carrier
            .calls()
            .into_iter()
            .find(wanted)
            .expect("the call is in the books")
    }

    async fn reached(&self, uuid: &str, status: &str) {
        until(&format!("status {status}"), || {
            self.record(uuid).status == status
        })
        .await;
    }

    /// The call once it is over and its hangup webhook was tried.
    async fn ended(&self, uuid: &str) -> DialRecord {
        let told = |record: &DialRecord| {
            record
                .deliveries
                .iter()
                .any(|delivery| delivery.kind == EventKind::Hangup)
        };
        until("the end of a call", || {
            let record = self.record(uuid);
            record.hangup.is_some() && told(&record)
        })
        .await;
        self.record(uuid)
    }

    async fn outcome(&self, changes: Value) -> (u16, &'static str, &'static str) {
        let uuid = self.dial(changes).await;
        let record = self.ended(&uuid).await;
        let hangup = record.hangup.unwrap();
        (hangup.code, hangup.source, record.status)
    }
}

/// The names in a body of `fixtures.json`.
fn fixture_names(body: &str) -> BTreeSet<String> {
    let fixtures: Value = serde_json::from_str(include_str!("../data/fixtures.json")).unwrap();
    let body = fixtures["webhook_bodies"][body]
        .as_str()
        .unwrap()
        .to_owned();
    form_urlencoded::parse(body.as_bytes())
        .map(|(name, _)| name.into_owned())
        .collect()
}

fn names(hook: &Hook) -> BTreeSet<String> {
    hook.params().into_keys().collect()
}
