//! Addresses in front of the database's members, the carrier and the containers, for faults of the network between them.
//!
//! A proxy always reads what arrives, also while it passes nothing on, so that it knows when a container sent something: what
//! it held back is not the container's delay.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use url::form_urlencoded;

use super::trap::Trap;
use crate::utils::clock::Clock;
use crate::utils::lifecycle::Lifecycle;

/// What a proxy holds back of one direction of a connection at most.
const LONGEST_HOLD: usize = 4 * 1024 * 1024;
/// The name that a container gives its database connections begins like this and ends with its number.
pub(super) const APP_NAME: &str = "ringmaster-container-";
/// The name is in the driver's first message; it fits in this many bytes.
const FIRST_BYTES: usize = 4096;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Way {
    /// They go through.
    #[default]
    Open,
    /// They are closed in an orderly way, new ones too.
    Closed,
    /// They are reset, new ones too.
    Reset,
    /// They stay open and nothing passes until the way changes.
    Stalled,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Stalled => "stalled",
        })
    }
}

/// Whose connections take a way: all, or one container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    All,
    Container(usize),
}

type Ways = BTreeMap<Whose, Way>;

fn way_of(ways: &Ways, container: Option<usize>) -> Way {
    let way = |whose| ways.get(&whose).copied().unwrap_or_default();
    match (way(Whose::All), container) {
        (Way::Open, Some(container)) => way(Whose::Container(container)),
        (way, _) => way,
    }
}

/// When each dial left its container, by call id and dial number, unix ms.
#[derive(Debug, Clone, Default)]
pub(super) struct DialNotes(Arc<Mutex<BTreeMap<(String, String), i64>>>);

impl DialNotes {
    /// All notes so far.
    pub(super) fn all(&self) -> BTreeMap<(String, String), i64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note(&self, bytes: &[u8], now_ms: i64) {
        for dial in dials_in(bytes) {
            let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            notes.entry(dial).or_insert(now_ms);
        }
    }
}

/// The dials that a request's callback addresses name, whatever the order of their parameters.
fn dials_in(bytes: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(bytes);
    let dial = |rest: &str| {
        // One without its end is cut in two: the rest is to come.
        let query = &rest[..rest.find(['#', '"'])?];
        let value = |name: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
        };
        Some((value("call")?, value("dial")?))
    };
    text.split("/plivo/answer-url?")
        .skip(1)
        .filter_map(dial)
        .collect()
}

/// What a proxy does besides passing bytes on.
#[derive(Debug, Clone)]
pub(super) enum Duty {
    /// Nothing.
    Pass,
    /// It knows which container a database connection belongs to, and may hold its dials up.
    Recognise(Trap),
    /// It writes down when dials leave their container.
    NoteDials(DialNotes),
}

/// An address in front of one or several servers.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    ways: watch::Sender<Ways>,
}

impl Proxy {
    /// A proxy in front of `servers`; each connection goes to the next one that accepts it, as at a load balancer.
    pub(super) async fn start(
        life: &Lifecycle,
        servers: Vec<SocketAddr>,
        duty: Duty,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (ways, seen) = watch::channel(Ways::new());
        let work = life.clone();
        life.spawn_background("proxy", async move {
            let mut turn = 0;
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = work.stopping() => return,
                };
                let Ok((client, _)) = accepted else { continue };
                turn += 1;
                let mut order = servers.clone();
                let first = turn % order.len().max(1);
                order.rotate_left(first);
                let (seen, duty, life) = (seen.clone(), duty.clone(), work.clone());
                work.spawn_work(async move {
                    let passing = pass(client, &order, seen, duty);
                    tokio::select! {
                        _ = passing => {}
                        () = life.stopping() => {}
                    }
                });
            }
        });
        Ok(Self { address, ways })
    }

    /// Sends connections this way from now on, old ones too.
    pub(super) fn set(&self, whose: Whose, way: Way) {
        self.ways.send_modify(|ways| {
            ways.insert(whose, way);
        });
    }

    /// Opens every way.
    pub(super) fn open(&self) {
        self.ways.send_modify(Ways::clear);
    }
}

async fn pass(
    mut client: TcpStream,
    servers: &[SocketAddr],
    mut ways: watch::Receiver<Ways>,
    duty: Duty,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut first = Vec::new();
    let mut container = None;
    if matches!(duty, Duty::Recognise(_)) {
        first.resize(FIRST_BYTES, 0);
        let count = client.read(&mut first).await?;
        first.truncate(count);
        container = container_in(&first);
    }
    let mut server = None;
    for address in servers {
        if let Ok(stream) = TcpStream::connect(address).await {
            server = Some(stream);
            break;
        }
    }
    let Some(mut server) = server else {
        return Ok(());
    };
    server.set_nodelay(true)?;
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = pump(
            from_client,
            to_server,
            first,
            (ways.clone(), container),
            duty,
        );
        let back = pump(
            from_server,
            to_client,
            Vec::new(),
            (ways.clone(), container),
            Duty::Pass,
        );
        tokio::select! {
            ended = async { tokio::try_join!(there, back) } => ended.map(|_| Way::Closed),
            way = until_cut(&mut ways, container) => Ok(way),
        }
    };
    if matches!(end, Ok(Way::Reset)) {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    end.map(drop)
}

/// Resolves when these connections are to end.
async fn until_cut(ways: &mut watch::Receiver<Ways>, container: Option<usize>) -> Way {
    loop {
        let way = way_of(&ways.borrow_and_update(), container);
        if matches!(way, Way::Closed | Way::Reset) || ways.changed().await.is_err() {
            return way;
        }
    }
}

/// Passes one direction on, until its sender is done.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut held: Vec<u8>,
    (mut ways, container): (watch::Receiver<Ways>, Option<usize>),
    duty: Duty,
) -> io::Result<()> {
    let clock = Clock::system();
    let mut chunk = vec![0; 16 * 1024];
    let mut tail = Vec::new();
    let mut is_done = false;
    let mut held_up = Instant::now();
    loop {
        let now = Instant::now();
        let is_through = way_of(&ways.borrow_and_update(), container) == Way::Open;
        let is_open = is_through && held_up <= now;
        if is_done && held.is_empty() {
            return to.shutdown().await;
        }
        tokio::select! {
            read = from.read(&mut chunk), if !is_done && held.len() < LONGEST_HOLD => {
                let read = read?;
                is_done = read == 0;
                held.extend_from_slice(&chunk[..read]);
                match (&duty, container) {
                    (Duty::NoteDials(notes), _) => {
                        tail.extend_from_slice(&chunk[..read]);
                        notes.note(&tail, clock.now().timestamp_millis());
                        tail.drain(..tail.len().saturating_sub(FIRST_BYTES));
                    }
                    (Duty::Recognise(trap), Some(container)) => {
                        if let Some(hold) = trap.passes(container, &chunk[..read]) {
                            held_up = Instant::now() + hold;
                        }
                    }
                    (Duty::Recognise(_) | Duty::Pass, _) => {}
                }
            }
            written = to.write(&held), if is_open && !held.is_empty() => {
                held.drain(..written?);
            }
            () = sleep_until(held_up), if held_up > now => {}
            changed = ways.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// The container that a database connection belongs to, by the name in the driver's greeting.
fn container_in(greeting: &[u8]) -> Option<usize> {
    let name = APP_NAME.as_bytes();
    let at = greeting
        .windows(name.len())
        .position(|window| window == name)?;
    let number = char::from(*greeting.get(at + name.len())?);
    usize::try_from(number.to_digit(10)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_recognised_by_its_name() {
        assert_eq!(container_in(b"..name\0ringmaster-container-2\0"), Some(2));
        assert_eq!(container_in(b"..name\0NetworkInterfaceTL"), None);
        assert_eq!(container_in(b"ringmaster-container-"), None);
    }

    #[test]
    fn dials_are_read_from_their_callback_addresses() {
        let body = br#"{"answer_url":"http://h/plivo/answer-url?call=aa11&client=c&dial=2&campaign=d#rc=5","x":"y"}
            {"answer_url":"http://h/plivo/answer-url?call=bb22&client=c&dial=1"#;
        assert_eq!(
            dials_in(body),
            [("aa11".to_owned(), "2".to_owned())],
            "the last one may be cut off"
        );
    }

    #[test]
    fn the_way_of_all_goes_before_that_of_one() {
        let ways = Ways::from([
            (Whose::Container(1), Way::Reset),
            (Whose::All, Way::Stalled),
        ]);
        assert_eq!(way_of(&ways, Some(1)), Way::Stalled);
        let ways = Ways::from([(Whose::Container(1), Way::Reset)]);
        assert_eq!(way_of(&ways, Some(1)), Way::Reset);
        assert_eq!(way_of(&ways, Some(2)), Way::Open);
        assert_eq!(way_of(&ways, None), Way::Open);
    }
}
