//! Carries the faults out, and takes them back.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::timeout;

use super::action::{Action, DialFault, Peer, WebhookFault};
use super::journal::Disturbance;
use super::operators;
use super::proxy::{Way, Whose};
use super::schedule::GHOST_DELAY;
use super::takeovers;
use super::workload::Workload;
use super::world::{STOP_PATIENCE, World};
use crate::utils::leash::Signal;

/// After a fault of the database its clients need this long to find their way again, in ms: an election, new connections, and
/// the pause of a driver or a scan that failed.
const RECOVERY_MS: i64 = 5_000;
/// A container that starts while the database is away takes its time.
const START_TIME: Duration = Duration::from_secs(90);
/// How long a database's member may take to end when its disk is full, in seconds.
const GIVING_UP_SECS: u32 = 8;
/// How long a dial is waited for that could be held up.
const TRAP_TIME: Duration = Duration::from_secs(5);
/// How long the carrier's slow dial requests and look-ups take.
const SLOW_MS: u64 = 1_500;
/// For how long the carrier keeps a dial request that it does not answer: longer than anybody waits for it.
const HOLD_MS: u64 = 12_000;

/// Does what the schedule says.
pub(super) async fn carry_out(world: Arc<World>, workload: Arc<Workload>, action: Action) {
    let kind = action.kind();
    *world.journal.pages().faults.entry(kind).or_default() += 1;
    world.screen.note(&action.to_string());
    let done = match action {
        Action::Kill { container, down_ms } => kill(&world, container, down_ms).await,
        Action::Terminate { container, down_ms } => terminate(&world, container, down_ms).await,
        Action::Freeze { container, for_ms } => freeze(&world, container, for_ms).await,
        Action::KillPrimary { down_ms } => kill_primary(&world, down_ms).await,
        Action::StepDown => step_down(&world).await,
        Action::FullDisk { for_ms } => full_disk(&world, for_ms).await,
        Action::Member {
            member,
            way,
            for_ms,
        } => cut_member(&world, member, way, for_ms).await,
        Action::Link {
            container,
            peer,
            way,
            for_ms,
        } => cut_link(&world, container, (peer, way), for_ms).await,
        Action::HeldDial { container, for_ms } => {
            held_dial(&world, &workload, container, for_ms).await
        }
        Action::Dials { fault, times } => dials(&world, fault, times).await,
        Action::Webhooks {
            fault,
            percent,
            late_ms,
            for_ms,
        } => webhooks(&world, fault, (percent, late_ms), for_ms).await,
        Action::LookUps { slow, for_ms } => look_ups(&world, slow, for_ms).await,
        Action::Pause { .. }
        | Action::Quarrel { .. }
        | Action::Cancel { .. }
        | Action::ClientLimit { .. }
        | Action::CallerIdLimit { .. } => {
            operators::carry_out(&world, &workload, action).await;
            Ok(())
        }
    };
    if let Err(error) = done {
        world
            .screen
            .note(&format!("{kind}: could not be done: {error:#}"));
        tracing::error!(%error, kind, "a fault could not be carried out");
    }
}

/// Takes back every fault that may still be in force.
pub(super) fn end_all(world: &World) -> anyhow::Result<()> {
    for proxy in world.member_proxies.iter().chain(&world.carrier_proxies) {
        proxy.open();
    }
    let patch = json!({ "webhookFaults": null, "dialFaults": null, "lookupFaults": null });
    Ok(world.simulator.patch_options(&patch)?)
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// From now until `end` resolves, and a while longer, takeovers are not to be expected.
async fn disturbing<T>(world: &World, work: impl Future<Output = T>) -> T {
    let index = {
        let mut pages = world.journal.pages();
        pages.disturbances.push(Disturbance {
            from: world.now(),
            until: i64::MAX,
        });
        pages.disturbances.len() - 1
    };
    let done = work.await;
    if let Some(disturbance) = world.journal.pages().disturbances.get_mut(index) {
        disturbance.until = world.now() + RECOVERY_MS;
    }
    done
}

async fn kill(world: &Arc<World>, index: usize, down_ms: u64) -> anyhow::Result<()> {
    let container = &world.containers[index];
    let bereft = takeovers::begin(world, index, "killed");
    container.end(Signal::Kill, STOP_PATIENCE).await?;
    takeovers::watch(world, bereft);
    pause(down_ms).await;
    restart(world, index).await
}

async fn terminate(world: &Arc<World>, index: usize, down_ms: u64) -> anyhow::Result<()> {
    let container = &world.containers[index];
    takeovers::watch(world, takeovers::begin(world, index, "stopped"));
    if !container.end(Signal::Terminate, STOP_PATIENCE).await? {
        world.screen.note(&format!(
            "container {} did not stop in time and was killed",
            index + 1
        ));
    }
    pause(down_ms).await;
    restart(world, index).await
}

async fn restart(world: &World, index: usize) -> anyhow::Result<()> {
    let container = &world.containers[index];
    container.start().await?;
    let id = container.until_ready(&world.admin, START_TIME).await;
    takeovers::is_now(world, index, id);
    Ok(())
}

async fn freeze(world: &Arc<World>, index: usize, for_ms: u64) -> anyhow::Result<()> {
    let container = &world.containers[index];
    let bereft = takeovers::begin(world, index, "frozen");
    container.signal(Signal::Freeze).await?;
    takeovers::watch(world, bereft);
    pause(for_ms).await;
    container.signal(Signal::Thaw).await
}

async fn kill_primary(world: &World, down_ms: u64) -> anyhow::Result<()> {
    let killing = async {
        let mut database = world.database.lock().await;
        let Some(primary) = database.primary().await else {
            return Ok(None);
        };
        database.kill(primary).await.map(|()| Some(primary))
    };
    let Some(member) = disturbing(world, killing).await? else {
        world.screen.note("there is no primary to be killed");
        return Ok(());
    };
    world
        .screen
        .note(&format!("the primary was member {}", member + 1));
    pause(down_ms).await;
    world.database.lock().await.restart(member).await?;
    Ok(())
}

async fn step_down(world: &World) -> anyhow::Result<()> {
    let stepping = async { world.database.lock().await.step_down().await };
    if !disturbing(world, stepping).await {
        world.screen.note("the primary did not step down");
    }
    Ok(())
}

/// Something else fills the disk, and goes on filling it for `for_ms`.
async fn full_disk(world: &World, for_ms: u64) -> anyhow::Result<()> {
    let filler = world.database_folder.join("filler");
    let filling = async {
        let filled = keep_full(&filler, for_ms).await;
        std::fs::remove_file(&filler)?;
        filled?;
        let mut ended = 0;
        // One that gives up takes its time to end.
        for _ in 0..GIVING_UP_SECS {
            ended += world.database.lock().await.restart_ended().await?;
            pause(1_000).await;
        }
        anyhow::Ok(ended)
    };
    let ended = disturbing(world, filling).await?;
    world.screen.note(&format!(
        "{ended} members had given up and were started again"
    ));
    Ok(())
}

async fn keep_full(filler: &Path, for_ms: u64) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_millis(for_ms);
    while Instant::now() < until {
        let filler = filler.to_owned();
        tokio::task::spawn_blocking(move || fill(&filler)).await??;
        pause(100).await;
    }
    Ok(())
}

/// Appends to the file until there is no room left.
fn fill(file: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    for size in [1 << 20, 1 << 12] {
        let chunk = vec![0; size];
        loop {
            match file.write_all(&chunk) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

async fn cut_member(world: &World, member: usize, way: Way, for_ms: u64) -> anyhow::Result<()> {
    let proxy = &world.member_proxies[member];
    proxy.set(Whose::All, way);
    disturbing(world, pause(for_ms)).await;
    proxy.set(Whose::All, Way::Open);
    Ok(())
}

async fn cut_link(
    world: &World,
    container: usize,
    (peer, way): (Peer, Way),
    for_ms: u64,
) -> anyhow::Result<()> {
    let whose = Whose::Container(container);
    let set = |way| match peer {
        Peer::Database => world
            .member_proxies
            .iter()
            .for_each(|proxy| proxy.set(whose, way)),
        Peer::Carrier => world.carrier_proxies[container].set(Whose::All, way),
    };
    set(way);
    match peer {
        Peer::Database => disturbing(world, pause(for_ms)).await,
        Peer::Carrier => pause(for_ms).await,
    }
    set(Way::Open);
    Ok(())
}

async fn held_dial(
    world: &World,
    workload: &Workload,
    container: usize,
    for_ms: u64,
) -> anyhow::Result<()> {
    let caught = world.trap.set(container, Duration::from_millis(for_ms));
    match timeout(TRAP_TIME, caught).await {
        Ok(Ok(campaigns)) => {
            operators::pause_elsewhere(world, workload, &campaigns, container).await;
        }
        Ok(Err(_)) | Err(_) => world.screen.note("no dial came by to be held up"),
    }
    Ok(())
}

async fn dials(world: &World, fault: DialFault, times: u32) -> anyhow::Result<()> {
    let next = json!({ "next": times });
    let change = match fault {
        DialFault::Throttle => json!({ "tooManyRequests": next, "retryAfterSeconds": 1 }),
        DialFault::ErrorBefore => json!({ "errorBefore": next, "errorStatus": 503 }),
        DialFault::ErrorAfter => json!({ "errorAfter": next, "errorStatus": 500 }),
        DialFault::TimeoutAfter => json!({ "timeoutAfter": next, "holdMs": HOLD_MS }),
        DialFault::ResetBefore => json!({ "resetBefore": next }),
        DialFault::ResetAfter => json!({ "resetAfter": next }),
        DialFault::Slow => json!({ "slowAfter": next, "slowMs": SLOW_MS }),
        DialFault::Ghost => {
            let late = u64::try_from(GHOST_DELAY.as_millis())?;
            json!({ "slowBefore": next, "slowMs": late })
        }
    };
    Ok(world
        .simulator
        .patch_options(&json!({ "dialFaults": change }))?)
}

async fn webhooks(
    world: &World,
    fault: WebhookFault,
    (percent, late_ms): (u8, u64),
    for_ms: u64,
) -> anyhow::Result<()> {
    let name = match fault {
        WebhookFault::Lost => "lost",
        WebhookFault::Doubled => "duplicated",
        WebhookFault::Delayed => "delayed",
        WebhookFault::Reordered => "reordered",
    };
    let set = |probability: f64| -> anyhow::Result<()> {
        let of_kind = |probability: f64| -> Value {
            json!({ name: { "probability": probability }, "delayMs": { "min": 200, "max": late_ms } })
        };
        // A lost answer request ends the call, and one that is late makes the callee wait: fewer of those.
        let patch = json!({ "webhookFaults": {
            "ring": of_kind(probability), "hangup": of_kind(probability), "answer": of_kind(probability / 5.0),
        } });
        Ok(world.simulator.patch_options(&patch)?)
    };
    set(f64::from(percent) / 100.0)?;
    pause(for_ms).await;
    set(0.0)
}

async fn look_ups(world: &World, slow: bool, for_ms: u64) -> anyhow::Result<()> {
    let change = if slow {
        json!({ "slowMs": SLOW_MS })
    } else {
        json!({ "unavailable": { "probability": 1.0 } })
    };
    world
        .simulator
        .patch_options(&json!({ "lookupFaults": change }))?;
    pause(for_ms).await;
    Ok(world
        .simulator
        .patch_options(&json!({ "lookupFaults": null }))?)
}
