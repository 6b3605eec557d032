//! People at work in the middle of it: they pause, resume and cancel campaigns and change limits, at any container.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::action::Action;
use super::api::Reply;
use super::journal::{Command, Order};
use super::workload::{Client, Workload};
use super::world::World;

/// How often a command that nobody answered is given again.
const TRIES: usize = 40;
/// By then a pause has bitten, or not: longer than a dial is held up.
const BITTEN: Duration = Duration::from_millis(4_000);
const PAUSE: Duration = Duration::from_millis(250);
/// A request that nobody answered may take effect for so long, in ms: the store's longest wait, and some.
const LATE_EFFECT_MS: i64 = 30_000;

pub(super) async fn carry_out(world: &Arc<World>, workload: &Workload, action: Action) {
    match action {
        Action::Pause {
            pick,
            twice,
            resume_after_ms,
        } => {
            if let Some(campaign) = picked(world, pick) {
                together(world, workload, &campaign, [Order::Pause; 2], pick, twice).await;
                tokio::time::sleep(Duration::from_millis(resume_after_ms)).await;
                together(
                    world,
                    workload,
                    &campaign,
                    [Order::Resume; 2],
                    pick + 1,
                    twice,
                )
                .await;
            }
        }
        Action::Quarrel { pick } => {
            if let Some(campaign) = picked(world, pick) {
                let orders = [Order::Pause, Order::Resume];
                together(world, workload, &campaign, orders, pick, true).await;
                command(world, workload, &campaign, Order::Resume, pick).await;
            }
        }
        Action::Cancel { pick, twice } => {
            if let Some(campaign) = picked(world, pick) {
                together(world, workload, &campaign, [Order::Cancel; 2], pick, twice).await;
            }
        }
        Action::ClientLimit { pick, calls } => {
            let client = &workload.clients[pick as usize % workload.clients.len()];
            // No less than what is guaranteed: that would be refused.
            let calls = calls.max(client.least_calls);
            let body = json!({ "maxConcurrentCalls": calls });
            change_limit(world, client, &client.scope(), calls, &body).await;
        }
        Action::CallerIdLimit { pick, calls } => {
            let client = &workload.clients[pick as usize % workload.clients.len()];
            let body = json!({ "maxCallsPerCallerId": calls });
            change_limit(world, client, &client.caller_id_scope(), calls, &body).await;
        }
        Action::Kill { .. }
        | Action::Terminate { .. }
        | Action::Freeze { .. }
        | Action::KillPrimary { .. }
        | Action::StepDown
        | Action::FullDisk { .. }
        | Action::Member { .. }
        | Action::Link { .. }
        | Action::HeldDial { .. }
        | Action::Dials { .. }
        | Action::Webhooks { .. }
        | Action::LookUps { .. } => {}
    }
}

/// Pauses campaigns at another container than this one, and resumes them after a while.
pub(super) async fn pause_elsewhere(
    world: &World,
    workload: &Workload,
    campaigns: &[String],
    container: usize,
) {
    let elsewhere = u32::try_from(container + 1).unwrap_or(0);
    let all = |order| {
        let commands = campaigns.iter();
        join_all(commands.map(move |id| command(world, workload, id, order, elsewhere)))
    };
    all(Order::Pause).await;
    tokio::time::sleep(BITTEN).await;
    all(Order::Resume).await;
}

/// Resumes every campaign that is paused: nothing is to be left behind when the faults are over.
pub(super) async fn resume_all(world: &World, workload: &Workload) {
    for campaign in world.journal.active() {
        let path = format!("/v1/campaigns/{}", campaign.id);
        let reply = world.admin.get(world.address(0), &path).await;
        if reply.body["status"] == "paused" {
            command(world, workload, &campaign.id, Order::Resume, 0).await;
        }
    }
}

/// Gives every client its first limits back.
pub(super) async fn restore_limits(world: &World, workload: &Workload) {
    for client in &workload.clients {
        let (calls, per_caller_id) = client.first_limits;
        let body = json!({ "maxConcurrentCalls": calls });
        change_limit(world, client, &client.scope(), calls, &body).await;
        let body = json!({ "maxCallsPerCallerId": per_caller_id });
        change_limit(
            world,
            client,
            &client.caller_id_scope(),
            per_caller_id,
            &body,
        )
        .await;
    }
}

/// A campaign that is not over.
fn picked(world: &World, pick: u32) -> Option<String> {
    let active = world.journal.active();
    let index = pick as usize % active.len().max(1);
    active.get(index).map(|campaign| campaign.id.clone())
}

/// One command, or two at once at different containers.
async fn together(
    world: &World,
    workload: &Workload,
    campaign: &str,
    [first, second]: [Order; 2],
    at: u32,
    twice: bool,
) {
    let one = command(world, workload, campaign, first, at);
    if twice {
        tokio::join!(one, command(world, workload, campaign, second, at + 1));
    } else {
        one.await;
    }
}

/// Gives a command until it is answered, at one container after the other, and writes down each try.
async fn command(world: &World, workload: &Workload, campaign: &str, order: Order, at: u32) {
    let Some(client) = owner(world, workload, campaign) else {
        return;
    };
    let verb = match order {
        Order::Pause => "pause",
        Order::Resume => "resume",
        Order::Cancel => "cancel",
    };
    let path = format!("/v1/campaigns/{campaign}/{verb}");
    for turn in 0..TRIES {
        let address = world.address(at as usize + turn);
        let index = begun(world, campaign, order);
        let reply = client.operator.post(address, &path, &json!({}), None).await;
        done(world, index, &reply);
        if !reply.is_uncertain() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A command is written down before it is sent: a pause that overlaps it must see it.
fn begun(world: &World, campaign: &str, order: Order) -> usize {
    let mut pages = world.journal.pages();
    pages.commands.push(Command {
        campaign: campaign.to_owned(),
        order,
        sent_at: world.now(),
        done_at: i64::MAX,
        status: 0,
    });
    pages.commands.len() - 1
}

fn done(world: &World, index: usize, reply: &Reply) {
    if let Some(command) = world.journal.pages().commands.get_mut(index) {
        command.done_at = reply.answered_at;
        command.status = reply.status;
    }
}

fn owner<'a>(world: &World, workload: &'a Workload, campaign: &str) -> Option<&'a Client> {
    let pages = world.journal.pages();
    let created = pages
        .campaigns
        .iter()
        .find(|created| created.id == campaign)?;
    workload.clients.get(created.client)
}

async fn change_limit(world: &World, client: &Client, scope: &str, calls: u32, body: &Value) {
    // One change of a client at a time: else nobody could say which limit is in force.
    let _turn = client.changing.lock().await;
    let path = format!("/v1/clients/{}", client.id);
    for turn in 0..TRIES {
        world.journal.limit_asked(scope, calls.into(), world.now());
        let reply = world.admin.patch(world.address(turn), &path, body).await;
        if reply.is_success() {
            world.journal.limit_set(scope, reply.answered_at);
            return;
        }
        if !reply.is_uncertain() {
            world
                .screen
                .note(&format!("a limit was refused: {}", reply.status));
            return;
        }
        world
            .journal
            .limit_uncertain(scope, reply.answered_at + LATE_EFFECT_MS);
        tokio::time::sleep(PAUSE).await;
    }
}
