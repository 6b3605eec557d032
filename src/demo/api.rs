//! The public API as an operator's program uses it.

use std::time::Duration;

use anyhow::Context;
use reqwest::multipart::{Form, Part};
use serde_json::Value;

/// Longest wait for an answer; an upload may take a while.
const ANSWER_TIME: Duration = Duration::from_secs(120);

/// One caller.
pub(super) struct Api {
    pub(super) base: String,
    pub(super) key: String,
    http: reqwest::Client,
}

impl Api {
    pub(super) fn new(base: &str, key: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(ANSWER_TIME)
            .no_proxy()
            .build()?;
        Ok(Self {
            base: base.to_owned(),
            key: key.to_owned(),
            http,
        })
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(path, self.http.get(self.url(path))).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(path, self.http.post(self.url(path)).json(body))
            .await
    }

    /// Uploads a contact list.
    pub(super) async fn upload(
        &self,
        name: &str,
        country: &str,
        csv: Vec<u8>,
    ) -> anyhow::Result<Value> {
        let file = Part::bytes(csv)
            .file_name("contacts.csv")
            .mime_str("text/csv")?;
        let form = Form::new()
            .text("name", name.to_owned())
            .text("defaultCountry", country.to_owned())
            .part("file", file);
        let path = "/v1/lists";
        self.send(path, self.http.post(self.url(path)).multipart(form))
            .await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(&self, path: &str, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let response = request
            .bearer_auth(&self.key)
            .send()
            .await
            .context("the server does not answer")?;
        let status = response.status();
        let body: Value = response.json().await.unwrap_or_default();
        let detail = body["detail"].as_str().unwrap_or("no reason given");
        anyhow::ensure!(status.is_success(), "{path} answered {status}: {detail}");
        Ok(body)
    }
}
