//! A whole world for one test: its own database, its own carrier, a public address, and as many containers as it likes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use ringmaster::app::{Application, Ended};
use ringmaster::config::Config;
use ringmaster::simulator::{ApiLimit, MsRange, OutcomeMix, Simulator, SimulatorOptions};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::mongod::{TestDatabase, fresh_database};

pub(crate) const ADMIN_KEY: &str = "admin-key-of-the-tests";
pub(crate) const FROM: &str = "+12025550100";
/// How long a test waits for something to come true before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A carrier that is quick and does what it is asked: everybody answers and talks for a moment.
pub(crate) fn quick_carrier() -> SimulatorOptions {
    SimulatorOptions {
        cps: 0,
        api_limit: ApiLimit {
            requests: 1_000_000,
            window_ms: 5000,
        },
        outcome_mix: OutcomeMix::ANSWERED,
        ring_delay_ms: MsRange::exactly(5),
        ring_duration_ms: MsRange { min: 5, max: 15 },
        talk_duration_ms: MsRange { min: 20, max: 60 },
        cdr_delay_ms: 0,
        webhook_retry_spacing_ms: 50,
        seed: Some(7),
        ..SimulatorOptions::default()
    }
}

/// The world of one test.
pub(crate) struct World {
    pub(crate) database: TestDatabase,
    pub(crate) simulator: Simulator,
    pub(crate) balancer: Balancer,
    auth_id: String,
    token: String,
}

impl World {
    pub(crate) async fn new(name: &str, options: SimulatorOptions) -> Self {
        Self::on(fresh_database(name).await, options).await
    }

    /// A world whose state is in `database`.
    pub(crate) async fn on(database: TestDatabase, options: SimulatorOptions) -> Self {
        show_log();
        let (auth_id, token) = (options.auth_id.clone(), options.auth_tokens[0].clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            database,
            simulator: Simulator::start(listener, options).await.unwrap(),
            balancer: Balancer::start().await,
            auth_id,
            token,
        }
    }

    /// The settings of a container in this world: no pauses, short deadlines; `overrides` win.
    pub(crate) fn settings(&self, overrides: &[(&str, &str)]) -> BTreeMap<String, String> {
        let base_url = format!("http://{}", self.balancer.address);
        let api = self.simulator.base_url();
        let defaults = [
            ("MONGODB_URI", self.database.uri.as_str()),
            ("MONGODB_DATABASE", &self.database.name),
            ("BASE_URL", &base_url),
            ("PLIVO_AUTH_ID", &self.auth_id),
            ("PLIVO_AUTH_TOKEN", &self.token),
            ("PLIVO_API_BASE", &api),
            ("PLIVO_CPS", "1000"),
            ("ADMIN_API_KEY", ADMIN_KEY),
            ("GLOBAL_MAX_CALLS", "50"),
            ("MAX_CALLS_PER_MINUTE", "60000"),
            ("SUBSEQUENT_CALL_WAIT", "0"),
            ("MAX_CONCURRENT_CALL_WAIT", "1000"),
            ("MAX_PROCESSED_TIME", "1000"),
            ("MAX_RINGING_TIME", "2000"),
            ("MAX_ONGOING_TIME", "3000"),
            ("CALL_TIMEOUT_MINUTES", "0.1"),
            ("CLEANUP_INTERVAL", "1000"),
            ("HEARTBEAT_INTERVAL", "300"),
            ("ORPHAN_DETECTION_THRESHOLD", "2000"),
            ("CONTAINER_SHUTDOWN_GRACE", "10000"),
            ("ALLOW_PRIVATE_URLS", "true"),
        ];
        defaults
            .iter()
            .chain(overrides)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// Starts a container behind the public address.
    pub(crate) async fn container(&self, overrides: &[(&str, &str)]) -> Container {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config::from_map(&self.settings(overrides)).unwrap();
        let application = Application::build(config, listener).await.unwrap();
        let address = application.address().unwrap();
        let id = application.container().to_owned();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(application.run(async move {
            stopped.await.ok();
        }));
        self.balancer.add(address);
        let container = Container {
            address,
            id,
            stop: Some(stop),
            task: Some(task),
        };
        container.until_ready().await;
        container
    }

    /// The admin's view through the public address.
    pub(crate) fn admin(&self) -> Api {
        Api::new(&format!("http://{}", self.balancer.address), ADMIN_KEY)
    }

    /// A client with these limits, and an operator's view of it.
    pub(crate) async fn client(&self, body: Value) -> (String, Api) {
        let admin = self.admin();
        let client = admin.post("/v1/clients", &body).await.created();
        let id = client["id"].as_str().unwrap().to_owned();
        let key = admin
            .post(
                &format!("/v1/clients/{id}/keys"),
                &json!({ "role": "operator", "label": "test" }),
            )
            .await
            .created();
        (id, Api::new(&admin.base, key["key"].as_str().unwrap()))
    }
}

/// A container that runs in this process.
pub(crate) struct Container {
    pub(crate) address: SocketAddr,
    pub(crate) id: String,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Ended>>,
}

impl Container {
    /// SIGTERM.
    pub(crate) async fn stop(mut self) -> Ended {
        self.stop.take().unwrap().send(()).ok();
        self.task.take().unwrap().await.unwrap()
    }

    pub(crate) fn api(&self, key: &str) -> Api {
        Api::new(&format!("http://{}", self.address), key)
    }

    async fn until_ready(&self) {
        let api = self.api(ADMIN_KEY);
        until("the container is ready", async || {
            api.get("/v1/containers").await.status == 200
        })
        .await;
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// An answer of the API.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Reply {
    #[track_caller]
    pub(crate) fn created(self) -> Value {
        assert_eq!(self.status, 201, "{}", self.body);
        self.body
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// A problem with this status and code.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(
            (self.status, self.body["code"].as_str()),
            (status, Some(code)),
            "{}",
            self.body
        );
        assert_eq!(self.headers["content-type"], "application/problem+json");
        self.body
    }
}

/// The API as one caller sees it.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) base: String,
    key: String,
    http: reqwest::Client,
}

impl Api {
    pub(crate) fn new(base: &str, key: &str) -> Self {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(40))
            .no_proxy()
            .build()
            .unwrap();
        Self {
            base: base.to_owned(),
            key: key.to_owned(),
            http,
        }
    }

    /// The key that it sends; empty for nobody.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::PATCH, path).json(body))
            .await
    }

    /// Uploads a CSV file.
    pub(crate) async fn upload(&self, name: &str, csv: &str) -> Reply {
        let file = Part::text(csv.to_owned())
            .file_name("contacts.csv")
            .mime_str("text/csv")
            .unwrap();
        let form = Form::new().text("name", name.to_owned()).part("file", file);
        self.send(self.request(Method::POST, "/v1/lists").multipart(form))
            .await
    }

    /// A list of `count` fictitious contacts, numbered from `first`.
    pub(crate) async fn list_of(&self, first: usize, count: usize) -> String {
        let rows: String = (first..first + count)
            .map(|number| format!("{},Name{number}\n", contact(number)))
            .collect();
        let list = self
            .upload("list", &format!("number,firstName\n{rows}"))
            .await
            .created();
        assert_eq!(
            (list["status"].as_str(), list["accepted"].as_u64()),
            (Some("ready"), Some(count as u64)),
            "{list}"
        );
        list["id"].as_str().unwrap().to_owned()
    }

    /// Creates a campaign over the list with these fields on top of the least ones.
    pub(crate) async fn campaign(&self, list: &str, more: Value) -> String {
        let mut body = json!({
            "campaignName": "test", "listId": list, "fromNumber": FROM,
            "answer": { "type": "speak", "text": "Hello {{firstName}}" },
        });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let campaign = self.post("/v1/campaigns", &body).await.created();
        campaign["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn progress(&self, campaign: &str) -> Value {
        self.get(&format!("/v1/campaigns/{campaign}/progress"))
            .await
            .ok()
    }

    /// Waits until the campaign has this status; answers its progress then.
    pub(crate) async fn until_status(&self, campaign: &str, status: &str) -> Value {
        let last = Mutex::new(Value::Null);
        until(&format!("campaign is {status}"), async || {
            let progress = self.progress(campaign).await;
            let done = progress["status"] == status;
            *last.lock().unwrap() = progress;
            done
        })
        .await;
        last.into_inner().unwrap()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        if self.key.is_empty() {
            request
        } else {
            request.bearer_auth(&self.key)
        }
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        match request.send().await {
            Ok(response) => {
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                let body = response.bytes().await.unwrap_or_default();
                Reply {
                    status,
                    headers,
                    body: serde_json::from_slice(&body).unwrap_or(Value::Null),
                }
            }
            // No container is there to answer: as a load balancer would say it.
            Err(_) => Reply {
                status: StatusCode::BAD_GATEWAY.as_u16(),
                headers: Default::default(),
                body: Value::Null,
            },
        }
    }
}

/// `TEST_LOG=info,ringmaster=debug` shows what the service logs.
#[expect(
    clippy::disallowed_methods,
    reason = "a switch for people who look for a fault"
)]
fn show_log() {
    if let Ok(filter) = std::env::var("TEST_LOG") {
        // Another test of this process may have set it up already.
        ringmaster::utils::telemetry::init(&filter, false).ok();
    }
}

/// The number of the contact `index`, fictitious.
pub(crate) fn contact(index: usize) -> String {
    format!("+1{:03}555{:04}", 201 + index / 10_000, index % 10_000)
}

/// Waits until `condition` holds, and fails when it does not within [`PATIENCE`].
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, holds).await.is_ok(),
        "in vain: {what}"
    );
}

/// The public address: passes each connection to a container that accepts it, as a load balancer does.
pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
    backends: Arc<Mutex<Vec<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Balancer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backends: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let known = Arc::clone(&backends);
        let task = tokio::spawn(async move {
            let mut next = 0;
            while let Ok((mut client, _)) = listener.accept().await {
                next += 1;
                let order = known.lock().unwrap().clone();
                tokio::spawn(async move {
                    for turn in 0..order.len() {
                        if let Ok(mut backend) =
                            TcpStream::connect(order[(next + turn) % order.len()]).await
                        {
                            tokio::io::copy_bidirectional(&mut client, &mut backend)
                                .await
                                .ok();
                            return;
                        }
                    }
                });
            }
        });
        Self {
            address,
            backends,
            task,
        }
    }

    pub(crate) fn add(&self, address: SocketAddr) {
        self.backends.lock().unwrap().push(address);
    }

    pub(crate) fn remove(&self, address: SocketAddr) {
        self.backends
            .lock()
            .unwrap()
            .retain(|known| *known != address);
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
