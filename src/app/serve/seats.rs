//! Places for connections: who has one, what it is doing, and who makes room when all are taken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{HEAD_TIME, IDLE_TIME, STALL_TIME};

/// How often room is asked for while none is free. Who is idle leaves within milliseconds.
const ROOM_INTERVAL: Duration = Duration::from_millis(200);

/// All places.
pub(super) struct Seats {
    free: Arc<Semaphore>,
    idle: Arc<Idle>,
}

/// Connections without a request under way, the one that has been so for longest first.
#[derive(Default)]
struct Idle {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, CancellationToken>>,
}

/// One connection's place; free again when it is dropped.
pub(super) struct Seat {
    close: CancellationToken,
    idle: Arc<Idle>,
    place: Mutex<Option<u64>>,
    since: Instant,
    requests: AtomicUsize,
    /// When the connection's last request ended.
    idle_since: Moment,
    /// When the first byte of the next request came; set from the beginning of the connection for the first one.
    head_since: Moment,
    /// Since when nothing of an answer is taken.
    stalled_since: Moment,
    _permit: OwnedSemaphorePermit,
}

/// A moment after the beginning of the connection, or none.
#[derive(Default)]
struct Moment(AtomicU64);

impl Moment {
    fn set(&self, since: Instant) {
        let elapsed = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.store(elapsed.saturating_add(1), Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    fn is_longer_ago_than(&self, limit: Duration, since: Instant) -> bool {
        let at = Duration::from_millis(self.0.load(Ordering::Relaxed).saturating_sub(1));
        self.is_set() && since.elapsed().saturating_sub(at) > limit
    }
}

impl Seats {
    pub(super) fn new(most: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most)),
            idle: Arc::default(),
        }
    }

    /// A place for a connection; the longest idle one is asked to go if none is free. `close` asks this one.
    pub(super) async fn take(&self, close: CancellationToken) -> Seat {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.take_when_free().await,
        };
        let seat = Seat {
            close,
            idle: Arc::clone(&self.idle),
            place: Mutex::default(),
            since: Instant::now(),
            requests: AtomicUsize::new(0),
            idle_since: Moment::default(),
            head_since: Moment::default(),
            stalled_since: Moment::default(),
            _permit: permit,
        };
        seat.head_since.set(seat.since);
        seat.be_idle();
        seat
    }

    /// Those that have a request under way now may be idle the next moment, so it looks again and again.
    async fn take_when_free(&self) -> OwnedSemaphorePermit {
        loop {
            self.make_room();
            let waited = Arc::clone(&self.free).acquire_owned();
            if let Ok(permit) = tokio::time::timeout(ROOM_INTERVAL, waited).await {
                return permit.unwrap_or_else(|_| unreachable!("it is never closed"));
            }
        }
    }

    /// Asks the connection to go that has been idle for longest.
    pub(super) fn make_room(&self) {
        let oldest = self.idle.lock().pop_first();
        if let Some((_, close)) = oldest {
            close.cancel();
        }
    }
}

impl Idle {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Resolves when the connection is to close: room is needed, or the process stops.
    pub(super) async fn asked_to_close(&self) {
        self.close.cancelled().await;
    }

    /// Whether a request is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Whether the client had its time, for whatever it has to do now.
    pub(super) fn is_overdue(&self) -> bool {
        let is_past =
            |moment: &Moment, limit: Duration| moment.is_longer_ago_than(limit, self.since);
        is_past(&self.stalled_since, STALL_TIME)
            || (!self.is_busy()
                && (is_past(&self.head_since, HEAD_TIME) || is_past(&self.idle_since, IDLE_TIME)))
    }

    /// A request's head is complete.
    pub(super) fn begin_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.clear();
        self.idle_since.clear();
        self.leave_idle();
    }

    /// Its answer is on its way to its last byte, or nobody wants it any more.
    pub(super) fn end_request(&self) {
        if self.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle_since.set(self.since);
            self.be_idle();
        }
    }

    /// Bytes came from the client.
    pub(super) fn heard(&self) {
        if !self.is_busy() && !self.head_since.is_set() {
            self.head_since.set(self.since);
        }
    }

    /// The client takes nothing, or takes something again.
    pub(super) fn stalled(&self, is_stalled: bool) {
        match is_stalled {
            true if !self.stalled_since.is_set() => self.stalled_since.set(self.since),
            true => {}
            false => self.stalled_since.clear(),
        }
    }

    fn be_idle(&self) {
        let place = self.idle.next.fetch_add(1, Ordering::Relaxed);
        self.idle.lock().insert(place, self.close.clone());
        *self.place() = Some(place);
    }

    fn leave_idle(&self) {
        if let Some(place) = self.place().take() {
            self.idle.lock().remove(&place);
        }
    }

    fn place(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave_idle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_idle_makes_room_and_a_busy_one_never() {
        let seats = Seats::new(3);
        let busy = seats.take(CancellationToken::new()).await;
        let old = seats.take(CancellationToken::new()).await;
        let young = seats.take(CancellationToken::new()).await;
        busy.begin_request();
        let mut next = std::pin::pin!(seats.take(CancellationToken::new()));
        tokio::select! {
            biased;
            _ = &mut next => panic!("nobody has left yet"),
            () = old.asked_to_close() => {}
        }
        assert!(!busy.close.is_cancelled() && !young.close.is_cancelled());
        drop(old);
        let _next = next.await;
        // Whoever was busy last is the youngest of the idle ones.
        busy.end_request();
        seats.make_room();
        assert!(young.close.is_cancelled() && !busy.close.is_cancelled());
    }

    #[tokio::test]
    async fn what_a_client_has_time_for_depends_on_what_it_does() {
        let seats = Seats::new(1);
        let mut seat = seats.take(CancellationToken::new()).await;
        let ago = |seat: &mut Seat, time| {
            let past = Instant::now().checked_sub(time).unwrap();
            seat.since = past;
        };
        assert!(!seat.is_overdue());
        ago(&mut seat, HEAD_TIME * 2);
        assert!(seat.is_overdue(), "no head came");
        seat.begin_request();
        assert!(!seat.is_overdue(), "a handler may take its time");
        seat.end_request();
        assert!(!seat.is_overdue(), "idle just now");
        ago(&mut seat, HEAD_TIME * 4);
        assert!(!seat.is_overdue(), "idle for a short while");
        ago(&mut seat, HEAD_TIME * 2 + IDLE_TIME * 2);
        assert!(seat.is_overdue(), "idle for long");
        seat.begin_request();
        seat.stalled(true);
        seat.stalled(true);
        assert!(!seat.is_overdue());
        ago(&mut seat, HEAD_TIME * 2 + IDLE_TIME * 2 + STALL_TIME * 2);
        assert!(seat.is_overdue(), "nothing is taken");
        seat.stalled(false);
        assert!(!seat.is_overdue());
    }

    #[tokio::test]
    async fn a_dropped_connection_leaves_nothing_behind() {
        let seats = Seats::new(2);
        let seat = seats.take(CancellationToken::new()).await;
        seat.begin_request();
        seat.begin_request();
        seat.end_request();
        assert!(seat.is_busy() && seats.idle.lock().is_empty());
        seat.end_request();
        assert_eq!(seats.idle.lock().len(), 1);
        drop(seat);
        assert!(seats.idle.lock().is_empty());
        assert_eq!(seats.free.available_permits(), 2);
    }
}
