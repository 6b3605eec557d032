//! The public API as its users see it, with the times at which they were answered.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::utils::clock::Clock;

/// An answer, or none.
#[derive(Debug, Clone, Default)]
pub(super) struct Reply {
    /// HTTP status; 0 where nobody answered.
    pub(super) status: u16,
    pub(super) body: Value,
    /// Unix ms.
    pub(super) answered_at: i64,
}

impl Reply {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Nobody answered, or the service said that it could not work: the request may or may not have been carried out.
    pub(super) fn is_uncertain(&self) -> bool {
        self.status == 0 || self.status >= 500
    }

    /// A field of the body that is a text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.body[name].as_str().map(str::to_owned)
    }
}

/// One caller. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Api {
    http: reqwest::Client,
    clock: Clock,
    key: Option<String>,
}

impl Api {
    /// A caller with `key`, who waits for answers for `patience`.
    pub(super) fn new(
        key: Option<&str>,
        clock: &Clock,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(patience)
            .connect_timeout(Duration::from_secs(2))
            .retry(reqwest::retry::never())
            .no_proxy()
            .build()?;
        Ok(Self {
            http,
            clock: clock.clone(),
            key: key.map(str::to_owned),
        })
    }

    /// The same caller with another patience.
    pub(super) fn with_patience(&self, patience: Duration) -> anyhow::Result<Self> {
        Self::new(self.key.as_deref(), &self.clock, patience)
    }

    pub(super) async fn get(&self, at: SocketAddr, path: &str) -> Reply {
        self.send(self.request(Method::GET, at, path)).await
    }

    /// `once` is the Idempotency-Key.
    pub(super) async fn post(
        &self,
        at: SocketAddr,
        path: &str,
        body: &Value,
        once: Option<&str>,
    ) -> Reply {
        let request = self.request(Method::POST, at, path).json(body);
        self.send(match once {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        })
        .await
    }

    pub(super) async fn patch(&self, at: SocketAddr, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::PATCH, at, path).json(body))
            .await
    }

    pub(super) fn request(&self, method: Method, at: SocketAddr, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("http://{at}{path}"));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub(super) async fn send(&self, request: RequestBuilder) -> Reply {
        let (mut status, mut body) = (0, Value::Null);
        if let Ok(response) = request.send().await {
            let answered = response.status().as_u16();
            // An answer that breaks off is none.
            if let Ok(bytes) = response.bytes().await {
                status = answered;
                body = serde_json::from_slice(&bytes).unwrap_or_default();
            }
        }
        Reply {
            status,
            body,
            answered_at: self.clock.now().timestamp_millis(),
        }
    }
}
