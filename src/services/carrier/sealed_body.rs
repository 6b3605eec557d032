//! A request body that tells whether it left us, and that refuses to leave too late.
//!
//! A dial request without its body dials nobody. So as long as the HTTP client has not taken the body, we know that nobody
//! was dialed, whatever error it reports; and a request that was held up (connecting, or a frozen process) until its
//! permission grew old must not go out at all (promises P2 and P5).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::utils::crash_points::crash_point;

const SEALED: u8 = 0;
const TAKEN: u8 = 1;
const EXPIRED: u8 = 2;

/// The body.
#[derive(Debug)]
pub struct SealedBody {
    content: Option<Bytes>,
    deadline: Instant,
    state: Arc<AtomicU8>,
}

/// Tells afterwards what became of the body.
#[derive(Debug, Clone)]
pub struct Seal(Arc<AtomicU8>);

impl SealedBody {
    /// A body that may be taken until `deadline` of the monotonic clock.
    #[must_use]
    pub fn new(content: Vec<u8>, deadline: Instant) -> (Self, Seal) {
        let state = Arc::new(AtomicU8::new(SEALED));
        (
            Self {
                content: Some(content.into()),
                deadline,
                state: Arc::clone(&state),
            },
            Seal(state),
        )
    }
}

impl Seal {
    /// True when the body was handed over for sending.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.0.load(Ordering::SeqCst) == TAKEN
    }
}

/// The permission to send had expired.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the permission to send had expired")]
pub struct Expired;

impl Body for SealedBody {
    type Data = Bytes;
    type Error = Expired;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Expired>>> {
        let Some(content) = self.content.take() else {
            return Poll::Ready(None);
        };
        if Instant::now() > self.deadline {
            self.state.store(EXPIRED, Ordering::SeqCst);
            return Poll::Ready(Some(Err(Expired)));
        }
        self.state.store(TAKEN, Ordering::SeqCst);
        crash_point!("send.body_taken");
        Poll::Ready(Some(Ok(Frame::data(content))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(
            self.content
                .as_ref()
                .map_or(0, |content| content.len() as u64),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn next(body: &mut SealedBody) -> Option<Result<Frame<Bytes>, Expired>> {
        std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
    }

    #[tokio::test]
    async fn a_body_leaves_once_and_says_so() {
        let (mut body, seal) =
            SealedBody::new(b"dial".to_vec(), Instant::now() + Duration::from_secs(60));
        assert!(!seal.is_broken());
        assert!(next(&mut body).await.unwrap().is_ok());
        assert!(seal.is_broken());
        assert!(next(&mut body).await.is_none());
    }

    #[tokio::test]
    async fn a_body_that_is_too_late_stays() {
        let (mut body, seal) =
            SealedBody::new(b"dial".to_vec(), Instant::now() - Duration::from_millis(1));
        assert!(next(&mut body).await.unwrap().is_err());
        assert!(!seal.is_broken());
    }
}
