//! The carrier simulator from outside, by plain HTTP and a receiver of webhooks: what it promises to be like.

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
    ApiLimit, DialFaults, DialRecord, EventFaults, EventKind, Fault, LookupFaults, MsRange,
    Outcome, OutcomeMix, Simulator, SimulatorError, SimulatorOptions, WebhookFaults,
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

fn assert_byte_sorted(encoded: &str) {
    let pairs: Vec<(String, String)> = form_urlencoded::parse(encoded.as_bytes())
        .into_owned()
        .collect();
    assert!(pairs.is_sorted(), "not sorted: {encoded}");
}

#[tokio::test]
async fn an_answered_call_tells_its_life_in_plivos_words() {
    let world = World::with(options()).await;
    let response = world
        .dial_raw(json!({"caller_name": "Ring Master"}))
        .await
        .unwrap();
    assert_eq!(response.status(), 201);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["message"], "call fired");
    assert!(body["api_id"].is_string());
    let uuid = body["request_uuid"].as_str().unwrap();
    let record = world.ended(uuid).await;
    world.receiver.wait_for("/hangup", 1).await;

    let ring = &world.receiver.at("/ring")[0];
    let answer = &world.receiver.at("/answer")[0];
    let hangup = &world.receiver.at("/hangup")[0];
    for hook in [ring, answer, hangup] {
        assert!(hook.signed, "{} is not signed", hook.path);
        assert_eq!(
            (hook.method.as_str(), hook.content_type.as_str()),
            ("POST", "application/x-www-form-urlencoded")
        );
        assert_byte_sorted(&hook.body);
        let params = hook.params();
        assert_eq!(
            (params["CallUUID"].as_str(), params["RequestUUID"].as_str()),
            (uuid, uuid)
        );
        assert_eq!(
            (params["To"].as_str(), params["ParentAuthID"].as_str()),
            (TO, AUTH_ID)
        );
    }
    assert_eq!(answer.query, "call=c1&dial=d1&client=cl1&campaign=ca1");
    assert_eq!(names(ring), fixture_names("ring_POST"));
    let mut india = fixture_names("answer_POST");
    india.extend([
        "ComplianceApplicationId".to_owned(),
        "ComplianceStatus".to_owned(),
    ]);
    assert_eq!(names(answer), india);
    assert_eq!(names(hangup), fixture_names("hangup_answered_callee_POST"));

    // The `+` comes and goes; the clock of the session is UTC and that of the call is the account's.
    assert_eq!(ring.params()["From"], FROM);
    assert_eq!(answer.params()["From"], FROM.trim_start_matches('+'));
    assert_eq!(hangup.params()["From"], FROM.trim_start_matches('+'));
    assert_eq!(ring.params()["CallerName"], "Ring Master");
    let time = |text: &str, form| chrono::NaiveDateTime::parse_from_str(text, form).unwrap();
    let params = hangup.params();
    let session = time(&params["SessionStart"], "%Y-%m-%d %H:%M:%S%.6f");
    let start = time(&params["StartTime"], "%Y-%m-%d %H:%M:%S");
    assert_eq!(
        (start - session).num_minutes(),
        330 - i64::from(session.and_utc().timestamp_subsec_micros() > 0)
    );
    time(&params["AnswerTime"], "%Y-%m-%d %H:%M:%S");
    assert_eq!(
        (params["Duration"].as_str(), params["BillDuration"].as_str()),
        ("1", "60")
    );
    assert_eq!(
        (params["TotalCost"].as_str(), params["BillRate"].as_str()),
        ("0.00500", "0.005")
    );
    assert_eq!(params["HangupCauseCode"], "4010");
    assert_eq!(params["HangupCauseName"], "End Of XML Instructions");
    assert_eq!(params["CallStatus"], "completed");

    let happened: Vec<&str> = record.timeline.iter().map(|moment| moment.event).collect();
    assert_eq!(
        happened,
        [
            "accepted",
            "initiated",
            "ringing",
            "in-progress",
            "completed"
        ]
    );
    assert!(record.timeline.is_sorted_by_key(|moment| moment.at_ms));
    assert!(record.answered && record.accepted && record.requested_at_ms > 0);
    assert_eq!(record.params["campaign"], "ca1");
}

#[tokio::test]
async fn an_unanswered_call_keeps_the_plus_and_has_no_answer_time() {
    let world = World::with(SimulatorOptions {
        outcome_mix: OutcomeMix {
            busy: 1.0,
            ..OutcomeMix::NONE
        },
        ..options()
    })
    .await;
    assert_eq!(world.outcome(json!({})).await, (3010, "Carrier", "busy"));
    let hangup = &world.receiver.wait_for("/hangup", 1).await[0];
    assert!(hangup.signed && hangup.body.contains("AnswerTime=&"));
    assert_eq!(names(hangup), fixture_names("hangup_busy_unanswered_POST"));
    assert_eq!(hangup.params()["From"], FROM);
    assert_eq!(hangup.params()["TotalCost"], "0.00000");
    assert_eq!(world.receiver.events(), ["Hangup"]);
}

#[tokio::test]
async fn the_outcome_of_a_number_is_chosen_exactly() {
    let cases = [
        (
            "15550100011",
            Outcome::Busy,
            (3010, "Carrier", "busy"),
            false,
        ),
        (
            "15550100012",
            Outcome::NoAnswer,
            (3000, "Carrier", "no-answer"),
            true,
        ),
        (
            "15550100013",
            Outcome::RingTimeout,
            (6010, "Plivo", "timeout"),
            true,
        ),
        (
            "15550100014",
            Outcome::Rejected,
            (3020, "Carrier", "failed"),
            true,
        ),
        (
            "15550100015",
            Outcome::Invalid,
            (2000, "Carrier", "failed"),
            false,
        ),
        (
            "15550100016",
            Outcome::Unreachable,
            (2010, "Carrier", "failed"),
            false,
        ),
        (
            "15550100017",
            Outcome::Failed,
            (3080, "Carrier", "failed"),
            false,
        ),
        (
            "15550100018",
            Outcome::Cause(3130),
            (3130, "Carrier", "failed"),
            false,
        ),
        (
            "15550100019",
            Outcome::Machine,
            (4010, "Plivo", "completed"),
            true,
        ),
    ];
    let outcome_by_number = cases
        .iter()
        .map(|case| (format!("+{}", case.0), case.1))
        .collect();
    let world = World::with(SimulatorOptions {
        outcome_by_number,
        ..options()
    })
    .await;
    for (to, outcome, expected, rings) in cases {
        let ring_url = format!("{}/ring-{to}", world.receiver.base);
        let changes = json!({"to": to, "ring_url": ring_url, "ring_timeout": if outcome == Outcome::RingTimeout { 0 } else { 60 }});
        assert_eq!(world.outcome(changes).await, expected, "{outcome:?}");
        if rings {
            world.receiver.wait_for(&format!("/ring-{to}"), 1).await;
        } else {
            assert!(world.receiver.at(&format!("/ring-{to}")).is_empty());
        }
    }
}

#[tokio::test]
async fn the_mix_follows_its_seed() {
    let mix = OutcomeMix {
        answered: 1.0,
        busy: 1.0,
        invalid: 1.0,
        ..OutcomeMix::NONE
    };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let world = World::with(SimulatorOptions {
            outcome_mix: mix,
            ..options()
        })
        .await;
        let mut codes = Vec::new();
        for _ in 0..12 {
            codes.push(world.outcome(json!({})).await.0);
        }
        runs.push(codes);
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].iter().collect::<BTreeSet<_>>().len() > 1);
}

#[tokio::test]
async fn get_callbacks_merge_their_parameters_into_the_query() {
    let world = World::with(options()).await;
    let answer_url = format!("{}/answer?call=c1&z=%2B1+2&Duration=x", world.receiver.base);
    world.outcome(json!({"answer_url": answer_url, "answer_method": "GET", "hangup_method": "get", "ring_url": null})).await;
    for path in ["/answer", "/hangup"] {
        let hook = &world.receiver.wait_for(path, 1).await[0];
        assert!(hook.signed && hook.body.is_empty());
        assert_eq!(hook.method, "GET");
        assert_byte_sorted(&hook.query);
        assert_eq!(hook.params()["call"], "c1");
    }
    let params = world.receiver.at("/answer")[0].params();
    assert_eq!(
        (params["z"].as_str(), params["Event"].as_str()),
        ("+1 2", "StartApp")
    );
    assert!(world.receiver.at("/answer")[0].query.contains("z=%2B1+2"));
}

#[tokio::test]
async fn the_hangup_goes_to_the_answer_url_if_it_has_none_of_its_own() {
    let world = World::with(options()).await;
    world
        .outcome(json!({"hangup_url": null, "ring_url": null}))
        .await;
    let hooks = world.receiver.wait_for("/answer", 2).await;
    let events: Vec<String> = hooks.iter().map(Hook::event).collect();
    assert_eq!(events, ["StartApp", "Hangup"]);
}

#[tokio::test]
async fn sip_headers_ride_on_every_webhook() {
    let world = World::with(options()).await;
    world.outcome(json!({"sip_headers": "attempt=7"})).await;
    world.receiver.wait_for("/hangup", 1).await;
    assert!(
        world
            .receiver
            .hooks()
            .iter()
            .all(|hook| hook.params()["X-PH-attempt"] == "7" && hook.signed)
    );
}

#[tokio::test]
async fn every_active_token_signs_and_is_accepted() {
    let world = World::with(SimulatorOptions {
        auth_tokens: vec!["older-token".to_owned(), TOKEN.to_owned()],
        ..options()
    })
    .await;
    world.outcome(json!({})).await;
    let hook = &world.receiver.wait_for("/hangup", 1).await[0];
    assert!(hook.signed);
    assert_eq!(hook.signature.split(',').count(), 2);
}

#[tokio::test]
async fn what_plivo_refuses_is_refused_and_written_down() {
    let world = World::with(SimulatorOptions {
        caller_ids: vec![FROM.to_owned(), "+15550100008".to_owned()],
        pending_caller_ids: vec!["+15550100008".to_owned()],
        ..options()
    })
    .await;
    for field in ["from", "to", "answer_url"] {
        let refusal = world.refused(json!({field: null})).await;
        assert_eq!(refusal, (400, format!("{field} parameter is missing")));
    }
    let (status, text) = world.refused(json!({"from": "+15550100009"})).await;
    assert!(status == 400 && text.starts_with("from parameter is invalid."));
    let (status, text) = world.refused(json!({"from": "+15550100008"})).await;
    assert!(status == 400 && text.contains("compliance application"));
    for changes in [
        json!({"to": FROM}),
        json!({"to": "15550100002<15550100003"}),
        json!({"to": "12"}),
        json!({"answer_url": "nowhere"}),
        json!({"time_limit": 0}),
    ] {
        assert_eq!(world.refused(changes).await.0, 400);
    }

    let send = |id: &'static str, token: &'static str, account: &'static str| {
        let url = format!("{}/v1/Account/{account}/Call/", world.carrier.base_url());
        world
            .client
            .post(url)
            .basic_auth(id, Some(token))
            .json(&world.body(&json!({})))
            .send()
    };
    for (id, token, account) in [
        (AUTH_ID, "wrong", AUTH_ID),
        ("MAOTHER", TOKEN, AUTH_ID),
        (AUTH_ID, TOKEN, "MAOTHER"),
    ] {
        assert_eq!(send(id, token, account).await.unwrap().status(), 401);
    }
    let no_auth = world
        .client
        .post(world.url("Call/"))
        .json(&world.body(&json!({})))
        .send()
        .await
        .unwrap();
    assert_eq!(no_auth.status(), 401);
    let form = world
        .client
        .post(world.url("Call/"))
        .basic_auth(AUTH_ID, Some(TOKEN))
        .form(&[("from", FROM)])
        .send();
    assert_eq!(form.await.unwrap().status(), 400);
    assert_eq!(world.get("Nothing/").await.0, 404);
    assert_eq!(world.api(Method::PUT, "Call/").await.0, 405);

    let stats = world.carrier.stats();
    assert_eq!((stats.requests, stats.accepted, stats.refused), (15, 0, 15));
    assert_eq!(
        stats.refused_by_status,
        BTreeMap::from([("400".to_owned(), 11), ("401".to_owned(), 4)])
    );
    let reasons: BTreeSet<&str> = world
        .carrier
        .calls()
        .iter()
        .map(|record| record.refusal.as_ref().unwrap().reason)
        .collect();
    assert_eq!(
        reasons,
        BTreeSet::from(["authentication", "caller id", "invalid request"])
    );
    assert!(world.receiver.hooks().is_empty());
}

#[tokio::test]
async fn above_cps_calls_are_queued_and_can_be_cancelled() {
    let world = World::with(SimulatorOptions {
        cps: 1,
        ..ringing()
    })
    .await;
    let mut messages = Vec::new();
    let mut uuids = Vec::new();
    for _ in 0..20 {
        let body: Value = world
            .dial_raw(json!({}))
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        messages.push(body["message"].clone());
        uuids.push(body["request_uuid"].as_str().unwrap().to_owned());
    }
    assert_eq!(messages[0], "call fired");
    assert_eq!(messages[19], "call queued");
    let (last, before, first_cancelled) = (&uuids[19], &uuids[18], &uuids[17]);
    let (status, view) = world.get(&format!("Call/{last}/?status=queued")).await;
    assert_eq!(
        (status, &view["call_status"], &view["call_uuid"]),
        (200, &json!("queued"), &json!(last))
    );
    assert_eq!(world.get(&format!("Call/{last}/?status=live")).await.0, 404);
    let (_, queued) = world.get("Call/?status=queued").await;
    assert!(queued["calls"].as_array().unwrap().contains(&json!(last)));

    // The second one starts by itself when its turn comes.
    world.reached(&uuids[1], "ringing").await;

    assert_eq!(world.delete(&format!("Request/{last}/")).await, 204);
    assert_eq!(world.delete(&format!("Call/{before}/")).await, 204);
    for uuid in [last, before] {
        let record = world.ended(uuid).await;
        let hangup = record.hangup.unwrap();
        assert_eq!(
            (hangup.code, hangup.source, record.status),
            (1000, "API Request", "cancel")
        );
    }
    assert_eq!(world.delete(&format!("Request/{last}/")).await, 404);
    assert_eq!(world.delete(&format!("Request/{}/", uuids[0])).await, 404);

    world
        .carrier
        .patch_options(&json!({"hangupWebhookForQueued": false}))
        .unwrap();
    assert_eq!(world.delete(&format!("Call/{first_cancelled}/")).await, 204);
    assert_eq!(world.delete(&format!("Call/{}/", uuids[0])).await, 204);
    world.ended(&uuids[0]).await;
    assert!(world.record(first_cancelled).deliveries.is_empty());
    assert_eq!(world.carrier.stats().peak_live, 20);
}

#[tokio::test]
async fn over_the_api_limit_is_429_for_dials_and_look_ups() {
    let world = World::with(SimulatorOptions {
        api_limit: ApiLimit {
            requests: 2,
            window_ms: 3_600_000,
        },
        ..options()
    })
    .await;
    world.dial(json!({})).await;
    assert_eq!(world.get("Call/?status=live").await.0, 200);
    assert_eq!(
        world.refused(json!({})).await,
        (429, "Too Many Requests".to_owned())
    );
    assert_eq!(world.get("Call/?status=live").await.0, 429);
    assert_eq!(
        world.carrier.stats().refused_by_status,
        BTreeMap::from([("429".to_owned(), 1)])
    );
}

#[tokio::test]
async fn the_concurrency_limit_refuses_or_breaks_queued_calls() {
    let world = World::with(SimulatorOptions {
        cps: 1,
        ..ringing()
    })
    .await;
    let mut uuids = Vec::new();
    for _ in 0..5 {
        uuids.push(world.dial(json!({})).await);
    }
    world
        .carrier
        .patch_options(&json!({"concurrencyLimit": 1}))
        .unwrap();
    let record = world.ended(&uuids[4]).await;
    assert_eq!(
        (record.hangup.unwrap().code, record.status),
        (5030, "failed")
    );
    assert_eq!(
        world.refused(json!({})).await,
        (403, "Concurrency Limit Breached".to_owned())
    );
    assert_eq!(world.delete("Call/").await, 204);
    world.dial(json!({})).await;
}

#[tokio::test]
async fn without_credit_every_call_ends_at_once() {
    let world = World::with(SimulatorOptions {
        out_of_credit: true,
        ..options()
    })
    .await;
    assert_eq!(world.outcome(json!({})).await, (1010, "Plivo", "failed"));
}

#[tokio::test]
async fn live_calls_can_be_listed_and_looked_at() {
    let world = World::with(ringing()).await;
    let mut uuids = Vec::new();
    for index in 0..23 {
        uuids.push(
            world
                .dial(json!({"to": format!("155501002{index:02}")}))
                .await,
        );
    }
    world.reached(&uuids[0], "ringing").await;
    let (status, view) = world.get(&format!("Call/{}/?status=live", uuids[0])).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&view["call_status"], &view["direction"]),
        (&json!("ringing"), &json!("outbound"))
    );
    assert_eq!(
        (&view["from"], &view["to"]),
        (&json!(FROM), &json!("15550100200"))
    );
    assert_eq!(view["request_uuid"], json!(uuids[0]));
    assert!(view["session_start"].is_string());

    let listed = |body: Value| body["calls"].as_array().unwrap().len();
    assert_eq!(listed(world.get("Call/?status=live").await.1), 20);
    assert_eq!(listed(world.get("Call/?status=live&offset=20").await.1), 3);
    assert_eq!(
        listed(world.get("Call/?status=live&limit=5&offset=1").await.1),
        5
    );
    assert_eq!(listed(world.get("Call/?status=queued").await.1), 0);
    assert_eq!(
        listed(world.get("Call/?status=live&to_number=15550100207").await.1),
        1
    );
    assert_eq!(
        listed(
            world
                .get("Call/?status=live&from_number=%2B15550100001&limit=1")
                .await
                .1
        ),
        1
    );
    assert_eq!(
        listed(
            world
                .get("Call/?status=live&call_direction=inbound")
                .await
                .1
        ),
        0
    );
    for bad in ["limit=21", "limit=0", "limit=x", "offset=-1", "status=dead"] {
        assert_eq!(
            world
                .get(&format!("Call/?status=live&{bad}").replace("live&status=", ""))
                .await
                .0,
            400,
            "{bad}"
        );
    }
    assert_eq!(world.get(&format!("Call/{}/", uuids[0])).await.0, 404);
    assert_eq!(world.get("Call/unknown/?status=live").await.0, 404);
}

/// One call that was answered, then one to a busy line.
async fn two_ended_calls(world: &World) -> (String, String) {
    let answered = world.dial(json!({})).await;
    world.ended(&answered).await;
    world
        .carrier
        .patch_options(&json!({"outcomeByNumber": {"15550100077": "busy"}}))
        .unwrap();
    let busy = world.dial(json!({"to": "15550100077"})).await;
    world.ended(&busy).await;
    (answered, busy)
}

#[tokio::test]
async fn detail_records_come_late_and_say_how_it_was() {
    let world = World::with(SimulatorOptions {
        cdr_delay_ms: 3_600_000,
        ..options()
    })
    .await;
    let (answered, busy) = two_ended_calls(&world).await;
    assert_eq!(world.get(&format!("Call/{answered}/")).await.0, 404);
    assert_eq!(world.get("Call/").await.1["meta"]["total_count"], 0);

    world
        .carrier
        .patch_options(&json!({"cdrDelayMs": 0}))
        .unwrap();
    let (status, cdr) = world.get(&format!("Call/{answered}/")).await;
    assert_eq!(status, 200);
    let fixtures: Value = serde_json::from_str(include_str!("../data/fixtures.json")).unwrap();
    for name in fixtures["api_responses"]["cdr_unanswered"]["body"]
        .as_object()
        .unwrap()
        .keys()
    {
        assert!(cdr.get(name).is_some(), "{name} is missing");
    }
    assert_eq!(
        (&cdr["hangup_cause_code"], &cdr["hangup_source"]),
        (&json!(4010), &json!("Plivo"))
    );
    assert_eq!(
        (&cdr["bill_duration"], &cdr["billed_duration"]),
        (&json!(1), &json!(60))
    );
    assert_eq!(
        (&cdr["from_number"], &cdr["to_number"]),
        (&json!(FROM), &json!(TO))
    );
    assert_eq!(
        (&cdr["total_amount"], &cdr["total_rate"]),
        (&json!("0.00500"), &json!("0.00500"))
    );
    assert!(cdr["answer_time"].as_str().unwrap().ends_with("+05:30"));
    assert!(cdr.get("request_uuid").is_none());
    let (_, unanswered) = world.get(&format!("Call/{busy}/")).await;
    assert_eq!(
        (&unanswered["answer_time"], &unanswered["call_duration"]),
        (&Value::Null, &json!(0))
    );
}

#[tokio::test]
async fn detail_records_are_listed_by_utc_time() {
    let world = World::with(options()).await;
    let (answered, busy) = two_ended_calls(&world).await;
    let (_, cdr) = world.get(&format!("Call/{answered}/")).await;
    let ended_at =
        chrono::DateTime::parse_from_str(cdr["end_time"].as_str().unwrap(), "%Y-%m-%d %H:%M:%S%:z")
            .unwrap();
    let utc = |minutes: i64| {
        let time = ended_at.to_utc() + chrono::TimeDelta::minutes(minutes);
        form_urlencoded::byte_serialize(time.format("%Y-%m-%d %H:%M:%S").to_string().as_bytes())
            .collect::<String>()
    };
    let count = async |query: String| {
        let (status, body) = world.get(&format!("Call/?{query}")).await;
        assert_eq!(status, 200, "{query}");
        body["meta"]["total_count"].as_u64().unwrap()
    };
    assert_eq!(count(String::new()).await, 2);
    assert_eq!(count(format!("to_number={TO}")).await, 1);
    assert_eq!(count("to_number=155501".to_owned()).await, 2);
    assert_eq!(count("from_number=15550100009".to_owned()).await, 0);
    assert_eq!(
        count(format!("end_time__gt={}&end_time__lt={}", utc(-5), utc(5))).await,
        2
    );
    assert_eq!(count(format!("end_time__gte={}", utc(5))).await, 0);
    assert_eq!(count(format!("end_time__lte={}", utc(-5))).await, 0);
    assert_eq!(count("hangup_cause_code=3010".to_owned()).await, 1);
    assert_eq!(count("hangup_source=Carrier".to_owned()).await, 1);
    assert_eq!(count("bill_duration__gt=0".to_owned()).await, 1);
    assert_eq!(count("bill_duration=0".to_owned()).await, 1);
    let too_wide = format!(
        "Call/?end_time__gt={}&end_time__lt={}",
        utc(-40 * 1440),
        utc(0)
    );
    for bad in [
        too_wide.as_str(),
        "Call/?end_time__gt=yesterday",
        "Call/?limit=100",
        "Call/?bill_duration__lt=x",
    ] {
        assert_eq!(world.get(bad).await.0, 400, "{bad}");
    }
    let (_, page) = world.get("Call/?limit=1&offset=0").await;
    assert_eq!(page["objects"][0]["call_uuid"], json!(busy));
    assert!(page["meta"]["next"].is_string() && page["meta"]["previous"].is_null());
    let (_, page) = world.get("Call/?limit=1&offset=1").await;
    assert!(page["meta"]["next"].is_null() && page["meta"]["previous"].is_string());
}

#[tokio::test]
async fn the_api_hangs_up_before_and_after_the_answer() {
    let world = World::with(ringing()).await;
    let uuid = world.dial(json!({})).await;
    world.reached(&uuid, "ringing").await;
    assert_eq!(world.delete(&format!("Call/{uuid}/")).await, 204);
    assert_eq!(world.delete(&format!("Call/{uuid}/")).await, 404);
    let record = world.ended(&uuid).await;
    assert_eq!(
        (record.hangup.unwrap().code, record.status),
        (1000, "cancel")
    );

    let world = World::with(talking()).await;
    let uuid = world.dial(json!({})).await;
    world.reached(&uuid, "in-progress").await;
    assert_eq!(
        world.get(&format!("Call/{uuid}/?status=live")).await.1["call_status"],
        "in-progress"
    );
    assert_eq!(world.delete(&format!("Call/{uuid}/")).await, 204);
    assert_eq!(world.get(&format!("Call/{uuid}/?status=live")).await.0, 404);
    let record = world.ended(&uuid).await;
    let hangup = record.hangup.unwrap();
    assert_eq!(
        (hangup.code, hangup.source, record.status),
        (4000, "API Request", "completed")
    );
}

#[tokio::test]
async fn hanging_up_an_empty_id_hangs_up_everything() {
    for path in ["Call/", "Call//"] {
        let world = World::with(ringing()).await;
        let uuids = [
            world.dial(json!({})).await,
            world.dial(json!({"to": "15550100003"})).await,
        ];
        assert_eq!(world.delete(path).await, 204);
        for uuid in &uuids {
            assert_eq!(world.ended(uuid).await.hangup.unwrap().code, 0);
        }
        assert_eq!(world.carrier.stats().live, 0);
    }
}

#[tokio::test]
async fn a_call_in_progress_can_be_transferred() {
    let world = World::with(talking()).await;
    let transfer = async |uuid: &str, body: Value| {
        let url = world.url(&format!("Call/{uuid}/"));
        let sent = world
            .client
            .post(url)
            .basic_auth(AUTH_ID, Some(TOKEN))
            .json(&body)
            .send();
        sent.await.unwrap().status().as_u16()
    };
    world.receiver.answers("/new", [Answer::xml("<Hangup/>")]);
    world.receiver.answers("/gone", [Answer::status(404)]);
    for (path, expected) in [("new", (4000, "Answer XML")), ("gone", (7013, "Error"))] {
        let uuid = world.dial(json!({})).await;
        world.reached(&uuid, "in-progress").await;
        let to = format!("{}/{path}", world.receiver.base);
        assert_eq!(
            transfer(&uuid, json!({"legs": "aleg", "aleg_url": "nowhere"})).await,
            400
        );
        assert_eq!(
            transfer(&uuid, json!({"legs": "bleg", "bleg_url": to})).await,
            400
        );
        assert_eq!(
            transfer(&uuid, json!({"legs": "aleg", "aleg_url": to})).await,
            202
        );
        let hangup = world.ended(&uuid).await.hangup.unwrap();
        assert_eq!((hangup.code, hangup.source), expected);
        assert_eq!(transfer(&uuid, json!({"aleg_url": to})).await, 404);
    }
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one table of documents and what becomes of them"
)]
async fn the_answer_document_decides_what_happens() {
    let world = World::with(options()).await;
    let base = world.receiver.base.clone();
    let json_type = Answer {
        content_type: "application/json",
        ..Answer::xml("")
    };
    let redirect = Answer::xml(&format!("<Redirect>{base}/hangs-up</Redirect>"));
    let redirect_to_error = Answer::xml(&format!("<Redirect>{base}/broken</Redirect>"));
    let redirect_to_itself = Answer::xml(&format!("<Redirect>{base}/self</Redirect>"));
    world
        .receiver
        .answers("/hangs-up", [Answer::xml("<Hangup/>")]);
    world.receiver.answers("/broken", [Answer::status(500)]);
    let cases = [
        (
            "speak",
            Answer::xml("<Speak>Hello</Speak>"),
            (4010, "Plivo"),
        ),
        (
            "play-then-hangup",
            Answer::xml("<Play>https://example.com/a.mp3</Play><Hangup/>"),
            (4000, "Answer XML"),
        ),
        (
            "stream",
            Answer::xml(
                "<Stream bidirectional=\"true\">wss://bot.example.com/ws?a=1&amp;b=2</Stream>",
            ),
            (4000, "Callee"),
        ),
        ("empty", Answer::xml(""), (4010, "Plivo")),
        ("hangup", Answer::xml("<Hangup/>"), (4000, "Answer XML")),
        (
            "rejects",
            Answer::xml("<Hangup reason=\"rejected\"/>"),
            (3020, "Answer XML"),
        ),
        (
            "busy",
            Answer::xml("<Hangup reason=\"busy\"/>"),
            (3010, "Answer XML"),
        ),
        ("error", Answer::status(500), (7011, "Error")),
        ("moved", Answer::status(302), (7011, "Error")),
        ("json", json_type, (8011, "Error")),
        (
            "raw-ampersand",
            Answer::xml("<Stream>wss://bot.example.com/ws?a=1&b=2</Stream>"),
            (8011, "Error"),
        ),
        (
            "unknown-element",
            Answer::xml("<Say>Hello</Say>"),
            (8011, "Error"),
        ),
        (
            "no-body",
            Answer {
                content_type: "text/xml",
                ..Answer::status(200)
            },
            (8011, "Error"),
        ),
        ("redirect", redirect, (4000, "Answer XML")),
        ("redirect-to-error", redirect_to_error, (7014, "Error")),
        ("self", redirect_to_itself, (8014, "Error")),
    ];
    for (path, answer, expected) in cases {
        world.receiver.answers(&format!("/{path}"), [answer]);
        let (code, source, status) = world
            .outcome(json!({"answer_url": format!("{base}/{path}")}))
            .await;
        assert_eq!((code, source), expected, "{path}");
        assert_eq!(status, "completed", "{path}");
    }
    let remark = "content type is not XML";
    assert!(
        world
            .carrier
            .calls()
            .iter()
            .any(|record| record.timeline.iter().any(|moment| moment.event == remark))
    );
}

#[tokio::test]
async fn the_fallback_url_is_asked_when_the_answer_url_fails() {
    let world = World::with(options()).await;
    world.receiver.answers("/answer", [Answer::status(500)]);
    world
        .receiver
        .answers("/fallback", [Answer::xml("<Hangup/>")]);
    let changes = json!({"fallback_url": format!("{}/fallback", world.receiver.base)});
    assert_eq!(
        world.outcome(changes).await,
        (4000, "Answer XML", "completed")
    );
    assert_eq!(world.receiver.at("/fallback")[0].event(), "StartApp");
}

#[tokio::test]
async fn machines_are_detected_beside_the_call_or_before_the_document() {
    let machines = OutcomeMix {
        machine: 1.0,
        ..OutcomeMix::NONE
    };
    let world = World::with(SimulatorOptions {
        outcome_mix: machines,
        ..talking()
    })
    .await;
    let machine_url = format!("{}/machine", world.receiver.base);

    let changes = json!({"machine_detection": "hangup", "machine_detection_url": machine_url});
    assert_eq!(world.outcome(changes).await, (9100, "Plivo", "completed"));
    let hook = &world.receiver.wait_for("/machine", 1).await[0];
    assert!(hook.signed);
    assert_eq!(
        names(hook),
        fixture_names("machine_detection_documented_fields_POST")
            .into_iter()
            .chain(["ParentAuthID".to_owned(), "SessionStart".to_owned()])
            .collect()
    );
    assert_eq!(
        (hook.event().as_str(), hook.params()["IfMachine"].as_str()),
        ("MachineDetection", "hangup")
    );

    let uuid = world
        .dial(json!({"machine_detection": "true", "machine_detection_url": machine_url}))
        .await;
    assert_eq!(
        world.receiver.wait_for("/machine", 2).await[1].params()["IfMachine"],
        "continue"
    );
    assert_eq!(world.record(&uuid).status, "in-progress");

    assert_eq!(
        world.outcome(json!({"machine_detection": "hangup"})).await,
        (9100, "Plivo", "completed")
    );
    let uuid = world.dial(json!({"machine_detection": "true", "answer_url": format!("{}/sync", world.receiver.base)})).await;
    assert_eq!(
        world.receiver.wait_for("/sync", 1).await[0].params()["Machine"],
        "true"
    );
    assert_eq!(world.delete(&format!("Call/{uuid}/")).await, 204);
    world.ended(&uuid).await;
    let told =
        |hook: &Hook| hook.params()["CallUUID"] == uuid && hook.params()["Machine"] == "true";
    assert!(world.receiver.wait_for("/hangup", 3).await.iter().any(told));
}

#[tokio::test]
async fn limits_of_the_request_end_the_call() {
    let world = World::with(ringing()).await;
    assert_eq!(
        world.outcome(json!({"ring_timeout": 0})).await,
        (6010, "Plivo", "timeout")
    );
    assert_eq!(
        world.outcome(json!({"hangup_on_ring": 0})).await,
        (6000, "Plivo", "timeout")
    );
    let world = World::with(talking()).await;
    assert_eq!(
        world.outcome(json!({"time_limit": 1})).await,
        (6000, "Plivo", "completed")
    );
}

#[tokio::test]
async fn the_fragment_decides_on_retries_and_is_not_sent() {
    let world = World::with(options()).await;
    let base = world.receiver.base.clone();
    for (path, fragment, attempts) in [
        ("once", "", 1),
        ("thrice", "#rc=2&rp=ct,rt,5xx", 3),
        ("not-4xx", "#rc=5&rp=4xx", 1),
        ("never", "#rc=0&rp=all", 1),
    ] {
        world
            .receiver
            .answers(&format!("/{path}"), [Answer::status(503)]);
        let uuid = world
            .dial(json!({"hangup_url": format!("{base}/{path}?call=1{fragment}")}))
            .await;
        let tried = || {
            world
                .record(&uuid)
                .deliveries
                .iter()
                .filter(|delivery| delivery.kind == EventKind::Hangup)
                .count()
        };
        until("all attempts", || tried() == attempts).await;
    }
    // One more whole call, after which a retry too many would have shown.
    let uuid = world.dial(json!({})).await;
    world.ended(&uuid).await;
    for (path, attempts) in [("/once", 1), ("/thrice", 3), ("/not-4xx", 1), ("/never", 1)] {
        let hooks = world.receiver.at(path);
        assert_eq!(hooks.len(), attempts, "{path}");
        assert!(
            hooks
                .iter()
                .all(|hook| hook.signed && hook.query == "call=1")
        );
    }

    world
        .receiver
        .answers("/recovers", [Answer::status(500), Answer::xml("<Hangup/>")]);
    let changes = json!({"answer_url": format!("{base}/recovers#rc=1&rp=5xx")});
    assert_eq!(world.outcome(changes).await.1, "Answer XML");

    // Nobody listens at port 1, and nobody answers where connections are never accepted.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf_url = format!("http://{}/hangup#rt=100", deaf.local_addr().unwrap());
    for (url, error) in [
        ("http://127.0.0.1:1/hangup", "not connected"),
        (deaf_url.as_str(), "no answer"),
    ] {
        let uuid = world.dial(json!({"hangup_url": url})).await;
        let failed = || {
            world
                .record(&uuid)
                .deliveries
                .iter()
                .filter(|delivery| delivery.error == Some(error))
                .count()
        };
        until("two attempts", || failed() == 2).await;
    }
}

fn faulty(change: impl FnOnce(&mut WebhookFaults)) -> SimulatorOptions {
    let mut options = options();
    change(&mut options.webhook_faults);
    options
}

#[tokio::test]
async fn webhooks_get_lost() {
    let always = EventFaults {
        lost: Fault::ALWAYS,
        ..EventFaults::default()
    };
    let world = World::with(faulty(|faults| {
        (faults.ring, faults.hangup) = (always, always)
    }))
    .await;
    let uuid = world.dial(json!({})).await;
    let record = world.ended(&uuid).await;
    assert_eq!(record.status, "completed");
    assert_eq!(
        record
            .deliveries
            .iter()
            .filter(|delivery| delivery.error == Some("lost by a fault"))
            .count(),
        2
    );
    assert_eq!(world.receiver.events(), ["StartApp"]);

    let world = World::with(faulty(|faults| faults.answer.lost = Fault::next(1))).await;
    assert_eq!(world.outcome(json!({})).await, (7011, "Error", "completed"));
    assert_eq!(world.outcome(json!({})).await.0, 4010);
}

#[tokio::test]
async fn webhooks_are_sent_twice() {
    let twice = EventFaults {
        duplicated: Fault::ALWAYS,
        ..EventFaults::default()
    };
    let faults = WebhookFaults {
        ring: twice,
        answer: twice,
        hangup: twice,
    };
    let world = World::with(SimulatorOptions {
        webhook_faults: faults,
        ..options()
    })
    .await;
    world.outcome(json!({})).await;
    for path in ["/ring", "/answer", "/hangup"] {
        let hooks = world.receiver.wait_for(path, 2).await;
        assert!(hooks[0].body == hooks[1].body && hooks[1].signed);
    }
}

#[tokio::test]
async fn webhooks_are_late_and_change_places() {
    let late = EventFaults {
        delayed: Fault::ALWAYS,
        delay_ms: MsRange::exactly(2_000),
        ..EventFaults::default()
    };
    let world = World::with(faulty(|faults| faults.ring = late)).await;
    world.outcome(json!({})).await;
    world.receiver.wait_for("/ring", 1).await;
    assert_eq!(world.receiver.events(), ["StartApp", "Hangup", "Ring"]);

    let moved = EventFaults {
        reordered: Fault::ALWAYS,
        ..EventFaults::default()
    };
    let world = World::with(faulty(|faults| faults.ring = moved)).await;
    world.outcome(json!({})).await;
    world.receiver.wait_for("/ring", 1).await;
    assert_eq!(world.receiver.events()[0], "StartApp");

    for change in [
        |faults: &mut WebhookFaults, moved| faults.answer = moved,
        |faults: &mut WebhookFaults, moved| faults.hangup = moved,
    ] {
        let world = World::with(faulty(|faults| change(faults, moved))).await;
        assert_eq!(
            world.outcome(json!({})).await,
            (4000, "Callee", "completed")
        );
        world.receiver.wait_for("/answer", 1).await;
        assert_eq!(world.receiver.events(), ["Ring", "Hangup", "StartApp"]);
    }
    let mut unanswered = faulty(|faults| faults.hangup = moved);
    unanswered.outcome_mix = OutcomeMix {
        no_answer: 1.0,
        ..OutcomeMix::NONE
    };
    let world = World::with(unanswered).await;
    world.outcome(json!({})).await;
    world.receiver.wait_for("/ring", 1).await;
    assert_eq!(world.receiver.events(), ["Hangup", "Ring"]);
}

fn dial_faulty(change: impl FnOnce(&mut DialFaults)) -> SimulatorOptions {
    let mut options = options();
    change(&mut options.dial_faults);
    options
}

#[tokio::test]
async fn faults_before_accepting_leave_no_call() {
    let world = World::with(dial_faulty(|faults| {
        faults.too_many_requests = Fault::next(1);
        faults.retry_after_seconds = Some(3);
        faults.forbidden = Fault::next(1);
        faults.error_before = Fault::next(1);
        faults.error_status = 503;
        faults.reset_before = Fault::next(1);
    }))
    .await;
    let throttled = world.dial_raw(json!({})).await.unwrap();
    assert_eq!(
        (
            throttled.status().as_u16(),
            throttled.headers()["retry-after"].to_str().unwrap()
        ),
        (429, "3")
    );
    assert_eq!(world.refused(json!({})).await.0, 403);
    assert_eq!(world.refused(json!({})).await.0, 503);
    let error = world.dial_raw(json!({})).await.unwrap_err();
    assert!(!error.is_timeout() && error.status().is_none());
    let stats = world.carrier.stats();
    assert_eq!((stats.requests, stats.accepted, stats.refused), (4, 0, 4));
    assert_eq!(
        stats.refused_by_status.keys().collect::<Vec<_>>(),
        ["403", "429", "503", "reset"]
    );
    world.dial(json!({})).await;
}

#[tokio::test]
async fn faults_after_accepting_leave_a_call_that_nobody_was_told_of() {
    let world = World::with(dial_faulty(|faults| {
        faults.error_after = Fault::next(1);
        faults.timeout_after = Fault::next(1);
        faults.hold_ms = 50;
        faults.reset_after = Fault::next(1);
    }))
    .await;
    assert_eq!(world.refused(json!({})).await.0, 500);
    for _ in 0..2 {
        let error = world.dial_raw(json!({})).await.unwrap_err();
        assert!(!error.is_timeout() && error.status().is_none());
    }
    let stats = world.carrier.stats();
    assert_eq!((stats.accepted, stats.refused), (3, 0));
    until("three whole calls", || world.carrier.stats().ended == 3).await;
    world.receiver.wait_for("/hangup", 3).await;
}

#[tokio::test]
async fn a_client_that_gives_up_gets_its_call_all_the_same() {
    // A request that is carried out late, and one whose answer never comes.
    for (slow_before, slow_ms) in [(true, 2_000), (false, 3_600_000)] {
        let world = World::with(dial_faulty(|faults| {
            let slow = if slow_before {
                &mut faults.slow_before
            } else {
                &mut faults.slow_after
            };
            *slow = Fault::next(1);
            faults.slow_ms = slow_ms;
        }))
        .await;
        let impatient = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(1))
            .build()
            .unwrap();
        let request = impatient
            .post(world.url("Call/"))
            .basic_auth(AUTH_ID, Some(TOKEN))
            .json(&world.body(&json!({})));
        assert!(request.send().await.unwrap_err().is_timeout());
        until("the call", || world.carrier.stats().ended == 1).await;
        world.dial(json!({})).await;
    }
}

#[tokio::test]
async fn look_ups_fail_when_told_to() {
    let unavailable = LookupFaults {
        unavailable: Fault::next(2),
        slow_ms: 1,
    };
    let world = World::with(SimulatorOptions {
        lookup_faults: unavailable,
        ..ringing()
    })
    .await;
    let uuid = world.dial(json!({})).await;
    assert_eq!(world.get(&format!("Call/{uuid}/?status=live")).await.0, 503);
    assert_eq!(world.delete(&format!("Call/{uuid}/")).await, 503);
    assert_eq!(world.get(&format!("Call/{uuid}/?status=live")).await.0, 200);
}

#[tokio::test]
async fn the_books_count_peaks_and_duplicates() {
    let world = World::with(ringing()).await;
    let base = &world.receiver.base;
    let url = |client: &str, campaign: &str, call: &str, dial: &str| {
        json!(format!(
            "{base}/answer?client={client}&campaign={campaign}&call={call}&dial={dial}"
        ))
    };
    let first = world
        .dial(json!({"answer_url": url("a", "x", "1", "t1")}))
        .await;
    world
        .dial(json!({"answer_url": url("a", "y", "2", "t2")}))
        .await;
    assert_eq!(world.delete(&format!("Call/{first}/")).await, 204);
    world.dial(json!({"answer_url": url("b", "x", "3", "t3"), "to": "15550100003", "from": "+15550100005"})).await;
    let stats = world.carrier.stats();
    assert_eq!(
        (stats.requests, stats.accepted, stats.unique_destinations),
        (3, 3, 2)
    );
    assert_eq!(
        (stats.live, stats.peak_live, stats.queued, stats.ended),
        (2, 2, 0, 1)
    );
    let usage =
        |usage: &ringmaster::simulator::Usage| (usage.accepted, usage.live, usage.peak_live);
    assert_eq!(
        (usage(&stats.by_client["a"]), usage(&stats.by_client["b"])),
        ((2, 1, 2), (1, 1, 1))
    );
    assert_eq!(
        (
            usage(&stats.by_campaign["x"]),
            usage(&stats.by_campaign["y"])
        ),
        ((2, 1, 1), (1, 1, 1))
    );
    assert_eq!(usage(&stats.by_from["15550100001"]), (2, 1, 2));
    assert!((1..=3).contains(&stats.peak_requests_per_second));
    assert_eq!(
        stats.duplicates,
        ringmaster::simulator::Duplicates::default()
    );

    // The same dial again, then the same attempt with another token, then the same contact by another attempt.
    world
        .dial(json!({"answer_url": url("a", "x", "1", "t1")}))
        .await;
    world
        .dial(json!({"answer_url": url("a", "y", "2", "t9")}))
        .await;
    world
        .dial(json!({"answer_url": url("b", "x", "4", "t4"), "to": "+15550100003"}))
        .await;
    let duplicates = world.carrier.stats().duplicates;
    assert_eq!(
        duplicates.by_call,
        BTreeMap::from([("1".to_owned(), 2), ("2".to_owned(), 2)])
    );
    assert_eq!(
        duplicates.by_call_dial,
        BTreeMap::from([("1/t1".to_owned(), 2)])
    );
    assert_eq!(duplicates.by_campaign_to["x"]["15550100003"], 2);
    assert!(
        !format!("{:?}", world.carrier.stats()).contains("5550100"),
        "Debug shows numbers"
    );
    assert!(
        !format!("{:?}", world.carrier.calls()).contains("5550100"),
        "Debug shows numbers"
    );
}

#[tokio::test]
async fn new_books_start_with_the_calls_that_live() {
    let world = World::with(ringing()).await;
    let ended = world.dial(json!({})).await;
    world.dial(json!({"to": "15550100003"})).await;
    assert_eq!(world.delete(&format!("Call/{ended}/")).await, 204);
    world.carrier.reset();
    let stats = world.carrier.stats();
    assert_eq!(
        (stats.requests, stats.accepted, stats.live, stats.ended),
        (1, 1, 1, 0)
    );
    assert_eq!((stats.peak_live, stats.peak_requests_per_second), (1, 0));
    assert_eq!(world.carrier.calls().len(), 1);
}

#[tokio::test]
async fn the_books_are_open_over_http() {
    let world = World::with(options()).await;
    let base = world.carrier.base_url();
    let get = async |path: &str| {
        let response = world
            .client
            .get(format!("{base}/simulator/{path}"))
            .send()
            .await
            .unwrap();
        (
            response.status().as_u16(),
            response.json::<Value>().await.unwrap(),
        )
    };
    for _ in 0..3 {
        world.outcome(json!({})).await;
    }
    let (status, books) = get("calls").await;
    assert_eq!((status, &books["total"]), (200, &json!(3)));
    let call = &books["calls"][0];
    assert_eq!(
        (&call["to"], &call["from"], &call["accepted"]),
        (&json!(TO), &json!(FROM), &json!(true))
    );
    assert_eq!(
        (&call["params"]["call"], &call["status"]),
        (&json!("c1"), &json!("completed"))
    );
    assert_eq!(
        (&call["hangup"]["code"], &call["refusal"]),
        (&json!(4010), &Value::Null)
    );
    let ring = call["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .find(|delivery| delivery["kind"] == "ring")
        .unwrap();
    assert_eq!(
        (&ring["httpStatus"], &ring["attempt"]),
        (&json!(200), &json!(0))
    );
    let (_, page) = get("calls?limit=1&offset=2").await;
    assert_eq!(
        (page["calls"].as_array().unwrap().len(), &page["total"]),
        (1, &json!(3))
    );
    assert_eq!(get("calls?limit=many").await.0, 400);
    assert_eq!(get("calls?page=1").await.0, 400);
    let (_, stats) = get("stats").await;
    assert_eq!(
        (&stats["accepted"], &stats["byClient"]["cl1"]["accepted"]),
        (&json!(3), &json!(3))
    );
    let reset = world
        .client
        .post(format!("{base}/simulator/reset"))
        .send()
        .await
        .unwrap();
    assert_eq!(reset.status(), 204);
    assert_eq!(get("calls").await.1["total"], 0);
}

#[tokio::test]
async fn options_can_be_changed_over_http() {
    let world = World::with(options()).await;
    let base = world.carrier.base_url();
    let patch = async |body: Value| {
        let sent = world
            .client
            .patch(format!("{base}/simulator/options"))
            .json(&body)
            .send();
        sent.await.unwrap().status().as_u16()
    };
    assert_eq!(patch(json!({"outcomeMix": {"answered": 0, "busy": 1}, "dialFaults": {"errorBefore": {"next": 1}}})).await, 204);
    assert_eq!(world.refused(json!({})).await.0, 500);
    assert_eq!(world.outcome(json!({})).await.0, 3010);
    assert_eq!(
        patch(json!({"outcomeMix": null, "talkDurationMs": {"max": 40}})).await,
        204
    );
    for bad in [
        json!({"nonsense": 1}),
        json!({"outcomeMix": {"answered": -1}}),
        json!({"talkDurationMs": {"min": 50}}),
        json!({"dialFaults": {"errorBefore": {"probability": 2}}}),
        json!({"dialFaults": {"errorStatus": 404}}),
        json!({"webhookFaults": {"ring": {"lost": {"probability": -1}}}}),
        json!({"lookupFaults": {"unavailable": {"probability": 7}}}),
        json!({"outcomeByNumber": {"15550100002": {"cause": 1}}}),
        json!({"authTokens": []}),
        json!({"utcOffsetMinutes": 9999}),
        json!([]),
    ] {
        assert_eq!(patch(bad.clone()).await, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_webhook_can_be_sent_again_by_hand() {
    let world = World::with(ringing()).await;
    let uuid = world.dial(json!({})).await;
    world.reached(&uuid, "ringing").await;
    world.receiver.wait_for("/ring", 1).await;
    let replay = async |uuid: &str, kind: &str| {
        let url = format!(
            "{}/simulator/calls/{uuid}/webhooks/{kind}",
            world.carrier.base_url()
        );
        let response = world.client.post(url).send().await.unwrap();
        (
            response.status().as_u16(),
            response.json::<Value>().await.unwrap()["httpStatus"].clone(),
        )
    };
    assert_eq!(replay(&uuid, "ring").await, (200, json!(200)));
    let rings = world.receiver.at("/ring");
    assert!(
        rings[0].body == rings[1].body
            && rings[0].signature != rings[1].signature
            && rings[1].signed
    );
    // An answer before its time.
    assert_eq!(replay(&uuid, "answer").await, (200, json!(200)));
    assert_eq!(replay(&uuid, "hangup").await.0, 409);
    assert_eq!(replay(&uuid, "nonsense").await.0, 404);
    assert_eq!(replay("unknown", "ring").await.0, 404);

    assert_eq!(world.delete(&format!("Call/{uuid}/")).await, 204);
    world.ended(&uuid).await;
    world.receiver.answers("/hangup", [Answer::status(503)]);
    assert_eq!(replay(&uuid, "hangup").await, (200, json!(503)));
    assert_eq!(
        world.carrier.replay(&uuid, EventKind::Hangup).await,
        Ok(Some(503))
    );
    assert_eq!(
        world
            .record(&uuid)
            .deliveries
            .iter()
            .filter(|delivery| delivery.kind == EventKind::Hangup)
            .count(),
        3
    );

    let uuid = world.dial(json!({"ring_url": null})).await;
    assert_eq!(replay(&uuid, "ring").await.0, 409);
}

#[tokio::test]
async fn a_carrier_that_is_stopped_or_dropped_is_gone() {
    for stopped in [true, false] {
        // An address of its own, so that no other test's server takes over its port.
        let World {
            carrier,
            receiver,
            client,
        } = World::at("127.0.0.2:0", options()).await;
        let url = carrier.base_url();
        let status = client
            .get(format!("{url}/simulator/stats"))
            .send()
            .await
            .unwrap()
            .status();
        assert_eq!(status, 200);
        if stopped {
            carrier.stop().await;
        } else {
            drop(carrier);
        }
        let address = url.trim_start_matches("http://").to_owned();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(&address).await.is_ok() {
            assert!(tokio::time::Instant::now() < deadline, "still listening");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(
            client
                .get(format!("{url}/simulator/stats"))
                .send()
                .await
                .is_err()
        );
        assert!(receiver.hooks().is_empty());
    }
}

#[tokio::test]
async fn options_that_make_no_sense_do_not_start() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bad = SimulatorOptions {
        outcome_mix: OutcomeMix::NONE,
        ..options()
    };
    assert!(matches!(
        Simulator::start(listener, bad).await,
        Err(SimulatorError::Options(_))
    ));
    assert!(serde_json::from_value::<SimulatorOptions>(json!({"cpss": 3})).is_err());
    let read: SimulatorOptions = serde_json::from_value(
        json!({"cps": 3, "outcomeByNumber": {"15550100002": {"cause": 3130}}}),
    )
    .unwrap();
    assert_eq!(
        (read.cps, read.outcome_by_number["15550100002"]),
        (3, Outcome::Cause(3130))
    );
    assert!(!format!("{read:?}").contains("token"));
}
