//! Bodies on their way in, which must get on, and on their way out, which keep their connection's seat busy.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;

use super::seats::Seat;

/// A body must bring [`STEP`] more bytes, or end, within this time, not counting the time in which nobody asks for more.
const STEP_TIME: Duration = Duration::from_secs(30);
/// See [`STEP_TIME`].
const STEP: usize = 16 * 1024;

/// A body that fails when its sender does not get on, be it silent or so slow that it would never end.
pub(super) struct Steady<B> {
    body: B,
    /// Bytes of the current step that came.
    came: usize,
    /// Time that is left for the rest of it.
    left: Duration,
    /// Since when more is waited for.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<B> Steady<B>
where
    B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + Unpin + 'static,
{
    /// The body as handlers read it.
    pub(super) fn body(body: B) -> Body {
        if body.is_end_stream() {
            return Body::empty();
        }
        Body::new(Self {
            body,
            came: 0,
            left: STEP_TIME,
            waiting: None,
        })
    }
}

impl<B> HttpBody for Steady<B>
where
    B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Poll::Ready(next) = pin!(&mut self.body).poll_frame(context) else {
            let left = self.left;
            let (_, sleep) = self
                .waiting
                .get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
            ready!(sleep.as_mut().poll(context));
            let error = io::Error::new(io::ErrorKind::TimedOut, "the body does not get on");
            return Poll::Ready(Some(Err(error.into())));
        };
        if let Some((since, _)) = self.waiting.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        let came = next.as_ref().and_then(|frame| frame.as_ref().ok());
        self.came += came.and_then(Frame::data_ref).map_or(0, Bytes::len);
        if self.came >= STEP {
            (self.came, self.left) = (0, STEP_TIME);
        }
        Poll::Ready(next.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Keeps a seat busy from the request's head to the last byte of the answer.
pub(super) struct Answering(Arc<Seat>);

impl Answering {
    pub(super) fn new(seat: Arc<Seat>) -> Self {
        seat.begin_request();
        Self(seat)
    }

    /// The answer's body.
    pub(super) fn body(self, body: Body) -> Answer {
        Answer {
            body,
            _answering: self,
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.end_request();
    }
}

/// An answer's body.
pub(super) struct Answer {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
