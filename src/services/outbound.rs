//! Where servers named by users may be: only in the public internet, unless ALLOW_PRIVATE_URLS says otherwise.
//!
//! An address is checked twice. When it is given: so that its owner hears what is wrong, and because the carrier, which
//! fetches most of them, is out of our hands. And when we connect: every name is looked up once and only the addresses that
//! were checked are connected to, so a name server that answers differently the second time gains nothing. One internal
//! address among several condemns the name.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect;
use url::Url;

use crate::domain::web_address::{NOT_PUBLIC, Reach, is_public, reach};

/// How long looking a name up may take while its owner waits.
const LOOKUP_TIME: Duration = Duration::from_secs(4);
/// Redirects that are followed.
const MOST_REDIRECTS: usize = 3;

/// Why a server is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is, or resolves to, an internal address.
    #[error("{NOT_PUBLIC}")]
    NotPublic,
    /// Nobody knows the name.
    #[error("has a host name that cannot be found")]
    Unknown,
    /// The name servers did not answer.
    #[error("has a host name that could not be looked up in time; try again")]
    NoAnswer,
}

/// Judges addresses of other servers. Cheap to clone.
#[derive(Clone)]
pub struct Outbound {
    /// `None`: every address is allowed.
    names: Option<Arc<PublicNames>>,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound")
            .field("is_guarded", &self.names.is_some())
            .finish_non_exhaustive()
    }
}

impl Outbound {
    /// Allows public addresses only, or all with `allow_private`.
    #[must_use]
    pub fn new(allow_private: bool) -> Self {
        Self {
            names: (!allow_private).then(|| {
                Arc::new(PublicNames {
                    names: system_names(),
                    patience: LOOKUP_TIME,
                })
            }),
        }
    }

    /// What is wrong with the addresses, each given with the path of its field.
    pub async fn faults(&self, addresses: Vec<(&'static str, Url)>) -> Vec<(String, String)> {
        let check = async |(path, url): (&'static str, Url)| {
            let refusal = self.check(&url).await.err()?;
            Some((path.to_owned(), refusal.to_string()))
        };
        let checked = join_all(addresses.into_iter().map(check)).await;
        checked.into_iter().flatten().collect()
    }

    /// Looks an address up and judges it.
    ///
    /// # Errors
    /// Why it may not be asked.
    pub async fn check(&self, url: &Url) -> Result<(), Refusal> {
        let Some(names) = &self.names else {
            return Ok(());
        };
        let name = match reach(url) {
            Reach::Public => return Ok(()),
            Reach::Internal => return Err(Refusal::NotPublic),
            Reach::Name(name) => name.parse::<Name>().map_err(|_| Refusal::Unknown)?,
        };
        names.lookup(name).await.map(drop)
    }

    /// Whether the address may be asked, as far as it says so itself; what its name resolves to is judged by the client of
    /// [`Outbound::client`] when it connects.
    #[must_use]
    pub fn may_ask(&self, url: &Url) -> bool {
        self.names.is_none() || reach(url) != Reach::Internal
    }

    /// A client that connects to allowed addresses only, also behind redirects. No proxy is asked: it would look names up
    /// itself.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn client(&self, timeout: Duration) -> reqwest::Result<reqwest::Client> {
        self.builder(timeout).build()
    }

    fn builder(&self, timeout: Duration) -> reqwest::ClientBuilder {
        let builder = reqwest::Client::builder().timeout(timeout);
        let Some(names) = &self.names else {
            return builder.redirect(redirect::Policy::limited(MOST_REDIRECTS));
        };
        let only_public = redirect::Policy::custom(|attempt| {
            if attempt.previous().len() > MOST_REDIRECTS {
                attempt.stop()
            } else if reach(attempt.url()) == Reach::Internal {
                attempt.error(Refusal::NotPublic)
            } else {
                attempt.follow()
            }
        });
        builder
            .redirect(only_public)
            .dns_resolver(Arc::clone(names))
            .no_proxy()
    }
}

/// Looks names up and gives away public addresses only.
struct PublicNames {
    names: Arc<dyn Resolve>,
    patience: Duration,
}

impl PublicNames {
    fn lookup(
        &self,
        name: Name,
    ) -> impl Future<Output = Result<Vec<SocketAddr>, Refusal>> + Send + use<> {
        let looking = tokio::time::timeout(self.patience, self.names.resolve(name));
        async {
            let refusal = |error: Box<dyn std::error::Error + Send + Sync>| {
                error
                    .downcast_ref::<Refusal>()
                    .copied()
                    .unwrap_or(Refusal::NoAnswer)
            };
            let found = looking.await.map_err(|_| Refusal::NoAnswer)?;
            let found: Vec<_> = found.map_err(refusal)?.collect();
            if found.is_empty() {
                return Err(Refusal::Unknown);
            }
            match found.iter().all(|address| is_public(address.ip())) {
                true => Ok(found),
                false => Err(Refusal::NotPublic),
            }
        }
    }
}

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        let looking = self.lookup(name);
        Box::pin(async { Ok(Box::new(looking.await?.into_iter()) as Addrs) })
    }
}

/// The machine's name servers and hosts file. Unlike the C library's look-up this one can be given up at any time and holds
/// no thread meanwhile.
struct SystemNames(Option<TokioResolver>);

fn system_names() -> Arc<dyn Resolve> {
    let built = TokioResolver::builder_tokio().and_then(|mut builder| {
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        builder.build()
    });
    if built.is_err() {
        tracing::warn!(
            "the machine's name servers are not configured: addresses with names will be refused"
        );
    }
    Arc::new(SystemNames(built.ok()))
}

impl Resolve for SystemNames {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.0.clone();
        Box::pin(async move {
            let resolver = resolver.ok_or(Refusal::NoAnswer)?;
            let found = resolver.lookup_ip(name.as_str()).await;
            let found = found.map_err(|error| match error.is_no_records_found() {
                true => Refusal::Unknown,
                false => Refusal::NoAnswer,
            })?;
            let ips: Vec<IpAddr> = found.iter().collect();
            Ok(Box::new(ips.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
