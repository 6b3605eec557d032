//! Who drives which campaign, as the API says, and how soon another does when a container dies, freezes or is stopped.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::journal::Takeover;
use super::world::World;

/// How often it is looked for the next driver.
const LOOK: Duration = Duration::from_millis(100);
/// After this time nobody is expected to come any more, in ms.
const PATIENCE_MS: i64 = 60_000;

/// The campaigns that a container drove when something happened to it.
pub(super) struct Bereft {
    campaigns: Vec<String>,
    container: usize,
    id: String,
    cause: &'static str,
    from: i64,
}

/// Something happens to a container now.
pub(super) fn begin(world: &World, container: usize, cause: &'static str) -> Bereft {
    let pages = world.journal.pages();
    let id = pages
        .container_ids
        .get(&container)
        .cloned()
        .unwrap_or_default();
    let driven = |(campaign, driver): (&String, &String)| (*driver == id).then(|| campaign.clone());
    Bereft {
        campaigns: pages.drivers.iter().filter_map(driven).collect(),
        container,
        cause,
        from: world.now(),
        id,
    }
}

/// A container's new life has this id.
pub(super) fn is_now(world: &World, container: usize, id: Option<String>) {
    let mut pages = world.journal.pages();
    match id {
        Some(id) => pages.container_ids.insert(container, id),
        None => pages.container_ids.remove(&container),
    };
}

/// Writes down who drives a campaign, as its progress says.
pub(super) fn note_driver(world: &World, campaign: &str, progress: &Value) {
    let mut pages = world.journal.pages();
    let driver = progress["driver"]["containerId"].as_str();
    match driver.filter(|_| progress["status"] == "running") {
        Some(driver) => pages.drivers.insert(campaign.to_owned(), driver.to_owned()),
        None => pages.drivers.remove(campaign),
    };
}

/// Watches each campaign until another container drives it, beside everything else.
pub(super) fn watch(world: &Arc<World>, bereft: Bereft) {
    let bereft = Arc::new(bereft);
    for campaign in bereft.campaigns.clone() {
        let (world, bereft) = (Arc::clone(world), Arc::clone(&bereft));
        let life = world.life.clone();
        life.spawn_work(async move { follow(&world, &bereft, campaign).await });
    }
}

async fn follow(world: &World, bereft: &Bereft, campaign: String) {
    let path = format!("/v1/campaigns/{campaign}/progress");
    let mut turn = bereft.container;
    let seen = loop {
        // Any other container may be asked.
        turn += 1;
        if turn % world.containers.len() == bereft.container {
            turn += 1;
        }
        let now = world.now();
        if now - bereft.from > PATIENCE_MS {
            break None;
        }
        let reply = world.glancing.get(world.address(turn), &path).await;
        if reply.is_success() {
            if reply.body["status"] != "running" {
                return;
            }
            let driver = reply.body["driver"]["containerId"].as_str();
            if driver.is_some_and(|driver| driver != bereft.id) {
                break Some(reply.answered_at);
            }
        }
        if !world.life.sleep(LOOK).await {
            return;
        }
    };
    world.journal.pages().takeovers.push(Takeover {
        campaign,
        cause: bereft.cause,
        from: bereft.from,
        seen,
        gave_up: world.now(),
    });
}
