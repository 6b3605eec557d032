//! Several private servers as one replica set, each of which can be killed and started again on its data: for the chaos harness.
//!
//! The members' addresses in the set's configuration may be those of proxies in front of them, so that clients, and the
//! members among themselves, meet only through the proxies. The set is controlled at its real ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bson::{Document, doc};
use mongodb::Client;
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep, timeout};

use super::{
    EmbeddedError, POLL_INTERVAL, REPLICA_SET, RETRY_INTERVAL, START_TIME_LIMIT, direct_client,
    end, passes, prepare, private_folder, spawn,
};
use crate::utils::leash::{Leashed, Signal};

/// A primary that is gone is missed this soon, in ms. In the first configuration: a later one takes effect only after the set
/// has found together with the defaults (14 s instead of 2 s, measured).
const ELECTION_TIMEOUT_MS: i32 = 1000;
const HEARTBEAT_INTERVAL_MS: i32 = 500;
/// For how long a primary that stepped down does not stand for election, in seconds.
const STEP_DOWN_SECS: i32 = 5;
/// How long a member is waited for that may lag behind when the primary is to step down, in seconds.
const CATCH_UP_SECS: i32 = 1;

/// A replica set of private servers. Dropping it, or the death of this process, ends all of them.
#[derive(Debug)]
pub struct ReplicaSet {
    mongod: PathBuf,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    folder: PathBuf,
    port: u16,
    /// Bound and never listening: nobody else is given the port while the member is down, and the member does not mind.
    _port: TcpSocket,
    server: Option<Leashed>,
}

impl ReplicaSet {
    /// Starts `count` servers below `folder`. They form no set yet: see [`ReplicaSet::initiate`].
    ///
    /// # Errors
    /// See [`EmbeddedError`].
    pub async fn start(mongod: &Path, folder: &Path, count: usize) -> Result<Self, EmbeddedError> {
        let mut set = Self {
            mongod: mongod.to_owned(),
            members: Vec::new(),
        };
        for index in 0..count {
            let (port, reservation) = reserve().map_err(prepare("port"))?;
            let folder = folder.join(format!("member-{}", index + 1));
            private_folder(&folder)
                .await
                .map_err(prepare("data folder"))?;
            set.members.push(Member {
                folder,
                port,
                _port: reservation,
                server: None,
            });
            set.restart(index).await?;
        }
        Ok(set)
    }

    /// The real addresses of the members.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let address = |member: &Member| SocketAddr::from(([127, 0, 0, 1], member.port));
        self.members.iter().map(address).collect()
    }

    /// Makes the servers one set whose members are known by `hosts`, one a member and in their order, and waits until there is
    /// a primary and every other member follows it.
    ///
    /// # Errors
    /// [`EmbeddedError::SetUp`] or [`EmbeddedError::NoPrimary`].
    pub async fn initiate(&self, hosts: &[SocketAddr]) -> Result<(), EmbeddedError> {
        let Some(first) = self.members.first() else {
            return Err(EmbeddedError::NoPrimary);
        };
        let members: Vec<Document> = hosts
            .iter()
            .zip(0_i32..)
            .map(|(host, id)| doc! { "_id": id, "host": host.to_string() })
            .collect();
        let config = doc! {
            "_id": REPLICA_SET,
            "members": members,
            "settings": {
                "electionTimeoutMillis": ELECTION_TIMEOUT_MS,
                "heartbeatIntervalMillis": HEARTBEAT_INTERVAL_MS,
            },
        };
        let client = direct_client(first.port).await?;
        let done = client
            .database("admin")
            .run_command(doc! { "replSetInitiate": config })
            .await;
        client.shutdown().immediate(true).await;
        done?;
        let together = async {
            while !self.is_together().await {
                sleep(POLL_INTERVAL).await;
            }
        };
        timeout(START_TIME_LIMIT, together)
            .await
            .map_err(|_| EmbeddedError::NoPrimary)
    }

    /// The connection string for clients that know the members as `hosts`.
    #[must_use]
    pub fn uri(hosts: &[SocketAddr]) -> String {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        format!("mongodb://{}/?replicaSet={REPLICA_SET}", hosts.join(","))
    }

    /// The member that says it is the primary, if one does.
    pub async fn primary(&self) -> Option<usize> {
        for (index, member) in self.members.iter().enumerate() {
            if member.server.is_some() && member.role().await == Some(Role::Primary) {
                return Some(index);
            }
        }
        None
    }

    /// Kills a member as kill -9 does and waits for its end. Its data stay as they are.
    ///
    /// # Errors
    /// [`EmbeddedError::Watchdog`].
    pub async fn kill(&mut self, index: usize) -> Result<(), EmbeddedError> {
        let Some(mut server) = self
            .members
            .get_mut(index)
            .and_then(|member| member.server.take())
        else {
            return Ok(());
        };
        server
            .signal(Signal::Kill)
            .await
            .map_err(EmbeddedError::Watchdog)?;
        server
            .wait()
            .await
            .map(drop)
            .map_err(EmbeddedError::Watchdog)
    }

    /// Starts a member that is down on its data and waits until it answers.
    ///
    /// # Errors
    /// See [`EmbeddedError`].
    pub async fn restart(&mut self, index: usize) -> Result<(), EmbeddedError> {
        let Some(member) = self.members.get_mut(index) else {
            return Ok(());
        };
        let give_up = Instant::now() + START_TIME_LIMIT;
        while member.server.is_none() {
            match member.launch(&self.mongod).await {
                Ok(server) => member.server = Some(server),
                Err(EmbeddedError::Exited { status, log, .. })
                    if passes(status, &log) && Instant::now() < give_up =>
                {
                    sleep(RETRY_INTERVAL).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Starts the members again, on their data, that are not running; answers how many that were.
    ///
    /// # Errors
    /// See [`EmbeddedError`]; the others are tried all the same.
    pub async fn restart_ended(&mut self) -> Result<usize, EmbeddedError> {
        let (mut ended, mut failed) = (0, None);
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            if let Some(server) = &mut member.server
                && !server.has_ended().map_err(EmbeddedError::Watchdog)?
            {
                continue;
            }
            member.server = None;
            ended += 1;
            failed = self.restart(index).await.err().or(failed);
        }
        failed.map_or(Ok(ended), Err)
    }

    /// Makes the primary step down, so that another is elected. False when there was none, or it would not.
    pub async fn step_down(&self) -> bool {
        let Some(member) = self
            .primary()
            .await
            .and_then(|index| self.members.get(index))
        else {
            return false;
        };
        let Ok(client) = direct_client(member.port).await else {
            return false;
        };
        let order =
            doc! { "replSetStepDown": STEP_DOWN_SECS, "secondaryCatchUpPeriodSecs": CATCH_UP_SECS };
        let done = client.database("admin").run_command(order).await;
        client.shutdown().immediate(true).await;
        done.is_ok()
    }

    /// Stops all members politely.
    ///
    /// # Errors
    /// [`EmbeddedError::NotStopped`] when even killing did not help.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        let servers = self.members.into_iter().filter_map(|member| member.server);
        for ended in futures_util::future::join_all(servers.map(end)).await {
            ended?;
        }
        Ok(())
    }

    async fn is_together(&self) -> bool {
        let roles = futures_util::future::join_all(self.members.iter().map(Member::role)).await;
        let primaries = roles.iter().filter(|role| **role == Some(Role::Primary));
        primaries.count() == 1 && roles.iter().all(Option::is_some)
    }
}

/// What a member is when it can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Primary,
    Secondary,
}

impl Member {
    async fn launch(&self, mongod: &Path) -> Result<Leashed, EmbeddedError> {
        let log = self.folder.join("mongod.log");
        let mut server = spawn(mongod, &self.folder, &log, self.port, &[]).await?;
        let answers = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                .await
                .is_err()
            {
                sleep(POLL_INTERVAL).await;
            }
        };
        tokio::select! {
            status = server.wait() => Err(super::exited(mongod, &log, status).await),
            answered = timeout(START_TIME_LIMIT, answers) => match answered {
                Ok(()) => Ok(server),
                Err(_) => Err(EmbeddedError::NotWritable { port: self.port }),
            },
        }
    }

    async fn role(&self) -> Option<Role> {
        let client: Client = direct_client(self.port).await.ok()?;
        let admin = client.database("admin");
        let hello = admin.run_command(doc! { "hello": 1 });
        let hello = timeout(START_TIME_LIMIT, hello).await.ok()?.ok();
        client.shutdown().immediate(true).await;
        let is = |name| hello.as_ref()?.get_bool(name).ok().filter(|is| *is);
        is("isWritablePrimary")
            .map(|_| Role::Primary)
            .or_else(|| is("secondary").map(|_| Role::Secondary))
    }
}

fn reserve() -> std::io::Result<(u16, TcpSocket)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    Ok((socket.local_addr()?.port(), socket))
}
