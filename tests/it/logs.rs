//! Nothing leaks (promise P8): whatever comes in, good or bad, no number, name, address, key or token is in the log of the
//! process, at the finest level of our own lines and in both formats.

use jsonwebtoken::{EncodingKey, Header};
use reqwest::Method;
use ringmaster::services::carrier::plivo_signature::{NONCE_HEADER, SIGNATURE_HEADER, sign_v3};
use ringmaster::simulator::{
    DialFaults, EventFaults, Fault, LookupFaults, OutcomeMix, SimulatorOptions, WebhookFaults,
};
use serde_json::{Value, json};

use crate::helpers::app::{ADMIN_KEY, Api, FROM, World, contact, quick_carrier};

const CONTACTS: usize = 40;
const CARRIER_TOKEN: &str = "sesame-carrier-token";
const JWT_SECRET: &str = "sesame-jwt-secret";
const WRONG_KEY: &str = "rm_sesame-wrong-key";
/// Not rented: the carrier refuses it, and says so with the number.
const OTHER_FROM: &str = "+12025550177";
const SINGLE: &str = "+12025550188";
/// Numbers that are none.
const BAD_NUMBERS: [&str; 3] = ["+1999000", "77712345678901234567", "5550142x"];
const STRANGER: &str = "+12025550199";

/// A carrier at which everything goes wrong now and then.
fn carrier() -> SimulatorOptions {
    let sometimes = Fault {
        probability: 0.15,
        next: 0,
    };
    let webhook = EventFaults {
        duplicated: sometimes,
        reordered: sometimes,
        lost: sometimes,
        ..EventFaults::default()
    };
    SimulatorOptions {
        auth_tokens: vec![CARRIER_TOKEN.to_owned()],
        caller_ids: vec![FROM.to_owned()],
        outcome_mix: OutcomeMix::default(),
        dial_faults: DialFaults {
            too_many_requests: Fault::next(1),
            retry_after_seconds: Some(1),
            error_before: sometimes,
            error_after: sometimes,
            reset_after: sometimes,
            ..DialFaults::default()
        },
        lookup_faults: LookupFaults {
            unavailable: sometimes,
            slow_ms: 0,
        },
        webhook_faults: WebhookFaults {
            ring: webhook,
            answer: EventFaults {
                lost: Fault::default(),
                ..webhook
            },
            hangup: webhook,
        },
        ..quick_carrier()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_holds_nobodys_data() {
    let world = World::new("leaks", carrier()).await;
    let common = [
        ("RUST_LOG", "ringmaster=trace,info"),
        ("JWT_SECRET", JWT_SECRET),
        ("FAILED_CALL_RATE_THRESHOLD", "100"),
        ("BOT_WARMUP_RETRIES", "0"),
    ];
    let text = [&common[..], &[("LOG_FORMAT", "text")]].concat();
    let processes = [world.process(&common).await, world.process(&text).await];
    let mut secrets: Vec<String> = [
        ADMIN_KEY,
        CARRIER_TOKEN,
        JWT_SECRET,
        WRONG_KEY,
        FROM,
        OTHER_FROM,
        SINGLE,
        STRANGER,
        "Zephyrine",
        "zephyrine",
        "Quibblesworth",
        "@mail.example",
        "sesame",
    ]
    .map(str::to_owned)
    .to_vec();
    secrets.extend(BAD_NUMBERS.map(str::to_owned));
    secrets.extend((0..CONTACTS).map(contact));
    secrets.push(world.database.uri.clone());

    let (client, operator) = world
        .client(json!({
            "name": "Quibblesworth", "company": "Quibblesworth Ltd", "email": "boss@mail.example",
            "maxConcurrentCalls": 10, "maxCallsPerCallerId": 5,
        }))
        .await;
    let key = json!({ "role": "viewer", "label": "Quibblesworth's viewer" });
    let key = world
        .admin()
        .post(&format!("/v1/clients/{client}/keys"), &key)
        .await;
    secrets.push(key.created()["key"].as_str().unwrap().to_owned());
    secrets.push(operator.key().to_owned());
    secrets.extend(strangers(&world, &client).await);
    let wrong = json!({ "callerIds": [SINGLE, SINGLE], "maxCallsPerMinute": STRANGER });
    let path = format!("/v1/clients/{client}");
    let reply = world.admin().patch(&path, &wrong).await;
    reply.problem(422, "invalid");

    let list = import(&operator).await;
    let finished = campaigns(&world, &operator, &list).await;
    bad_input(&operator, &list, &finished).await;
    webhooks(&world, &finished).await;

    let said: Vec<String> = processes.iter().map(|one| one.process.output()).collect();
    for message in [
        "dialing",
        "call status changed",
        "dial request failed",
        "reconciled",
        "campaign completed",
        "campaign paused",
        "a bot did not wake",
        "webhook refused",
        "webhook matches no call",
    ] {
        let is_said = said.iter().any(|log| log.contains(message));
        assert!(is_said, "{message:?} did not happen, so this proves little");
    }
    for secret in &secrets {
        for form in [secret.as_str(), secret.trim_start_matches('+')] {
            let leak = said
                .iter()
                .flat_map(|log| log.lines())
                .find(|line| line.contains(form));
            assert_eq!(leak, None, "{secret} is in the log");
        }
    }
}

/// Callers with keys and tokens of all kinds. Returns the tokens.
async fn strangers(world: &World, client: &str) -> Vec<String> {
    let base = &world.admin().base;
    let sign = |claims: Value, secret: &str| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
    };
    let claims = json!({ "clientId": client, "role": "operator", "exp": 4_000_000_000_u32 });
    let good = sign(claims.clone(), JWT_SECRET);
    let forged = sign(claims, "sesame-forged");
    assert_eq!(Api::new(base, &good).get("/v1/lists").await.status, 200);
    assert_eq!(Api::new(base, &forged).get("/v1/lists").await.status, 401);
    assert_eq!(Api::new(base, WRONG_KEY).get("/v1/lists").await.status, 401);
    let nobody = Api::new(base, "");
    let header = nobody.request(Method::GET, "/v1/lists");
    assert_eq!(
        nobody
            .send(header.header("x-api-key", WRONG_KEY))
            .await
            .status,
        401
    );
    vec![good, forged]
}

/// A list with good, bad and double rows.
async fn import(operator: &Api) -> String {
    let good: String = (0..CONTACTS)
        .map(|index| {
            let number = contact(index);
            format!("{number},Zephyrine{index},z{index}@mail.example\n")
        })
        .collect();
    let bad: String = BAD_NUMBERS
        .map(|number| format!("{number},Zephyrine,z@mail.example\n"))
        .concat();
    let double = format!("{},Zephyrine,twice@mail.example\n", contact(0));
    let csv = format!("number,firstName,email\n{good}{bad}{double}");
    let list = operator.upload("Zephyrine's friends", &csv).await.created();
    assert_eq!(list["accepted"], CONTACTS, "{list}");
    assert_eq!(list["rejected"], BAD_NUMBERS.len(), "{list}");
    list["id"].as_str().unwrap().to_owned()
}

/// Runs a campaign to its end, one that the carrier condemns, one whose bot is broken, and a single call. Returns the first.
async fn campaigns(world: &World, operator: &Api, list: &str) -> String {
    let speak = json!({ "type": "speak", "text": "Hello {{firstName}}, sesame {{email}}" });
    let named = json!({ "campaignName": "Zephyrine's campaign", "answer": speak });
    let main = operator.campaign(list, named).await;

    let stream =
        json!({ "type": "stream", "url": "wss://bots.example/ws?token=sesame&who={{email}}" });
    let condemned = json!({ "fromNumber": OTHER_FROM, "answer": stream });
    let condemned = operator.campaign(list, condemned).await;
    operator.until_status(&condemned, "paused").await;

    let bot = format!("{}/nowhere?token=sesame-bot", world.simulator.base_url());
    let short =
        json!([{ "number": contact(0), "firstName": "Zephyrine" }, { "number": BAD_NUMBERS[0] }]);
    let short = json!({ "name": "short", "contacts": short });
    let short = operator.post("/v1/lists", &short).await.created();
    let cold = json!({ "warmupUrl": bot });
    let cold = operator.campaign(short["id"].as_str().unwrap(), cold).await;
    operator.until_status(&cold, "completed").await;

    let call =
        json!({ "from": FROM, "to": SINGLE, "firstName": "Zephyrine", "answer": speak_to_all() });
    let call = operator.post("/v1/calls", &call).await;
    assert!(call.status < 500, "{}", call.body);
    operator.until_status(&main, "completed").await;
    main
}

fn speak_to_all() -> Value {
    json!({ "type": "speak", "text": "Hello {{firstName}}, sesame" })
}

/// Requests that are refused, each with data in the place where it is wrong.
async fn bad_input(operator: &Api, list: &str, campaign: &str) {
    let number = contact(1);
    let bodies = [
        (
            "/v1/lists",
            json!({ "name": "x", "contacts": [{ "phone number": &number }] }),
        ),
        ("/v1/lists", json!({ "name": "x", "contacts": &number })),
        (
            "/v1/calls",
            json!({ "from": FROM, "to": BAD_NUMBERS[1], "answer": speak_to_all() }),
        ),
        (
            "/v1/calls",
            json!({ "from": &number, "to": { "number": SINGLE } }),
        ),
        ("/v1/campaigns", json!({ "Zephyrine": &number })),
        (
            "/v1/campaigns",
            json!({
                "campaignName": "x", "listId": list, "fromNumber": BAD_NUMBERS[2],
                "answer": { "type": "speak", "text": "{{zephyrine@mail.example}}" },
            }),
        ),
    ];
    for (path, body) in bodies {
        let reply = operator.post(path, &body).await;
        assert!(
            (400..500).contains(&reply.status),
            "{path}: {}",
            reply.status
        );
    }
    let broken = format!("{{ \"to\": \"{number}\", oops Zephyrine");
    let request = operator.request(Method::POST, "/v1/calls").body(broken);
    let reply = operator
        .send(request.header("content-type", "application/json"))
        .await;
    assert_eq!(reply.status, 400);
    let reply = operator
        .upload("Zephyrine", &format!("{number}\n\"unclosed {number}"))
        .await;
    assert!((400..500).contains(&reply.status), "{}", reply.body);
    for path in [
        format!("/v1/calls/{number}"),
        format!("/v1/lists/{list}/contacts?cursor={number}"),
        format!("/v1/campaigns?status=Zephyrine{number}"),
        format!("/nothing/{number}?email=zephyrine@mail.example"),
    ] {
        let reply = operator.get(&path).await;
        assert!(
            (400..500).contains(&reply.status),
            "{path}: {}",
            reply.status
        );
    }
    let request = operator
        .request(Method::POST, &format!("/v1/campaigns/{campaign}/pause"))
        .header("idempotency-key", format!("Zephyrine {number}"))
        .header("x-request-id", format!("+{number}"))
        .header("user-agent", "Zephyrine")
        .json(&json!({ "reason": &number }));
    assert!((400..500).contains(&operator.send(request).await.status));
}

/// Webhooks without a signature, with a wrong one, and of calls that nobody knows.
async fn webhooks(world: &World, campaign: &str) {
    let carrier = Api::new(&world.admin().base, "");
    let form: Vec<(String, String)> = [
        ("CallUUID", "00000000-0000-0000-0000-000000000000"),
        ("CallStatus", "ringing"),
        ("CallerName", "Zephyrine"),
        ("Event", "Ring"),
        ("From", FROM),
        ("RequestUUID", "00000000-0000-0000-0000-000000000000"),
        ("To", STRANGER),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    let path = format!(
        "/plivo/ring-url?campaign={campaign}&to={}",
        STRANGER.trim_start_matches('+')
    );
    let url = format!("{}{path}", carrier.base);
    let unsigned = || carrier.request(Method::POST, &path).form(&form);
    let signed = |token: &str| {
        let signature = sign_v3("POST", &url, &form, "4711", token);
        unsigned()
            .header(SIGNATURE_HEADER, signature)
            .header(NONCE_HEADER, "4711")
    };
    assert_eq!(carrier.send(unsigned()).await.status, 403);
    assert_eq!(carrier.send(signed("sesame-forger")).await.status, 403);
    assert_eq!(carrier.send(signed(CARRIER_TOKEN)).await.status, 200);
    // Kept, and looked for again.
    let tick = world.admin().post("/v1/tick", &json!({})).await;
    assert_eq!(tick.status, 200, "{}", tick.body);
}
