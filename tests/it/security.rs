//! What a hostile user, or one whose key was taken away, can do: nothing (promises P7, P8).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};
use ringmaster::app::assemble;
use ringmaster::config::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::helpers::app::{ADMIN_KEY, FROM, World, contact, quick_carrier, until};
use crate::helpers::mongod::client;

/// Addresses that nobody may name, in several spellings.
const INTERNAL: [&str; 9] = [
    "127.0.0.1",
    "2130706433",
    "[::ffff:127.0.0.1]",
    "10.1.2.3",
    "169.254.169.254",
    "[fd00:ec2::254]",
    "localhost",
    "metadata.google.internal",
    "mongo",
];

const GUARDED: (&str, &str) = ("ALLOW_PRIVATE_URLS", "false");

/// The paths at fault.
fn paths(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().unwrap().iter();
    errors
        .map(|error| error["path"].as_str().unwrap())
        .collect()
}

/// A bot on loopback that is always awake, and how often it was asked.
async fn bot() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/warm", listener.local_addr().unwrap());
    let asked: Arc<AtomicUsize> = Arc::default();
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let answer = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            drop(connection.read(&mut [0; 4096]).await);
            connection.write_all(answer.as_bytes()).await.ok();
        }
    });
    (url, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn internal_addresses_are_refused_when_they_are_given() {
    let world = World::new("ssrf", quick_carrier()).await;
    let _container = world.container(&[GUARDED]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 1).await;
    for host in INTERNAL {
        for (kind, scheme) in [("stream", "wss"), ("play", "https"), ("xml", "http")] {
            let url = format!("{scheme}://{host}/secret?who={{{{firstName}}}}");
            let answer = json!({ "type": kind, "url": url });
            let warmup = format!("http://{host}:8080/warm");
            let campaign = json!({
                "campaignName": "x", "listId": list, "fromNumber": FROM, "answer": answer, "warmupUrl": warmup,
            });
            let call =
                json!({ "from": FROM, "to": contact(7), "answer": answer, "warmupUrl": warmup });
            for (path, body) in [("/v1/campaigns", campaign), ("/v1/calls", call)] {
                let problem = operator.post(path, &body).await.problem(422, "invalid");
                assert_eq!(paths(&problem), ["answer.url", "warmupUrl"], "{problem}");
                assert!(!problem.to_string().contains("secret"), "{problem}");
            }
        }
    }
    // A form that cannot be is told by itself.
    for warmup in ["bot", "ftp://bots.example.com/", "https://h/{{firstName}}"] {
        let speak = json!({ "type": "speak", "text": "Hi" });
        let call = json!({ "from": FROM, "to": contact(7), "answer": speak, "warmupUrl": warmup });
        let problem = operator.post("/v1/calls", &call).await;
        assert_eq!(paths(&problem.problem(422, "invalid")), ["warmupUrl"]);
    }
    assert_eq!(world.simulator.stats().requests, 0, "nobody was dialed");
    let campaigns = operator.get("/v1/campaigns").await.ok();
    assert_eq!(campaigns["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_internal_bot_is_not_asked_either_unless_it_is_our_own_setting() {
    let world = World::new("ssrf-connect", quick_carrier()).await;
    let (users, users_asked) = bot().await;
    let (own, own_asked) = bot().await;
    let settings = [
        GUARDED,
        ("BOT_WARMUP_URL", &own),
        ("BOT_WARMUP_RETRIES", "0"),
        ("FAILED_CALL_RATE_THRESHOLD", "100"),
    ];
    let _container = world.container(&settings).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    let list = operator.list_of(0, 2).await;
    let good = operator.campaign(&list, json!({})).await;
    let progress = operator.until_status(&good, "completed").await;
    assert_eq!(progress["final"]["answered"], 2, "{progress}");
    assert!(own_asked.load(Ordering::SeqCst) > 0);

    // It got into the database some other way: an earlier system, or a container with other settings.
    let later = json!({ "scheduledAt": "2999-01-01T00:00:00Z" });
    let smuggled = operator.campaign(&list, later).await;
    let database = client(&world.database.uri).await;
    let campaigns = database.database(&world.database.name);
    let campaigns = campaigns.collection::<Document>("plivoCampaign");
    let id = ObjectId::parse_str(&smuggled).unwrap();
    let change = doc! { "warmupUrl": users, "scheduledAt": DateTime::from_millis(0) };
    campaigns
        .update_one(doc! { "_id": id }, doc! { "$set": change })
        .await
        .unwrap();
    let progress = operator.until_status(&smuggled, "completed").await;
    assert_eq!(progress["final"]["bot_not_ready"], 2, "{progress}");
    assert_eq!(users_asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the measured time is of interest")]
async fn a_key_revoked_on_one_container_is_refused_on_every_other_within_5_s() {
    let world = World::new("revoked", quick_carrier()).await;
    let containers = [
        world.container(&[]).await,
        world.container(&[]).await,
        world.container(&[]).await,
    ];
    let (client, operator) = world.client(json!({ "name": "Acme" })).await;
    // Each has it in its cache, as fresh as can be.
    for container in &containers {
        let answer = container.api(operator.key()).get("/v1/lists").await;
        assert_eq!(answer.status, 200);
    }
    let admin = containers[0].api(ADMIN_KEY);
    let keys = admin.get(&format!("/v1/clients/{client}/keys")).await.ok();
    let id = keys["items"][0]["id"].as_str().unwrap();
    let revoked = Instant::now();
    let answer = admin.delete(&format!("/v1/keys/{id}")).await;
    assert_eq!(answer.status, 204);
    for container in &containers {
        let api = container.api(operator.key());
        until("the key is refused", async || {
            api.get("/v1/lists").await.status == 401
        })
        .await;
    }
    let took = revoked.elapsed();
    eprintln!("a revoked key was refused on all containers after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn nothing_that_the_service_is_built_of_prints_a_secret() {
    let secrets = [
        ("ADMIN_API_KEY", "sesame-admin"),
        ("JWT_SECRET", "sesame-jwt"),
        ("PLIVO_AUTH_TOKEN", "sesame-plivo-a,sesame-plivo-b"),
        ("MONGODB_URI", "mongodb://user:sesame-db@127.0.0.1:9/"),
        (
            "BOT_WARMUP_URL",
            "https://bots.example.com/?token=sesame-bot",
        ),
        ("BASE_URL", "https://ringmaster.example.com"),
        ("PLIVO_AUTH_ID", "MATEST00000000000000"),
    ];
    let variables = secrets.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::from_map(&variables.into()).unwrap();
    let printed = format!("{config:?} {config:#?}");
    assert!(!printed.contains("sesame"), "{printed}");
    // All parts, as far down as they print.
    let assembly = assemble(config).await.unwrap();
    let printed = format!("{assembly:?} {assembly:#?}");
    assert!(!printed.contains("sesame"), "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_may_be_kept_by_a_cache() {
    let world = World::new("headers", quick_carrier()).await;
    let _container = world.container(&[]).await;
    let (_, operator) = world.client(json!({ "name": "Acme" })).await;
    for path in [
        "/v1/lists",
        "/v1/lists/nothing",
        "/nowhere",
        "/health/live",
        "/docs/",
    ] {
        let headers = operator.get(path).await.headers;
        assert_eq!(headers["cache-control"], "no-store", "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["x-frame-options"], "DENY", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert!(headers.contains_key("content-security-policy"), "{path}");
    }
}
