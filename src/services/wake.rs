//! Wakes whoever waits in this process when a call ended here; other processes notice by polling.

use std::time::Duration;

use tokio::sync::watch;

/// Shared bell; clones ring the same.
#[derive(Debug, Clone)]
pub struct Wake {
    bell: watch::Sender<u64>,
}

/// A waiter. It hears every ring since it was made or last heard one, so that a ring between looking and waiting is not lost.
#[derive(Debug)]
pub struct Waiter(watch::Receiver<u64>);

impl Default for Wake {
    fn default() -> Self {
        Self {
            bell: watch::Sender::new(0),
        }
    }
}

impl Wake {
    /// Wakes all waiters.
    pub fn ring(&self) {
        self.bell
            .send_modify(|rings| *rings = rings.wrapping_add(1));
    }

    /// A new waiter. Make it before looking at what may change.
    #[must_use]
    pub fn waiter(&self) -> Waiter {
        Waiter(self.bell.subscribe())
    }
}

impl Waiter {
    /// Returns at the next ring, after `at_most` at the latest.
    pub async fn wait(&mut self, at_most: Duration) {
        tokio::select! {
            _ = self.0.changed() => {}
            () = tokio::time::sleep(at_most) => {}
        }
    }
}
