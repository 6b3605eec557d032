//! The commands as an operator types them: what they print, their exit codes, and that no secret is ever printed.

use std::collections::BTreeMap;

use mongodb::IndexModel;
use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::helpers::app::{World, quick_carrier, until};
use crate::helpers::mongod::{client, fresh_database};
use crate::helpers::process::{Finished, Process, Served, run};

/// The indexes without which no promise holds: of limits, and of attempts.
const PROMISED_INDEXES: [&str; 2] = ["slots", "attempt"];

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[tokio::test]
async fn a_database_is_checked_and_brought_up_to_date() {
    let database = fresh_database("migrate").await;
    let settings = settings(&[
        ("MONGODB_URI", &database.uri),
        ("MONGODB_DATABASE", &database.name),
    ]);

    let check = run(&["migrate", "--check"], &settings).await;
    assert_eq!(check.code, 1, "{}", check.stderr);
    for index in PROMISED_INDEXES {
        let is_listed = check
            .stdout
            .lines()
            .any(|line| line.starts_with("activeCalls: create index") && line.contains(index));
        assert!(is_listed, "{index} is not in: {}", check.stdout);
    }
    assert!(check.stdout.contains("schema version"), "{}", check.stdout);
    let missing = check.stdout.matches("create index").count();
    let again = run(&["migrate", "--check"], &settings).await;
    assert_eq!(again.stdout, check.stdout, "a check changes nothing");

    let migrate = run(&["migrate"], &settings).await;
    assert_eq!(migrate.code, 0, "{}", migrate.stderr);
    assert_eq!(migrate.stdout.matches("create index").count(), missing);
    let check = run(&["migrate", "--check"], &settings).await;
    assert_eq!(check.code, 0, "{}", check.stdout);
    assert!(!check.stdout.contains("create index"), "{}", check.stdout);
    assert_eq!(run(&["migrate"], &settings).await.code, 0);

    // An index that has the name and does something else holds no promise.
    let mongo = client(&database.uri).await.database(&database.name);
    let calls = mongo.collection::<Document>("activeCalls");
    calls.drop_index("slots_unique").await.unwrap();
    let weaker = IndexModel::builder()
        .keys(doc! { "slots": 1 })
        .options(
            IndexOptions::builder()
                .name("slots_unique".to_owned())
                .build(),
        )
        .build();
    calls.create_index(weaker).await.unwrap();
    let check = run(&["migrate", "--check"], &settings).await;
    assert_eq!(check.code, 1, "{}", check.stdout);
    assert!(
        check
            .stdout
            .starts_with("activeCalls: index slots_unique has other"),
        "{}",
        check.stdout
    );
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_left_alone() {
    let world = World::new("migrate-newer", quick_carrier()).await;
    let settings = world.settings(&[]);
    let mongo = client(&world.database.uri)
        .await
        .database(&world.database.name);
    let schema = mongo.collection::<Document>("schema");
    let newer = doc! { "_id": "schema", "version": 99 };
    schema.insert_one(newer).await.unwrap();
    for arguments in [&["migrate"][..], &["migrate", "--check"]] {
        let refused = run(arguments, &settings).await;
        assert_eq!(refused.code, 1, "{arguments:?}: {}", refused.stdout);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(said.contains("run the newer program"), "{said}");
    }
    let served = Served::start(settings).await;
    until("it has tried", async || {
        !served
            .process
            .logged("the database is not ready")
            .is_empty()
    })
    .await;
    assert_eq!(served.admin().get("/health/ready").await.status, 503);
    let health = served.admin().get("/health").await.ok();
    assert_eq!(health["status"], "unavailable", "{health}");
    let collections = mongo.list_collection_names().await.unwrap();
    assert_eq!(collections, ["schema"], "nothing was created");
}

#[tokio::test]
async fn a_database_that_is_away_is_told_without_its_address() {
    let settings = settings(&[(
        "MONGODB_URI",
        "mongodb://someone:sesame@127.0.0.1:1/?serverSelectionTimeoutMS=200",
    )]);
    let check = run(&["migrate", "--check"], &settings).await;
    assert_ne!(check.code, 0);
    assert!(check.stderr.contains("cannot be used"), "{}", check.stderr);
    says_nothing_of(&check, &["sesame", "someone", "127.0.0.1"]);
    let nothing = run(&["migrate"], &BTreeMap::new()).await;
    assert_ne!(nothing.code, 0);
    assert!(nothing.stderr.contains("MONGODB_URI"), "{}", nothing.stderr);
}

#[tokio::test]
async fn the_openapi_document_is_printed() {
    let printed = run(&["openapi"], &BTreeMap::new()).await;
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    let document: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert!(document["paths"]["/v1/campaigns"]["post"].is_object());
}

#[tokio::test]
async fn serve_names_every_fault_at_once() {
    let nothing = run(&["serve"], &BTreeMap::new()).await;
    names(
        &nothing,
        &[
            "MONGODB_URI",
            "BASE_URL",
            "PLIVO_AUTH_ID",
            "PLIVO_AUTH_TOKEN",
        ],
    );

    let secrets = [
        ("ADMIN_API_KEY", "sesame-admin"),
        ("JWT_SECRET", "sesame-jwt"),
        ("PLIVO_AUTH_TOKEN", "sesame-token"),
    ];
    let bad = [
        ("MONGODB_URI", "sesame-mongo:27017"),
        ("BASE_URL", "sesame-url"),
        ("PORT", "99999"),
        ("HOST", "sesame-host"),
        ("PLIVO_CPS", "-1"),
        ("GLOBAL_MAX_CALLS", "0"),
        ("MAX_RINGING_TIME", "sesame-time"),
        ("HEARTBEAT_INTERVAL", "100000"),
        ("LOG_FORMAT", "sesame-format"),
        ("RUST_LOG", "sesame=sesame=sesame"),
        ("ALLOW_PRIVATE_URLS", "perhaps"),
    ];
    let mut all = settings(&secrets);
    all.extend(settings(&bad));
    let refused = run(&["serve"], &all).await;
    let mut expected: Vec<&str> = bad.iter().map(|(name, _)| *name).collect();
    // Missing, and named with the others.
    expected.push("PLIVO_AUTH_ID");
    names(&refused, &expected);
    says_nothing_of(&refused, &["sesame"]);
    for (name, _) in secrets {
        assert!(!refused.stderr.contains(name), "{name} is in order");
    }
}

#[tokio::test]
async fn serve_says_so_when_the_port_is_taken() {
    let database = fresh_database("cli-port").await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = run(
        &["serve"],
        &settings(&[
            ("HOST", "127.0.0.1"),
            ("PORT", &port),
            ("MONGODB_URI", &database.uri),
            ("BASE_URL", "https://calls.example"),
            ("PLIVO_AUTH_ID", "MATEST00000000000000"),
            ("PLIVO_AUTH_TOKEN", "sesame-token"),
        ]),
    )
    .await;
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("port"), "{}", refused.stderr);
    says_nothing_of(&refused, &["sesame", &database.uri]);
}

#[tokio::test]
async fn help_says_what_there_is() {
    let serve = run(&["serve", "--help"], &BTreeMap::new()).await;
    assert_eq!(serve.code, 0, "{}", serve.stderr);
    assert!(serve.stdout.contains("Serve"), "{}", serve.stdout);
    let all = run(&["--help"], &BTreeMap::new()).await;
    assert_eq!(all.code, 0);
    for command in [
        "serve",
        "migrate",
        "demo",
        "simulate",
        "openapi",
        "healthcheck",
    ] {
        assert!(all.stdout.contains(command), "{}", all.stdout);
    }
    let unknown = run(&["serf"], &BTreeMap::new()).await;
    assert_ne!(unknown.code, 0);
    assert!(unknown.stderr.contains("serf"), "{}", unknown.stderr);
}

#[tokio::test]
async fn the_simulator_has_the_account_of_the_environment() {
    let account = settings(&[
        ("PLIVO_AUTH_ID", "MACHOSEN000000000000"),
        ("PLIVO_AUTH_TOKEN", "sesame"),
    ]);
    let arguments = ["simulate", "--listen", "127.0.0.1:0"];
    let mut simulator = Process::start(&arguments, &account).await;
    until("it says where it listens", async || {
        simulator.stdout().contains("PLIVO_AUTH_TOKEN=")
    })
    .await;
    let said = simulator.stdout();
    assert!(!said.contains("sesame"), "{said}");
    assert!(
        said.contains("PLIVO_AUTH_ID=MACHOSEN000000000000"),
        "{said}"
    );
    let (_, base) = said.split_once("PLIVO_API_BASE=").unwrap();
    let base = base.split_whitespace().next().unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let dial = async |account: &str, token: &str| {
        let body = json!({
            "from": "+12025550100", "to": "+12025550143", "answer_url": "http://127.0.0.1:9/", "answer_method": "POST",
        });
        let request = http.post(format!("{base}/v1/Account/{account}/Call/"));
        let request = request.basic_auth(account, Some(token)).json(&body);
        request.send().await.unwrap().status().as_u16()
    };
    let default = "MASIMULATOR000000000";
    assert_eq!(dial(default, "simulator-auth-token").await, 401);
    assert_eq!(dial("MACHOSEN000000000000", "sesame").await, 201);
    simulator.signal("TERM").await;
    assert_eq!(simulator.exit().await, 0);

    let mut simulator = Process::start(&arguments, &BTreeMap::new()).await;
    until("it names its default account", async || {
        let expected = format!("PLIVO_AUTH_ID={default} PLIVO_AUTH_TOKEN=simulator-auth-token");
        simulator.stdout().contains(&expected)
    })
    .await;
    simulator.signal("TERM").await;
    assert_eq!(simulator.exit().await, 0);
}

/// What the container's HEALTHCHECK runs.
#[tokio::test]
async fn a_health_check_tells_life_from_death() {
    let world = World::new("cli-health", quick_carrier()).await;
    let mut served = Served::start(world.settings(&[])).await;
    let port = settings(&[("PORT", &served.address.port().to_string())]);
    until("it is healthy", async || {
        run(&["healthcheck"], &port).await.code == 0
    })
    .await;
    // It asks where the service listens, and here nobody does.
    let mut elsewhere = port.clone();
    elsewhere.insert("HOST".to_owned(), "127.0.0.2".to_owned());
    assert_ne!(run(&["healthcheck"], &elsewhere).await.code, 0);
    served.process.signal("KILL").await;
    served.process.exit().await;
    assert_ne!(run(&["healthcheck"], &port).await.code, 0);
}

/// Without its unique indexes no limit holds: a service whose database cannot be prepared lets nothing in, and says so.
#[tokio::test]
async fn an_unprepared_database_is_not_ready() {
    let world = World::new("cli-unprepared", quick_carrier()).await;
    let mongo = client(&world.database.uri).await;
    let calls = mongo
        .database(&world.database.name)
        .collection::<Document>("activeCalls");
    let wanted = run(&["migrate", "--check"], &world.settings(&[])).await;
    let name = wanted
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("activeCalls: create index "))
        .unwrap();
    let another = IndexModel::builder()
        .keys(doc! { "somethingElse": 1 })
        .options(IndexOptions::builder().name(name.to_owned()).build())
        .build();
    calls.create_index(another).await.unwrap();

    let served = Served::start(world.settings(&[])).await;
    until("it has tried", async || {
        !served
            .process
            .logged("the database is not ready")
            .is_empty()
    })
    .await;
    let admin = served.admin();
    assert_eq!(admin.get("/health/live").await.status, 200);
    assert_eq!(admin.get("/health/ready").await.status, 503);
    admin.get("/v1/clients").await.problem(503, "unavailable");

    calls.drop_index(name).await.unwrap();
    served.until_ready().await;
    assert_eq!(admin.get("/health/ready").await.status, 200);
}

/// It failed, and its one message names exactly these settings as faults.
#[track_caller]
fn names(finished: &Finished, settings: &[&str]) {
    assert_ne!(finished.code, 0);
    for setting in settings {
        let is_named = finished.stderr.contains(&format!("{setting}: "));
        assert!(is_named, "{setting} is not in: {}", finished.stderr);
    }
    let count = format!("{} setting(s)", settings.len());
    assert!(finished.stderr.contains(&count), "{}", finished.stderr);
}

#[track_caller]
fn says_nothing_of(finished: &Finished, secrets: &[&str]) {
    for secret in secrets {
        assert!(!finished.stdout.contains(secret), "{}", finished.stdout);
        assert!(!finished.stderr.contains(secret), "{}", finished.stderr);
    }
}
