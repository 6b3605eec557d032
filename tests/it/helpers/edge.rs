//! The HTTP edge alone, on a real MongoDB and a free port: no dispatcher, no carrier.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use mongodb::Database;
use reqwest::{Method, RequestBuilder};
use ringmaster::app::{self, Assembly};

use ringmaster::config::Config;
use ringmaster::router::router;
use ringmaster::services::store::Store;
use ringmaster::state::AppState;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::mongod::{self, TestDatabase};

pub(crate) const ADMIN: &str = "the-admin-key-of-the-tests";
pub(crate) const JWT_SECRET: &str = "the-jwt-secret-of-the-tests";
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// A running edge.
pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    pub(crate) state: AppState,
    pub(crate) store: Store,
    pub(crate) database: Database,
    http: reqwest::Client,
    _dropped_last: TestDatabase,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The answer as a resource, which must have this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    /// The answer as a problem, which must have this status and code, be told as such, and have the request's id.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["requestId"].as_str(), self.header("x-request-id"));
        problem
    }
}

impl Edge {
    pub(crate) async fn start(test: &str) -> Self {
        Self::start_with(test, &[], |_, router| router).await
    }

    /// With further settings, and further routes beside the real ones.
    pub(crate) async fn start_with(
        test: &str,
        settings: &[(&str, &str)],
        extend: impl FnOnce(&AppState, Router) -> Router,
    ) -> Self {
        super::logs::capture();
        let fresh = mongod::fresh_database(test).await;
        let mut variables = BTreeMap::from([
            ("MONGODB_URI".to_owned(), fresh.uri.clone()),
            ("MONGODB_DATABASE".to_owned(), fresh.name.clone()),
            ("ADMIN_API_KEY".to_owned(), ADMIN.to_owned()),
            ("JWT_SECRET".to_owned(), JWT_SECRET.to_owned()),
            ("BASE_URL".to_owned(), "http://127.0.0.1:9".to_owned()),
            ("PLIVO_API_BASE".to_owned(), "http://127.0.0.1:9".to_owned()),
            (
                "PLIVO_AUTH_ID".to_owned(),
                "MATEST00000000000000".to_owned(),
            ),
            ("PLIVO_AUTH_TOKEN".to_owned(), "test-token".to_owned()),
        ]);
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        variables.extend(settings);
        let config = Config::from_map(&variables).unwrap();
        let Assembly { state, store, .. } = app::assemble(config).await.unwrap();
        let lifecycle = state.lifecycle.clone();
        // A test of an unreachable database names one that is not there.
        if variables["MONGODB_URI"] == fresh.uri {
            store.migrate().await.unwrap();
        }
        state.is_prepared.store(true, Ordering::Release);
        let router = extend(&state, router(&state));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        lifecycle.spawn_background("edge", async move {
            axum::serve(listener, router).await.unwrap();
        });
        Self {
            address,
            state,
            store,
            database: mongod::client(&fresh.uri).await.database(&fresh.name),
            http: reqwest::Client::builder()
                .timeout(TIME_LIMIT)
                .build()
                .unwrap(),
            _dropped_last: fresh,
        }
    }

    pub(crate) fn request(&self, method: Method, key: &str, path: &str) -> RequestBuilder {
        let request = self
            .http
            .request(method, format!("http://{}{path}", self.address));
        if key.is_empty() {
            request
        } else {
            request.bearer_auth(key)
        }
    }

    pub(crate) async fn get(&self, key: &str, path: &str) -> Answer {
        send(self.request(Method::GET, key, path)).await
    }

    pub(crate) async fn delete(&self, key: &str, path: &str) -> Answer {
        send(self.request(Method::DELETE, key, path)).await
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, key, path).json(body)).await
    }

    pub(crate) async fn patch(&self, key: &str, path: &str, body: &Value) -> Answer {
        send(self.request(Method::PATCH, key, path).json(body)).await
    }

    /// A new client's id.
    pub(crate) async fn client(&self, name: &str) -> String {
        let client = self
            .post(ADMIN, "/v1/clients", &json!({"name": name}))
            .await
            .expect(201);
        client["id"].as_str().unwrap().to_owned()
    }

    /// A new key of a client, with its id.
    pub(crate) async fn key(&self, client: &str, role: &str) -> (String, String) {
        let path = format!("/v1/clients/{client}/keys");
        let key = self
            .post(ADMIN, &path, &json!({"role": role}))
            .await
            .expect(201);
        let text = |name: &str| key[name].as_str().unwrap().to_owned();
        (text("key"), text("id"))
    }

    /// A new client with an operator's key: its id and the key.
    pub(crate) async fn tenant(&self, name: &str) -> (String, String) {
        let client = self.client(name).await;
        let (key, _) = self.key(&client, "operator").await;
        (client, key)
    }

    /// How many documents a collection has.
    pub(crate) async fn count(&self, collection: &str) -> u64 {
        let collection = self
            .database
            .collection::<mongodb::bson::Document>(collection);
        collection
            .count_documents(mongodb::bson::doc! {})
            .await
            .unwrap()
    }
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        text: response.text().await.unwrap(),
    }
}
