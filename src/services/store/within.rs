//! A time limit on every command. The driver has none of its own: a connection that swallows packets would hold its caller for
//! as long as the operating system pleases, and with it a driver that still looks alive.

use std::future::IntoFuture;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::StoreError;

/// Longest wait for the database, a failover included: election (10.7 s measured with default settings) and the command itself.
const LONGEST: Duration = Duration::from_secs(20);

/// Awaits a command of the driver for a limited time.
pub(super) trait Within<'a, T> {
    /// The command's result; `Unavailable` when it took too long. It may then still take effect.
    fn within(self) -> BoxFuture<'a, Result<T, StoreError>>;
}

impl<'a, T, A> Within<'a, T> for A
where
    A: IntoFuture<Output = mongodb::error::Result<T>> + Send + 'a,
    A::IntoFuture: Send,
{
    fn within(self) -> BoxFuture<'a, Result<T, StoreError>> {
        Box::pin(async move { limited(self.into_future()).await?.map_err(StoreError::from) })
    }
}

/// Awaits anything of the driver for a limited time.
///
/// # Errors
/// `Unavailable` when it took too long. It may then still take effect.
pub(super) async fn limited<F: Future>(work: F) -> Result<F::Output, StoreError> {
    limited_to(LONGEST, work).await
}

/// Awaits anything of the driver for at most `longest`.
///
/// # Errors
/// `Unavailable` when it took too long. It may then still take effect.
pub(super) async fn limited_to<F: Future>(
    longest: Duration,
    work: F,
) -> Result<F::Output, StoreError> {
    tokio::time::timeout(longest, work)
        .await
        .map_err(|_| StoreError::Unavailable { code: None })
}
