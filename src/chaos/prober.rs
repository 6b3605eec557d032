//! Somebody who should not get in, and tries all the time (P7): webhooks without or with a wrong signature, requests without a
//! key, with a wrong one, with one that may not, and with one of another client.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use url::form_urlencoded;

use super::api::Api;
use super::judge::Promise;
use super::workload::Workload;
use super::world::World;
use crate::services::carrier::plivo_signature;
use crate::simulator::SimulatorOptions;

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(120);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// One thing to try, and the only answer to it.
struct Attempt {
    what: &'static str,
    request: RequestBuilder,
    expected: u16,
}

/// Tries until the run is stopped.
pub(super) async fn probe(world: Arc<World>, workload: Arc<Workload>, stop: CancellationToken) {
    let prober = async {
        Ok::<_, anyhow::Error>([
            Api::new(None, &world.clock, PATIENCE)?,
            Api::new(Some("not-a-key-of-anybody"), &world.clock, PATIENCE)?,
        ])
    };
    let Ok([nobody, stranger]) = prober.await else {
        return;
    };
    let mut turn = 0;
    while !stop.is_cancelled() {
        turn += 1;
        stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
        let Some((campaign, call, owner)) = target(&world, &workload, turn).await else {
            continue;
        };
        let foreign = &workload.clients[(owner + 1) % workload.clients.len()];
        let own = &workload.clients[owner];
        let at = world.address(turn);
        let path = format!("/v1/campaigns/{campaign}");
        let pause = format!("{path}/pause");
        let request = |api: &Api, method, path: &str| api.request(method, at, path);
        let attempt = match turn % 9 {
            0 => webhook(&world, &nobody, turn, &call, Signature::None),
            1 => webhook(&world, &nobody, turn, &call, Signature::Wrong),
            2 => webhook(&world, &nobody, turn, &call, Signature::OfOtherForm),
            3 => Attempt {
                what: "a request without a key",
                request: request(&nobody, Method::GET, &path),
                expected: 401,
            },
            4 => Attempt {
                what: "a command with a wrong key",
                request: request(&stranger, Method::POST, &pause).json(&json!({})),
                expected: 401,
            },
            5 => Attempt {
                what: "reading another client's campaign",
                request: request(&foreign.operator, Method::GET, &path),
                expected: 404,
            },
            6 => Attempt {
                what: "pausing another client's campaign",
                request: request(&foreign.operator, Method::POST, &pause).json(&json!({})),
                expected: 404,
            },
            7 => Attempt {
                what: "a viewer's command",
                request: request(&own.viewer, Method::POST, &pause).json(&json!({})),
                expected: 403,
            },
            _ => Attempt {
                what: "an operator who creates a client",
                request: request(&own.operator, Method::POST, "/v1/clients")
                    .json(&json!({ "name": "Mine" })),
                expected: 403,
            },
        };
        let reply = nobody.send(attempt.request).await;
        // Who cannot work lets nobody in either.
        if reply.is_uncertain() {
            continue;
        }
        let violation = (reply.status != attempt.expected).then(|| {
            let (what, expected) = (attempt.what, attempt.expected);
            let status = reply.status;
            format!("{what} was answered {status} instead of {expected} at {} (campaign {campaign}, call {call})", reply.answered_at)
        });
        world.journal.check(Promise::P7, violation);
    }
}

/// A campaign, one of its calls, and whose it is.
async fn target(
    world: &World,
    workload: &Workload,
    turn: usize,
) -> Option<(String, String, usize)> {
    let created = {
        let pages = world.journal.pages();
        let count = pages.campaigns.len().max(1);
        pages.campaigns.get(turn % count).cloned()?
    };
    let path = format!("/v1/campaigns/{}/calls?limit=1", created.id);
    let viewer = &workload.clients[created.client].viewer;
    let reply = viewer.get(world.address(turn), &path).await;
    let call = reply.body["items"][0]["id"].as_str()?.to_owned();
    Some((created.id, call, created.client))
}

#[derive(Clone, Copy)]
enum Signature {
    None,
    /// Made with a token that is not ours.
    Wrong,
    /// Made with our token, for another form.
    OfOtherForm,
}

/// A webhook that says that a call was answered and is over.
fn webhook(world: &World, nobody: &Api, turn: usize, call: &str, signature: Signature) -> Attempt {
    let path = format!("/plivo/hangup-url?call={call}&dial=1");
    let form = [
        ("CallUUID", "00000000-0000-4000-8000-000000000000"),
        ("CallStatus", "completed"),
        ("HangupCauseCode", "4000"),
        ("AnswerTime", "2026-01-01 00:00:00"),
    ];
    let named: Vec<(String, String)> = form
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(&form)
        .finish();
    let mut request = nobody
        .request(Method::POST, world.address(turn), &path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body);
    let token = &SimulatorOptions::default().auth_tokens[0];
    let url = format!("http://{}{path}", world.balancer.address);
    let (what, signed) = match signature {
        Signature::None => ("an unsigned webhook", None),
        Signature::Wrong => (
            "a webhook with a wrong signature",
            Some((named, "another-token")),
        ),
        Signature::OfOtherForm => {
            let mut other = named;
            other.pop();
            (
                "a webhook with another form's signature",
                Some((other, token.as_str())),
            )
        }
    };
    if let Some((form, token)) = signed {
        let nonce = format!("{turn:020}");
        let signature = plivo_signature::sign_v3("POST", &url, &form, &nonce, token);
        request = request
            .header(plivo_signature::SIGNATURE_HEADER, signature)
            .header(plivo_signature::NONCE_HEADER, nonce);
    }
    Attempt {
        what,
        request,
        expected: 403,
    }
}
