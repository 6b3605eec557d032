//! Sending webhooks: encoding, signing, time-outs, and the retries that the URL's fragment asks for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use url::{Url, form_urlencoded};

use crate::services::carrier::plivo_signature;

use super::Shared;
use super::books::Delivery;
use super::dial::Method;
use super::webhooks::Webhook;
use super::xml_check::LARGEST_DOCUMENT;

/// The answer of a webhook's receiver, if its status was 2xx.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: Option<String>,
    /// One byte more than a document may have, at most.
    pub(super) body: Vec<u8>,
}

/// Why a webhook was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Connect,
    Read,
    Status(u16),
}

/// What the fragment of a callback URL configures ("callback configurations" of Plivo's docs). Keys that are missing,
/// malformed or out of range keep their default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RetryRules {
    connect: Duration,
    read: Duration,
    total: Duration,
    retries: u32,
    on_connect: bool,
    on_read: bool,
    on_4xx: bool,
    on_5xx: bool,
}

impl RetryRules {
    fn of(url: &str) -> Self {
        let mut rules = Self {
            connect: Duration::from_millis(2_000),
            read: Duration::from_millis(40_000),
            total: Duration::from_millis(55_000),
            retries: 1,
            on_connect: true,
            on_read: true,
            on_4xx: false,
            on_5xx: false,
        };
        let fragment = url.split_once('#').map_or("", |(_, fragment)| fragment);
        for (key, value) in fragment.split('&').filter_map(|pair| pair.split_once('=')) {
            let within = |least: u64, most: u64| {
                value
                    .parse::<u64>()
                    .ok()
                    .filter(|number| (least..=most).contains(number))
            };
            let ms = |most: u64| within(100, most).map(Duration::from_millis);
            match key {
                "ct" => rules.connect = ms(10_000).unwrap_or(rules.connect),
                "rt" => rules.read = ms(40_000).unwrap_or(rules.read),
                "tt" => rules.total = ms(55_000).unwrap_or(rules.total),
                "rc" => {
                    rules.retries = within(0, 5)
                        .and_then(|count| u32::try_from(count).ok())
                        .unwrap_or(rules.retries);
                }
                "rp" => {
                    let has =
                        |policy: &str| value.split(',').any(|part| part == policy || part == "all");
                    rules.on_connect = has("ct");
                    rules.on_read = has("rt");
                    rules.on_4xx = has("4xx");
                    rules.on_5xx = has("5xx");
                }
                _ => {}
            }
        }
        rules
    }

    fn retries_after(&self, failure: Failure) -> bool {
        match failure {
            Failure::Connect => self.on_connect,
            Failure::Read => self.on_read,
            Failure::Status(400..=499) => self.on_4xx,
            Failure::Status(500..) => self.on_5xx,
            Failure::Status(_) => false,
        }
    }
}

/// The HTTP clients of the webhooks, one for each connect time-out in use: it is a property of a client.
#[derive(Default)]
pub(super) struct Clients(Mutex<HashMap<Duration, reqwest::Client>>);

impl Clients {
    fn with_connect_timeout(&self, connect: Duration) -> Result<reqwest::Client, reqwest::Error> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&connect) {
            return Ok(client.clone());
        }
        let client = reqwest::Client::builder()
            .connect_timeout(connect)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        clients.insert(connect, client.clone());
        Ok(client)
    }
}

/// Sends a webhook as the options' faults will have it. None if nobody took it.
pub(super) async fn deliver(shared: Arc<Shared>, webhook: Webhook) -> Option<Reply> {
    let fate = shared.exchange().fate(webhook.kind);
    if fate.lost {
        shared
            .exchange()
            .log_delivery(&webhook.uuid, Delivery::lost(webhook.kind, shared.now()));
        return None;
    }
    sleep(fate.delay).await;
    if fate.duplicated {
        let (shared_copy, webhook_copy) = (Arc::clone(&shared), webhook.clone());
        shared.spawn(async move { deliver_with_retries(&shared_copy, &webhook_copy).await });
    }
    deliver_with_retries(&shared, &webhook).await
}

async fn deliver_with_retries(shared: &Shared, webhook: &Webhook) -> Option<Reply> {
    let rules = RetryRules::of(&webhook.callback.url);
    let deadline = Instant::now() + rules.total;
    for attempt in 0..=rules.retries {
        match attempt_delivery(shared, webhook, rules, attempt, deadline).await {
            Ok(reply) => return Some(reply),
            Err(failure) if attempt == rules.retries || !rules.retries_after(failure) => {
                return None;
            }
            Err(_) => {}
        }
        let spacing = shared.exchange().webhook_retry_spacing();
        sleep(spacing).await;
        if Instant::now() >= deadline {
            return None;
        }
    }
    None
}

/// Sends a webhook exactly once, whatever the faults say, and returns the status of the answer, if there was one.
pub(super) async fn replay(shared: &Shared, webhook: &Webhook) -> Option<u16> {
    let rules = RetryRules::of(&webhook.callback.url);
    match attempt_delivery(shared, webhook, rules, 0, Instant::now() + rules.total).await {
        Ok(reply) => Some(reply.status),
        Err(Failure::Status(status)) => Some(status),
        Err(Failure::Connect | Failure::Read) => None,
    }
}

async fn attempt_delivery(
    shared: &Shared,
    webhook: &Webhook,
    rules: RetryRules,
    attempt: u32,
    deadline: Instant,
) -> Result<Reply, Failure> {
    let sent_at = shared.now();
    let result = timeout_at(deadline, request(shared, webhook, rules))
        .await
        .unwrap_or(Err(Failure::Read));
    let (http_status, error) = match &result {
        Ok(reply) => (Some(reply.status), None),
        Err(Failure::Status(status)) => (Some(*status), None),
        Err(Failure::Connect) => (None, Some("not connected")),
        Err(Failure::Read) => (None, Some("no answer")),
    };
    tracing::debug!(event = ?webhook.kind, call.uuid = %webhook.uuid, attempt, http_status, error, "webhook sent");
    let delivery = Delivery {
        kind: webhook.kind,
        at_ms: sent_at.timestamp_millis(),
        attempt,
        http_status,
        error,
    };
    shared.exchange().log_delivery(&webhook.uuid, delivery);
    result
}

async fn request(shared: &Shared, webhook: &Webhook, rules: RetryRules) -> Result<Reply, Failure> {
    let client = shared
        .clients
        .with_connect_timeout(rules.connect)
        .map_err(|_| Failure::Connect)?;
    let nonce = format!("{:020}", rand::random::<u64>());
    let tokens = shared.exchange().auth_tokens();
    let (url, body) = address(webhook);
    let signed_params = if body.is_some() {
        webhook.params.as_slice()
    } else {
        &[]
    };
    let method = webhook.callback.method.as_str();
    let signatures: Vec<String> = tokens
        .iter()
        .map(|token| plivo_signature::sign_v3(method, &url, signed_params, &nonce, token))
        .collect();
    let signatures = signatures.join(",");
    let target = Url::parse(&url).map_err(|_| Failure::Connect)?;
    let request = match body {
        Some(body) => client
            .post(target)
            .header(
                reqwest::header::CONTENT_TYPE,
                "application/x-www-form-urlencoded",
            )
            .body(body),
        None => client.get(target),
    };
    let mut response = request
        .header(plivo_signature::SIGNATURE_HEADER, &signatures)
        .header(plivo_signature::MAIN_SIGNATURE_HEADER, &signatures)
        .header(plivo_signature::NONCE_HEADER, nonce)
        .timeout(rules.read)
        .send()
        .await
        .map_err(|error| {
            if error.is_connect() {
                Failure::Connect
            } else {
                Failure::Read
            }
        })?;
    let status = response.status();
    if !status.is_success() {
        return Err(Failure::Status(status.as_u16()));
    }
    let content_type = response
        .headers()
        .get(reqwest::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let mut body = Vec::new();
    while body.len() <= LARGEST_DOCUMENT {
        match response.chunk().await.map_err(|_| Failure::Read)? {
            Some(chunk) => body.extend_from_slice(&chunk),
            None => break,
        }
    }
    Ok(Reply {
        status: status.as_u16(),
        content_type,
        body,
    })
}

/// Where a webhook goes, without the fragment, and its form body; a GET has none, for its parameters are sorted in
/// among those of the URL.
fn address(webhook: &Webhook) -> (String, Option<String>) {
    let url = &webhook.callback.url;
    let url = url
        .split_once('#')
        .map_or(url.as_str(), |(before, _)| before);
    let encode = |pairs: &[(String, String)]| {
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish()
    };
    match webhook.callback.method {
        Method::Post => (url.to_owned(), Some(encode(&webhook.params))),
        Method::Get => {
            let (base, query) = url.split_once('?').unwrap_or((url, ""));
            let mut pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect();
            pairs.extend(webhook.params.iter().cloned());
            pairs.sort_unstable();
            (format!("{base}?{}", encode(&pairs)), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(fragment: &str) -> RetryRules {
        RetryRules::of(&format!("https://example.com/hangup?call=1{fragment}"))
    }

    #[test]
    fn defaults_retry_once_and_never_a_status() {
        let defaults = rules("");
        assert_eq!(defaults.retries, 1);
        assert!(defaults.retries_after(Failure::Connect) && defaults.retries_after(Failure::Read));
        assert!(
            !defaults.retries_after(Failure::Status(500))
                && !defaults.retries_after(Failure::Status(404))
        );
    }

    #[test]
    fn the_fragment_chooses_what_is_retried() {
        let chosen = rules("#rc=5&rp=ct,rt,5xx&ct=500&rt=800&tt=9000&er=mumbai");
        assert_eq!(
            (
                chosen.retries,
                chosen.connect.as_millis(),
                chosen.read.as_millis()
            ),
            (5, 500, 800)
        );
        assert_eq!(chosen.total.as_millis(), 9_000);
        assert!(
            chosen.retries_after(Failure::Status(503))
                && !chosen.retries_after(Failure::Status(403))
        );
        assert!(rules("#rp=all").retries_after(Failure::Status(403)));
        assert!(!rules("#rp=4xx").retries_after(Failure::Read));
        assert!(!rules("#rp=all").retries_after(Failure::Status(302)));
    }

    #[test]
    fn what_is_out_of_range_keeps_its_default() {
        for junk in [
            "#rc=6",
            "#rc=-1",
            "#ct=1",
            "#ct=99999",
            "#rt=abc",
            "#tt=",
            "#===",
            "#&&",
            "#rc",
        ] {
            assert_eq!(rules(junk), rules(""), "{junk}");
        }
    }
}
