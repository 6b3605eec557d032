//! Serves HTTP/1.1 to whoever connects, also to those who mean harm: there are only so many connections, each with buffers
//! of a bounded size, and none that does not get on keeps its place.
//!
//! | what a client does | what becomes of it |
//! |---|---|
//! | opens more connections than there are places | the one that has been idle for longest makes room |
//! | sends its head slowly, or nothing at all | closed after [`HEAD_TIME`] |
//! | sends a head that is too long | 431, closed |
//! | sends its body slowly, or never to its end | the handler is told that it is incomplete (see `body`) |
//! | does not read the answer | closed when nothing was taken for [`STALL_TIME`] |
//! | stays connected between requests | welcome for [`IDLE_TIME`], while there is room |
//!
//! HTTP/2 is not spoken: what stands in front of us (Cloud Run, load balancers) asks by HTTP/1.1, and its resets and
//! header compression would be one more thing to attack.

mod body;
mod seats;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use crate::utils::lifecycle::Lifecycle;

use self::body::{Answering, Steady};
use self::seats::{Seat, Seats};
use self::stream::Watched;

/// Connections at once. An idle one costs some 20 KiB.
const MOST_CONNECTIONS: usize = 4096;
/// Files that are left for everything else: the database, the carrier, bots.
const OTHER_FILES: u64 = 256;
/// Longest request line with headers, in bytes.
const LONGEST_HEAD: usize = 16 * 1024;
/// Size to which a connection's buffer for reading, and the one for writing, may grow, in bytes.
const LARGEST_BUFFER: usize = 64 * 1024;
/// Time for a request's head, from its first byte; for the first one of a connection from its beginning.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// How long a connection may be idle between requests: longer than load balancers keep theirs (up to 10 min), since one
/// that we close while a request is on its way costs that request.
const IDLE_TIME: Duration = Duration::from_secs(620);
/// How long nothing of an answer may be taken.
const STALL_TIME: Duration = Duration::from_secs(30);
/// How often a connection is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// What a connection without a request may still take to close when it was asked to.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// Pause when connections cannot be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until the process is asked to stop. Each is served by a task of its own, which the drain waits for;
/// connections without a request under way close at once then.
pub(super) async fn serve(listener: TcpListener, router: Router, life: Lifecycle) {
    let most = most_connections();
    tracing::debug!(connections = most, "serving");
    let seats = Arc::new(Seats::new(most));
    while let Some(accepted) = life.token().run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Usually a connection that is gone already; else files or memory have run out, and one fewer helps.
                tracing::debug!(%error, "a connection was not accepted");
                seats.make_room();
                life.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let token = life.token();
        let Some(seat) = life.token().run_until_cancelled(seats.take(token)).await else {
            return;
        };
        // It only delays; a connection on which it fails is gone.
        stream.set_nodelay(true).ok();
        drop(life.spawn_work(attend(stream, seat, router.clone())));
    }
}

/// As many files as the system grants, and places for connections in what others leave of them.
fn most_connections() -> usize {
    let files = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: files.maximum,
        ..files
    };
    // What the system does not grant we do without.
    setrlimit(Resource::Nofile, raised).ok();
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let free = files.saturating_sub(OTHER_FILES).max(files / 2);
    usize::try_from(free)
        .unwrap_or(usize::MAX)
        .clamp(1, MOST_CONNECTIONS)
}

/// Serves one connection.
async fn attend(stream: TcpStream, seat: Seat, router: Router) {
    let seat = Arc::new(seat);
    let service = {
        let seat = Arc::clone(&seat);
        service_fn(move |request: Request<Incoming>| {
            let answering = Answering::new(Arc::clone(&seat));
            let answer = router.clone().oneshot(request.map(Steady::body));
            async move {
                let response: Response = answer.await.unwrap_or_else(|never| match never {});
                Ok::<_, Infallible>(response.map(|body| answering.body(body)))
            }
        })
    };
    let stream = TokioIo::new(Watched::new(stream, Arc::clone(&seat)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The seat knows better: this time would also be the longest pause between two requests.
        .header_read_timeout(None)
        .max_header_size(LONGEST_HEAD)
        .max_buf_size(LARGEST_BUFFER)
        .serve_connection(stream, service);
    let mut connection = std::pin::pin!(connection);
    let is_asked_to_close = loop {
        tokio::select! {
            // Errors are those of the client, and speak of what it sent.
            _ = connection.as_mut() => return,
            () = seat.asked_to_close() => break true,
            () = tokio::time::sleep(LOOK_INTERVAL) => {
                if seat.is_overdue() {
                    break false;
                }
            }
        }
    };
    if !is_asked_to_close {
        return;
    }
    connection.as_mut().graceful_shutdown();
    while tokio::time::timeout(CLOSE_TIME, connection.as_mut())
        .await
        .is_err()
    {
        if !seat.is_busy() || seat.is_overdue() {
            return;
        }
    }
}
