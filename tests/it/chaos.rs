//! The chaos harness as a user runs it: a short run under a fixed seed keeps every promise, and nothing outlives it.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::helpers::app::until;
use crate::helpers::mongod;
use crate::helpers::process::signal;

/// The harness, not yet started, with its files in `folder`.
fn harness(folder: &std::path::Path, minutes: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmaster"));
    command
        .arg("chaos")
        .args(["--mongod".as_ref(), mongod::mongod().as_os_str()])
        .args(["--folder".as_ref(), folder.as_os_str()])
        .args(["--minutes", minutes, "--seed", "7"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_short_chaos_run_keeps_every_promise() {
    let folder = mongod::data_dir().with_extension("chaos");
    let figures = folder.join("figures.json");
    fs::create_dir_all(&folder).unwrap();
    let output = harness(&folder, "2")
        .args(["--json".as_ref(), figures.as_os_str()])
        .stderr(Stdio::piped())
        .output()
        .await
        .unwrap();
    let screen = String::from_utf8_lossy(&output.stdout);
    let faults = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{screen}{faults}");
    assert!(
        !screen.contains("+1201555"),
        "no phone number on the screen"
    );
    let figures: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(figures).unwrap()).unwrap();
    for promise in figures["promises"].as_array().unwrap() {
        assert!(promise["checked"].as_u64().unwrap() > 0, "{promise}");
        assert_eq!(promise["violations"].as_array().unwrap().len(), 0);
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn nothing_outlives_a_killed_harness() {
    let folder = mongod::data_dir().with_extension("chaos");
    fs::create_dir_all(&folder).unwrap();
    let mut harness = harness(&folder, "1").spawn().unwrap();
    let pid = harness.id().unwrap();
    let mut lines = BufReader::new(harness.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("ready:") {
            break;
        }
    }
    let children = descendants(pid);
    // Three members and three containers, each under a shell.
    assert!(children.len() >= 12, "{children:?}");
    signal(pid, "KILL").await;
    harness.wait().await.unwrap();
    until("everybody has gone", async || {
        children.iter().all(|child| !is_alive(*child))
    })
    .await;
    fs::remove_dir_all(&folder).unwrap();
}

/// The parent and the state of a process.
fn parent_and_state(pid: u32) -> Option<(u32, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold spaces and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.to_owned();
    Some((fields.next()?.parse().ok()?, state))
}

fn is_alive(pid: u32) -> bool {
    parent_and_state(pid).is_some_and(|(_, state)| state != "Z")
}

/// All processes that descend from `ancestor`.
fn descendants(ancestor: u32) -> BTreeSet<u32> {
    let processes: Vec<u32> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let mut family = BTreeSet::from([ancestor]);
    loop {
        let before = family.len();
        for pid in &processes {
            if parent_and_state(*pid).is_some_and(|(parent, _)| family.contains(&parent)) {
                family.insert(*pid);
            }
        }
        if family.len() == before {
            family.remove(&ancestor);
            return family;
        }
    }
}
