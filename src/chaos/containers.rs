//! The containers: processes of this binary that are killed, stopped, frozen and started again, each at an address of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpSocket;
use tokio::sync::Mutex;

use super::api::Api;
use crate::utils::leash::{Leashed, Program, Signal};

/// How often a starting container is asked whether it is ready.
const LOOK: Duration = Duration::from_millis(50);

/// A place where a container runs, one life after another.
pub(super) struct Container {
    /// From 0.
    pub(super) index: usize,
    pub(super) address: SocketAddr,
    settings: BTreeMap<String, String>,
    folder: PathBuf,
    life: Mutex<Life>,
    /// Bound and never listening: nobody else is given the port, and the process, which listens at it, does not mind.
    _port: TcpSocket,
}

#[derive(Default)]
struct Life {
    number: u32,
    process: Option<Leashed>,
}

impl Container {
    /// A place whose logs go to `folder`; nothing runs there yet.
    pub(super) fn new(index: usize, folder: &Path) -> anyhow::Result<Self> {
        let port = TcpSocket::new_v4()?;
        port.set_reuseaddr(true)?;
        port.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        Ok(Self {
            index,
            address: port.local_addr()?,
            settings: BTreeMap::new(),
            folder: folder.to_owned(),
            life: Mutex::default(),
            _port: port,
        })
    }

    /// The settings of every life from now on.
    pub(super) fn configure(&mut self, mut settings: BTreeMap<String, String>) {
        settings.insert("HOST".to_owned(), self.address.ip().to_string());
        settings.insert("PORT".to_owned(), self.address.port().to_string());
        self.settings = settings;
    }

    /// Begins a new life, if none is under way.
    pub(super) async fn start(&self) -> anyhow::Result<()> {
        let mut life = self.life.lock().await;
        if life.process.is_some() {
            return Ok(());
        }
        life.number += 1;
        let log = format!("container-{}-life-{}.log", self.index + 1, life.number);
        let log = self.folder.join(log);
        let log =
            File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let binary = std::env::current_exe().context("our own binary is not known")?;
        let program = Program {
            path: &binary,
            arguments: vec!["serve".into()],
            environment: Some(&self.settings),
        };
        life.process = Some(Leashed::spawn(program, log, Duration::ZERO).await?);
        Ok(())
    }

    /// Waits until it lets requests in, for `patience` at most; answers its container id.
    pub(super) async fn until_ready(&self, admin: &Api, patience: Duration) -> Option<String> {
        let ready = async {
            loop {
                if let Some(id) = self.id(admin).await {
                    return id;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(patience, ready).await.ok()
    }

    /// The container id of the life that runs here, as it says itself.
    pub(super) async fn id(&self, admin: &Api) -> Option<String> {
        let reply = admin.get(self.address, "/v1/containers").await;
        let items = reply.body["items"].as_array()?;
        let own = items.iter().find(|item| item["isSelf"] == true)?;
        own["id"].as_str().map(str::to_owned)
    }

    /// Sends a signal; nothing where no life is under way.
    pub(super) async fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        match &mut self.life.lock().await.process {
            Some(process) => Ok(process.signal(signal).await?),
            None => Ok(()),
        }
    }

    /// Sends a signal that ends the life, and waits for its end; after `patience` it is killed. False when it had to be.
    pub(super) async fn end(&self, signal: Signal, patience: Duration) -> anyhow::Result<bool> {
        let mut life = self.life.lock().await;
        let Some(mut process) = life.process.take() else {
            return Ok(true);
        };
        process.signal(signal).await?;
        if tokio::time::timeout(patience, process.wait()).await.is_ok() {
            return Ok(true);
        }
        process.signal(Signal::Kill).await?;
        process.wait().await?;
        Ok(false)
    }

    /// Its memory in KiB, as the kernel says.
    pub(super) async fn rss_kib(&self) -> Option<u64> {
        let life = self.life.lock().await;
        let pid = life.process.as_ref()?.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }
}
