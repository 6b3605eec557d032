//! Promises P6 and P7: whatever the order in which a call's events arrive, and however often, the call ends the same, also
//! when some never come; and what Plivo did not sign by its third scheme changes nothing.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use mongodb::bson::{Document, doc};
use reqwest::Method;
use ringmaster::services::carrier::plivo_signature::{
    MAIN_SIGNATURE_HEADER, NONCE_HEADER, SIGNATURE_HEADER, sign_v3,
};
use ringmaster::simulator::{
    DialFaults, EventFaults, Fault, MsRange, Outcome, SimulatorOptions, WebhookFaults,
};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::helpers::app::{Api, Container, FROM, World, contact, quick_carrier, until};
use crate::helpers::judge::carrier_token;
use crate::helpers::mongod::client;

const NONCE: &str = "31627761595286130198";
/// The carrier is asked about nothing: only webhooks tell.
const PATIENT: [(&str, &str); 4] = [
    ("MAX_PROCESSED_TIME", "600000"),
    ("MAX_RINGING_TIME", "600000"),
    ("MAX_ONGOING_TIME", "600000"),
    ("CLEANUP_INTERVAL", "600000"),
];

type Form = Vec<(String, String)>;
type Headers = Vec<(&'static str, String)>;

/// A body captured from Plivo, as of the call that the carrier knows by `uuid`.
fn captured(name: &str, uuid: &str) -> Form {
    let fixtures: Value = serde_json::from_str(include_str!("../data/fixtures.json")).unwrap();
    let body = fixtures["webhook_bodies"][name].as_str().unwrap();
    let of_this_call = |(name, value): (String, String)| {
        let value = if name.ends_with("UUID") {
            uuid.to_owned()
        } else {
            value
        };
        (name, value)
    };
    url::form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .map(of_this_call)
        .collect()
}

/// A webhook as it stands: where it goes and what it says.
#[derive(Clone)]
struct Webhook {
    path: String,
    form: Form,
}

impl Webhook {
    fn new(hook: &str, query: &str, form: Form) -> Self {
        let path = format!("/plivo/{hook}{query}");
        Self { path, form }
    }

    /// Delivers it with these headers; answers status and body.
    async fn post(&self, carrier: &Api, headers: &[(&str, String)]) -> (u16, String) {
        let mut request = carrier.request(Method::POST, &self.path).form(&self.form);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    fn signature(&self, world: &World, token: &str) -> String {
        let address = format!("http://{}{}", world.balancer.address, self.path);
        sign_v3("POST", &address, &self.form, NONCE, token)
    }

    /// Delivers it as the carrier does; answers the document.
    async fn deliver(&self, world: &World, carrier: &Api) -> String {
        let headers = [
            (NONCE_HEADER, NONCE.to_owned()),
            (SIGNATURE_HEADER, self.signature(world, &carrier_token())),
        ];
        let (status, body) = self.post(carrier, &headers).await;
        assert_eq!(status, 200, "{body}");
        body
    }
}

/// Somebody without a key who talks to this container.
fn anybody(container: &Container) -> Api {
    Api::new("", "").at(container)
}

/// A carrier whose calls are for ever under way: nothing happens by itself, and it tells nobody anything.
fn silent_carrier() -> SimulatorOptions {
    SimulatorOptions {
        ring_delay_ms: MsRange::exactly(600_000),
        ..quick_carrier()
    }
}

/// Makes a single call; answers it.
async fn call(operator: &Api) -> Value {
    let body = json!({
        "from": FROM, "to": contact(7), "firstName": "Ann",
        "answer": { "type": "speak", "text": "Hello {{firstName}}" },
    });
    operator.post("/v1/calls", &body).await.created()
}

async fn read(operator: &Api, call: &Value) -> Value {
    let path = format!("/v1/calls/{}", call["id"].as_str().unwrap());
    operator.get(&path).await.ok()
}

fn text<'a>(call: &'a Value, field: &str) -> &'a str {
    call[field].as_str().unwrap()
}

/// The story of an answered call, each event once.
fn story(call: &Value) -> [Webhook; 4] {
    let (id, uuid) = (text(call, "id"), text(call, "callUUID"));
    let query = format!("?call={id}&dial=1");
    let mut machine = captured("answer_POST", uuid);
    for (name, value) in &mut machine {
        if name == "Event" {
            "MachineDetection".clone_into(value);
        }
    }
    machine.push(("Machine".to_owned(), "true".to_owned()));
    [
        Webhook::new("ring-url", &query, captured("ring_POST", uuid)),
        Webhook::new("answer-url", &query, captured("answer_POST", uuid)),
        Webhook::new("machine-url", &query, machine),
        Webhook::new(
            "hangup-url",
            &query,
            captured("hangup_answered_callee_POST", uuid),
        ),
    ]
}

/// Every order of four things.
fn orders() -> Vec<[usize; 4]> {
    let mut orders = Vec::new();
    for number in 0..256 {
        let order = [number & 3, number >> 2 & 3, number >> 4 & 3, number >> 6];
        if (0..4).all(|place| order.contains(&place)) {
            orders.push(order);
        }
    }
    orders
}

/// What is left of a call without whose it is and when we heard of it.
fn without_receipts(mut call: Value) -> Value {
    let fields = call.as_object_mut().unwrap();
    for name in ["id", "callUUID", "startTime", "ringTime"] {
        fields.remove(name).unwrap();
    }
    for line in call["events"].as_array_mut().unwrap() {
        line.as_object_mut().unwrap().remove("at").unwrap();
    }
    call
}

async fn kept(world: &World) -> u64 {
    let client = crate::helpers::mongod::client(&world.database.uri).await;
    let collection = client
        .database(&world.database.name)
        .collection::<Document>("unmatchedWebhooks");
    collection.count_documents(doc! {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_and_any_repetition_ends_in_the_same_document() {
    let world = World::new("orders", silent_carrier()).await;
    let containers = [
        world.container(&PATIENT).await,
        world.container(&PATIENT).await,
    ];
    let carriers = [anybody(&containers[0]), anybody(&containers[1])];
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let orders = orders();
    assert_eq!(orders.len(), 24);
    let mut documents = Vec::new();
    for (index, order) in orders.into_iter().enumerate() {
        let call = call(&operator).await;
        let story = story(&call);
        // Each order, then some of it again, now here and now there.
        let repeated = order.into_iter().chain(order.into_iter().skip(index % 4));
        for (turn, event) in repeated.enumerate() {
            let carrier = &carriers[(index + turn) % 2];
            story[event].deliver(&world, carrier).await;
        }
        documents.push(without_receipts(read(&operator, &call).await));
    }
    // And all at once, each twice, here and there.
    for _ in 0..4 {
        let call = call(&operator).await;
        let deliveries = story(&call).into_iter().flat_map(|webhook| {
            let (world, webhook) = (&world, webhook);
            carriers.iter().map(move |carrier| {
                let webhook = webhook.clone();
                async move { webhook.deliver(world, carrier).await }
            })
        });
        futures_util::future::join_all(deliveries).await;
        documents.push(without_receipts(read(&operator, &call).await));
    }

    let first = &documents[0];
    assert_eq!(first["status"], "completed");
    assert_eq!(first["outcome"], "voicemail", "{first}");
    assert_eq!(first["answerTime"], "2024-09-26T08:35:18Z", "{first}");
    assert_eq!(first["endTime"], "2024-09-26T08:36:23Z", "{first}");
    assert_eq!(first["billDuration"], 120);
    assert_eq!(first["hangup"]["code"], 4000);
    for document in &documents {
        assert_eq!(document, first);
    }
    assert_eq!(operator.slots_taken().await, 0);
    assert_eq!(kept(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_all_faults_each_contact_has_its_own_outcome() {
    const CONTACTS: usize = 50;
    let kinds = [
        (Outcome::Answered, "answered"),
        (Outcome::Busy, "busy"),
        (Outcome::NoAnswer, "no_answer"),
        (Outcome::Rejected, "rejected"),
        (Outcome::Invalid, "invalid_number"),
    ];
    let often = Fault {
        probability: 0.4,
        next: 0,
    };
    let faults = EventFaults {
        lost: Fault {
            probability: 0.3,
            next: 0,
        },
        duplicated: often,
        delayed: often,
        delay_ms: MsRange { min: 10, max: 500 },
        reordered: often,
    };
    // A lost answer webhook makes the carrier drop the call: that would be another outcome.
    let answer = EventFaults {
        lost: Fault::default(),
        ..faults
    };
    let carrier = SimulatorOptions {
        outcome_by_number: (0..CONTACTS)
            .map(|index| (contact(index), kinds[index % 5].0))
            .collect(),
        webhook_faults: WebhookFaults {
            ring: faults,
            answer,
            hangup: faults,
        },
        ..quick_carrier()
    };
    let world = World::new("faults", carrier).await;
    let (_one, _two) = (world.container(&[]).await, world.container(&[]).await);
    let (_, operator) = world
        .client(json!({ "name": "Acme", "maxConcurrentCalls": 20 }))
        .await;
    let campaign = operator
        .campaign(&operator.list_of(0, CONTACTS).await, json!({}))
        .await;
    let progress = operator.until_status(&campaign, "completed").await;
    let calls = operator.calls_of(&campaign).await;
    let wrong: BTreeMap<i64, &Value> = calls
        .iter()
        .map(|call| (call["contactSeq"].as_i64().unwrap(), &call["outcome"]))
        .filter(|(seq, outcome)| **outcome != kinds[usize::try_from(*seq).unwrap() % 5].1)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?} of {progress}");
    let is_from_record = |call: &Value| {
        let mut events = call["events"].as_array().unwrap().iter();
        events.any(|line| line["event"] == "record")
    };
    assert!(
        calls.iter().any(is_from_record),
        "no end was learned by asking the carrier"
    );
    world.assert_each_dialed_once(CONTACTS);
    world.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_carrier_did_not_sign_changes_nothing() {
    let world = World::new("unsigned", silent_carrier()).await;
    let container = world.container(&PATIENT).await;
    let carrier = anybody(&container);
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let call = call(&operator).await;
    let [ring, _, _, hangup] = story(&call);
    ring.deliver(&world, &carrier).await;
    let before = read(&operator, &call).await;
    for hook in ["ring", "answer", "hangup", "fallback", "machine", "record"] {
        let mut unsigned = hangup.clone();
        unsigned.path = unsigned.path.replace("hangup-url", &format!("{hook}-url"));
        assert_eq!(unsigned.post(&carrier, &[]).await.0, 403, "{hook}");
    }

    let token = carrier_token();
    let nonce = (NONCE_HEADER, NONCE.to_owned());
    let right = hangup.signature(&world, &token);
    let mut altered = hangup.clone();
    altered.form[0].1.push('x');
    let mut elsewhere = hangup.clone();
    elsewhere.path.push_str("&more=1");
    let v2 = {
        let path = hangup.path.split('?').next().unwrap();
        let signed = format!("http://{}{path}{NONCE}", world.balancer.address);
        let mut mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    };
    let v2_headers = [
        ("x-plivo-signature-v2", v2.clone()),
        ("x-plivo-signature-ma-v2", v2.clone()),
        ("x-plivo-signature-v2-nonce", NONCE.to_owned()),
    ];
    let refused: [(&str, &Webhook, Headers); 7] = [
        ("no nonce", &hangup, vec![(SIGNATURE_HEADER, right.clone())]),
        (
            "another nonce",
            &hangup,
            vec![
                (NONCE_HEADER, "1".into()),
                (SIGNATURE_HEADER, right.clone()),
            ],
        ),
        (
            "another token",
            &hangup,
            vec![
                nonce.clone(),
                (SIGNATURE_HEADER, hangup.signature(&world, "guessed")),
            ],
        ),
        (
            "another form",
            &altered,
            vec![nonce.clone(), (SIGNATURE_HEADER, right.clone())],
        ),
        (
            "another address",
            &elsewhere,
            vec![nonce.clone(), (SIGNATURE_HEADER, right.clone())],
        ),
        ("V2 only", &hangup, v2_headers.to_vec()),
        (
            "V2 in the place of V3",
            &hangup,
            vec![nonce.clone(), (SIGNATURE_HEADER, v2)],
        ),
    ];
    for (what, webhook, headers) in refused {
        let (status, _) = webhook.post(&carrier, &headers).await;
        assert_eq!(status, 403, "{what}");
    }
    assert_eq!(read(&operator, &call).await, before);
    assert_eq!(operator.slots_taken().await, 1);
    assert_eq!(kept(&world).await, 0);

    // The main account's signature is as good as the subaccount's.
    let (status, _) = hangup
        .post(&carrier, &[nonce, (MAIN_SIGNATURE_HEADER, right)])
        .await;
    assert_eq!(status, 200);
    assert_eq!(read(&operator, &call).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_our_id_a_call_is_known_by_the_carriers() {
    let world = World::new("old", silent_carrier()).await;
    let container = world.container(&PATIENT).await;
    let carrier = anybody(&container);
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let call = call(&operator).await;
    let uuid = text(&call, "callUUID");
    let post = async |hook: &str, body: &str, query: &str| {
        let webhook = Webhook::new(hook, query, captured(body, uuid));
        webhook.deliver(&world, &carrier).await
    };
    post("ring-url", "ring_POST", "").await;
    assert_eq!(read(&operator, &call).await["status"], "ringing");
    // Addresses of earlier days carry parameters of their own.
    let document = post("answer-url", "answer_POST", "?deploymentId=6bed").await;
    assert!(document.contains("Hello Ann"), "{document}");
    assert_eq!(read(&operator, &call).await["status"], "in-progress");
    post("hangup-url", "hangup_end_of_xml_POST", "").await;
    let ended = read(&operator, &call).await;
    assert_eq!(ended["status"], "completed");
    assert_eq!(ended["hangup"]["code"], 4010);
    assert_eq!(operator.slots_taken().await, 0);
    assert_eq!(kept(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fallback_address_answers_as_the_answer_address_does() {
    let world = World::new("fallback", silent_carrier()).await;
    let container = world.container(&PATIENT).await;
    let carrier = anybody(&container);
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let call = call(&operator).await;
    let query = format!("?call={}&dial=1", text(&call, "id"));
    let form = captured("answer_POST", text(&call, "callUUID"));
    let fallback = Webhook::new("fallback-url", &query, form);
    // Repeated, and after the end of the call: the callee who asks is told the same.
    for _ in 0..2 {
        let document = fallback.deliver(&world, &carrier).await;
        assert!(document.contains("Hello Ann</Speak>"), "{document}");
    }
    let answered = read(&operator, &call).await;
    assert_eq!(answered["status"], "in-progress");
    assert!(answered["answerTime"].is_string(), "{answered}");
    let stale = Webhook {
        path: fallback.path.replace("dial=1", "dial=2"),
        ..fallback.clone()
    };
    let document = stale.deliver(&world, &carrier).await;
    assert!(document.contains("<Hangup"), "{document}");
    assert_eq!(kept(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_is_noted_whenever_it_is_told_and_under_either_name() {
    let world = World::new("recording", silent_carrier()).await;
    let container = world.container(&PATIENT).await;
    let carrier = anybody(&container);
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let form = |fields: &[(&str, &str)]| -> Form {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        fields.iter().map(owned).collect()
    };
    let url = "https://media.example/recordings/1.mp3";
    for (is_over, is_of_api) in [(false, false), (false, true), (true, false), (true, true)] {
        let call = call(&operator).await;
        let uuid = text(&call, "callUUID");
        let [_, answer, _, hangup] = story(&call);
        answer.deliver(&world, &carrier).await;
        if is_over {
            hangup.deliver(&world, &carrier).await;
        }
        let before = read(&operator, &call).await;
        let query = format!("?call={}&dial=1", text(&call, "id"));
        // Without an address it tells nothing, and is no reason to deliver it again.
        let empty = form(&[("CallUUID", uuid), ("RecordingID", "1")]);
        let empty = Webhook::new("record-url", &query, empty);
        empty.deliver(&world, &carrier).await;
        assert_eq!(read(&operator, &call).await, before);

        // Of the record API, which knows no address of ours with our id, or of the Record element.
        let webhook = if is_of_api {
            let told = [
                ("call_uuid", uuid),
                ("record_url", url),
                ("recording_id", "1"),
            ];
            Webhook::new("record-url", "", form(&told))
        } else {
            let told = [("CallUUID", uuid), ("RecordUrl", url), ("RecordingID", "1")];
            Webhook::new("record-url", &query, form(&told))
        };
        let document = webhook.deliver(&world, &carrier).await;
        assert!(document.contains("<Response></Response>"), "{document}");
        let after = read(&operator, &call).await;
        assert_eq!(after["recordingUrl"], url);
        for field in ["status", "outcome", "answerTime", "endTime", "hangup"] {
            assert_eq!(after[field], before[field], "{field}");
        }
        webhook.deliver(&world, &carrier).await;
        assert_eq!(read(&operator, &call).await, after, "a repetition");
    }
    assert_eq!(kept(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unknown_is_kept_once_and_an_unknown_callee_is_hung_up_on() {
    let world = World::new("unknown", silent_carrier()).await;
    let container = world.container(&PATIENT).await;
    let carrier = anybody(&container);
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let unknown = json!({ "id": "65f0c0ffee0000000000c0de", "callUUID": "00000000-dead-beef" });
    let [ring, answer, _, hangup] = story(&unknown);
    let document = answer.deliver(&world, &carrier).await;
    assert!(document.contains("<Hangup"), "{document}");
    for webhook in [&ring, &hangup, &answer, &hangup] {
        webhook.deliver(&world, &carrier).await;
    }
    assert_eq!(kept(&world).await, 3);
    assert_eq!(operator.slots_taken().await, 0);
    assert!(operator.live_calls().await.is_empty());
}

/// After a failover a read may miss the latest writes, the call itself among them: before somebody is hung up on, the database
/// has to say so linearizably. Read from the database's own profile, because a stale primary cannot be ordered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_hung_up_on_for_what_a_read_may_have_missed() {
    let world = World::new("surely", silent_carrier()).await;
    let container = world.container(&PATIENT).await;
    let carrier = anybody(&container);
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let database = client(&world.database.uri)
        .await
        .database(&world.database.name);
    let profile = doc! { "profile": 1, "filter": { "command.readConcern.level": "linearizable" } };
    database.run_command(profile).await.unwrap();
    let sure_reads = async || {
        let lines = database.collection::<Document>("system.profile");
        lines.count_documents(doc! {}).await.unwrap()
    };

    let known = call(&operator).await;
    let [ring, ..] = story(&known);
    ring.deliver(&world, &carrier).await;
    assert_eq!(sure_reads().await, 0, "what is known is simply read");

    // Another dial of a call than the one it is at: a ghost.
    let mut ghost = ring.clone();
    ghost.path = ghost.path.replace("dial=1", "dial=7");
    ghost.deliver(&world, &carrier).await;
    assert_eq!(sure_reads().await, 1, "a ghost");

    let unknown = json!({ "id": "65f0c0ffee0000000000c0de", "callUUID": "00000000-dead-beef" });
    let [_, answer, ..] = story(&unknown);
    let document = answer.deliver(&world, &carrier).await;
    assert!(document.contains("<Hangup"), "{document}");
    // It is kept, and its call may have been looked for again since.
    assert!(sure_reads().await >= 2, "a call that nobody knows");
    database.run_command(doc! { "profile": 0 }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_overtakes_the_carriers_answer_finds_its_call_later() {
    let carrier = SimulatorOptions {
        dial_faults: DialFaults {
            slow_after: Fault::ALWAYS,
            slow_ms: 2500,
            ..DialFaults::default()
        },
        ..silent_carrier()
    };
    let world = World::new("overtakes", carrier).await;
    let container = world.container(&PATIENT).await;
    let carrier = anybody(&container);
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let caller = operator.clone();
    let asked = tokio::spawn(async move { call(&caller).await });
    until("the carrier has the call", async || {
        world.simulator.stats().accepted == 1
    })
    .await;
    // Without our id in its address, and the carrier's id is not known to us yet.
    let uuid = world.simulator.calls().remove(0).request_uuid.unwrap();
    let form = captured("hangup_busy_unanswered_POST", &uuid);
    let hangup = Webhook::new("hangup-url", "", form);
    hangup.deliver(&world, &carrier).await;
    let made = asked.await.unwrap();
    until("the kept webhook found its call", async || {
        read(&operator, &made).await["outcome"] == "busy"
    })
    .await;
    until("it is kept no longer", async || kept(&world).await == 0).await;
    assert_eq!(operator.slots_taken().await, 0);
}
