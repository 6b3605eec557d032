//! Start and stop of everything that runs in the background: the only place that spawns tasks.
//!
//! Two tokens. *Soft* says "take no new work, finish what you have"; *hard* says "leave now". The hard one is the soft
//! one's parent, so that leaving now also means taking no new work. A task that dies unexpectedly stops the process, and
//! the exit code says so: a half-dead container that still answers health checks would be worse than none.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Shared handle to the process's life; clones are the same life.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    soft: CancellationToken,
    hard: CancellationToken,
    background: TaskTracker,
    work: TaskTracker,
    crashed: Arc<AtomicBool>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        let hard = CancellationToken::new();
        Self {
            soft: hard.child_token(),
            hard,
            background: TaskTracker::new(),
            work: TaskTracker::new(),
            crashed: Arc::new(AtomicBool::new(false)),
        }
    }
}

impl Lifecycle {
    /// Asks everything to finish; idempotent.
    pub fn stop(&self) {
        self.soft.cancel();
    }

    /// True once [`Lifecycle::stop`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Resolves when the process is asked to stop.
    pub async fn stopping(&self) {
        self.soft.cancelled().await;
    }

    /// True when a background task died on its own.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.crashed.load(Ordering::Relaxed)
    }

    /// A token that is cancelled when the process is asked to stop; cancelling it stops nothing else.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.soft.child_token()
    }

    /// Sleeps, but not past the order to stop. Returns false when stopping.
    pub async fn sleep(&self, duration: Duration) -> bool {
        self.soft
            .run_until_cancelled(tokio::time::sleep(duration))
            .await
            .is_some()
    }

    /// Runs a loop for the life of the process. If it ends or panics before the process is asked to stop, the process stops.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn_background(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let life = self.clone();
        let inner = tokio::spawn(self.hard.clone().run_until_cancelled_owned(task));
        self.background.spawn(async move {
            let ended = inner.await;
            if let Err(error) = &ended {
                tracing::error!(
                    task = name,
                    panicked = error.is_panic(),
                    "a background task died"
                );
            }
            if !life.is_stopping() {
                tracing::error!(
                    task = name,
                    "a background task ended early: stopping the process"
                );
                life.crashed.store(true, Ordering::Relaxed);
                life.stop();
            }
        });
    }

    /// Runs one piece of work that must finish even when whoever asked for it goes away (a webhook's write, a dial request
    /// on its way). The drain waits for it. Dropping the handle does not stop it.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn_work<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        tokio::spawn(self.work.track_future(work))
    }

    /// Waits for work and background tasks to end, for at most `grace`, then drops what is left. Returns true when all ended by themselves.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.stop();
        self.background.close();
        self.work.close();
        let all = async {
            self.background.wait().await;
            self.work.wait().await;
        };
        let clean = tokio::time::timeout(grace, all).await.is_ok();
        self.hard.cancel();
        clean
    }
}

/// Resolves at SIGTERM or SIGINT. A second one ends the process at once.
///
/// # Errors
/// When the signals cannot be listened to.
pub fn shutdown_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "it must outlive the drain that it cuts short"
        )]
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            #[expect(clippy::exit, reason = "asked twice: now")]
            std::process::exit(130);
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_dies_stops_the_process() {
        let life = Lifecycle::default();
        life.spawn_background("doomed", async { panic!("on purpose") });
        life.stopping().await;
        assert!(life.has_crashed());
        assert!(life.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn the_drain_waits_for_work_but_not_for_ever() {
        let life = Lifecycle::default();
        let (send, receive) = tokio::sync::oneshot::channel::<()>();
        let handle = life.spawn_work(async move { receive.await.is_ok() });
        assert!(!life.drain(Duration::from_millis(20)).await);
        send.send(()).unwrap();
        assert!(handle.await.unwrap());
        assert!(!life.has_crashed());
    }
}
