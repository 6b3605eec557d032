//! What every story has: a world, a process that is to die, a client, a campaign, and whoever goes on.

use std::time::Duration;

use ringmaster::simulator::SimulatorOptions;
use serde_json::{Value, json};

use super::Case;
use crate::helpers::app::{Api, Reply, World, until};
use crate::helpers::judge::{assert_adds_up, now_ms, until_passed};
use crate::helpers::process::Served;

/// SIGABRT, as a shell tells it.
const ABORTED: i32 = 128 + 6;

type Settings<'a> = &'a [(&'a str, &'a str)];

pub(super) struct Scene {
    pub(super) world: World,
    /// Settings of all processes of the story.
    settings: Vec<(String, String)>,
    pub(super) operator: Api,
    pub(super) doomed: Served,
    body: Value,
}

impl Scene {
    /// A process that dies at the point of the case, after `before` (further steps for it) happened.
    pub(super) async fn start(
        case: &Case,
        carrier: SimulatorOptions,
        settings: Settings<'_>,
        before: &str,
    ) -> Self {
        let world = World::new("point", carrier).await;
        let steps = format!("{before},{}/{}", case.point, case.pass);
        let settings: Vec<(String, String)> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut own = borrowed(&settings);
        own.push(("CRASH_POINTS", steps.as_str()));
        let doomed = world.process(&own).await;
        let limits = json!({ "name": "Acme", "maxConcurrentCalls": 4 });
        let (_, operator) = world.client(limits).await;
        Self {
            world,
            settings,
            operator,
            doomed,
            body: Value::Null,
        }
    }

    /// Begins a campaign of so many contacts; the process may die of it before it answers.
    pub(super) async fn begin(&mut self, contacts: usize, more: Value) {
        let list = self.operator.list_of(0, contacts).await;
        self.begin_with(&list, more).await;
    }

    pub(super) async fn begin_with(&mut self, list: &str, more: Value) {
        self.prepare(list, &more);
        let reply = self.operator.post("/v1/campaigns", &self.body).await;
        assert!([201, 502].contains(&reply.status), "{reply:?}");
    }

    /// Writes the body of the campaign, without sending it.
    pub(super) fn prepare(&mut self, list: &str, more: &Value) -> &Value {
        let mut body = json!({
            "campaignName": "test", "listId": list, "fromNumber": crate::helpers::app::FROM,
            "answer": { "type": "speak", "text": "Hello {{firstName}}" },
        });
        let fields = body.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        self.body = body;
        &self.body
    }

    /// A POST with an idempotency key; the process may die of it.
    pub(super) async fn post_once(&self, path: &str, body: &Value) -> Reply {
        let request = self.operator.request(reqwest::Method::POST, path);
        let request = request.header("idempotency-key", "once").json(body);
        self.operator.send(request).await
    }

    /// Waits until the doomed process has died at its point, and nowhere else.
    pub(super) async fn dies(&mut self, case: &Case) {
        let code = self.doomed.process.exit().await;
        let said = self.doomed.process.stderr();
        assert_eq!(code, ABORTED, "{}", self.doomed.process.output());
        let reached = format!("crash point {}\n", case.point);
        assert!(said.ends_with(&reached), "{said}");
        self.world.balancer.remove(self.doomed.address);
    }

    /// Waits until the doomed process froze itself at this point, lets `time` pass, and thaws it.
    pub(super) async fn freezes(&mut self, point: &str, time: Duration) {
        self.is_frozen(point).await;
        until_passed(now_ms(), time).await;
        self.thaw().await;
    }

    /// Waits until the doomed process froze itself at this point.
    pub(super) async fn is_frozen(&self, point: &str) {
        let reached = format!("crash point {point}\n");
        until("it is frozen", async || {
            let process = &self.doomed.process;
            process.is_stopped() && process.stderr().contains(&reached)
        })
        .await;
    }

    pub(super) async fn thaw(&mut self) {
        self.doomed.process.signal("CONT").await;
    }

    /// Another process, which is not (yet) sent any requests.
    pub(super) async fn other(&self) -> Served {
        self.other_with(&[]).await
    }

    pub(super) async fn other_with(&self, more: Settings<'_>) -> Served {
        let mut settings = borrowed(&self.settings);
        settings.extend(more);
        Served::start(self.world.settings(&settings)).await
    }

    /// The process that goes on, alone.
    pub(super) async fn heir(&self) -> Served {
        self.world.process(&borrowed(&self.settings)).await
    }

    /// The one campaign, which the request of the dead process may or may not have created.
    pub(super) async fn campaign(&self) -> String {
        let mut found = Value::Null;
        // Whoever dies just now may take the question along.
        until("somebody tells the campaigns", async || {
            let reply = self.operator.get("/v1/campaigns").await;
            found = reply.body;
            reply.status == 200
        })
        .await;
        let found = found["items"].as_array().unwrap();
        assert!(found.len() <= 1, "{found:?}");
        let campaign = match found.first() {
            Some(campaign) => campaign.clone(),
            None => {
                let reply = self.operator.post("/v1/campaigns", &self.body).await;
                reply.created()
            }
        };
        campaign["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the campaign is completed; the counts add up all the while, and at the end everybody is accounted for.
    pub(super) async fn completes(&self, campaign: &str) -> Value {
        let mut last = Value::Null;
        until("the campaign is completed", async || {
            last = self.operator.progress(campaign).await;
            assert_adds_up(&last);
            last["status"] == "completed"
        })
        .await;
        let left = ["pending", "waitingRetry", "inFlight"].map(|name| last[name].as_u64());
        assert_eq!(left, [Some(0); 3], "{last}");
        last
    }

    /// As the carrier's books have it: so many calls to so many people, no attempt twice, and never more at once than allowed.
    #[track_caller]
    pub(super) fn dialed(&self, calls: u64, people: usize) {
        let stats = self.world.simulator.stats();
        assert_eq!(stats.duplicates.by_call, Default::default(), "{stats:?}");
        assert_eq!(
            (stats.accepted, stats.unique_destinations),
            (calls, people),
            "{stats:?}"
        );
        assert!(stats.peak_live <= 4, "{stats:?}");
    }
}

fn borrowed(settings: &[(String, String)]) -> Vec<(&str, &str)> {
    let pairs = settings.iter();
    pairs
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}
