//! Wakes bots before they are needed: a callee who hears nothing for two seconds hangs up, and counts as abandoned.
//!
//! One request serves every call to the same address for a while; a bot that does not wake is not asked again at once either.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use url::Url;

use super::outbound::Outbound;
use crate::config;
use crate::utils::backoff;

/// First pause between two tries; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// For so long a bot that did not wake is taken not to.
const COLD_FOR: Duration = Duration::from_secs(5);
/// Addresses remembered at most; a hostile list of addresses must not fill the memory.
const MOST_ADDRESSES: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Tried {
    at: Instant,
    warm: bool,
    tries: u32,
}

type Bot = Arc<tokio::sync::Mutex<Option<Tried>>>;

/// What a call should know of its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warmth {
    /// The bot answered.
    pub warm: bool,
    /// Requests it took.
    pub tries: u32,
}

/// A bot's address, and whose word it is: an operator's own setting is trusted, a user's is not.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BotAddress {
    url: String,
    is_own_setting: bool,
}

/// Without the address, which may hold a token.
impl std::fmt::Debug for BotAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BotAddress")
            .field("is_own_setting", &self.is_own_setting)
            .finish_non_exhaustive()
    }
}

/// The pool of warm bots. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Warmup {
    http: reqwest::Client,
    guarded_http: reqwest::Client,
    outbound: Outbound,
    settings: config::Warmup,
    bots: Arc<Mutex<HashMap<BotAddress, Bot>>>,
}

impl Warmup {
    /// The pool.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(settings: config::Warmup, outbound: Outbound) -> Result<Self, reqwest::Error> {
        Ok(Self {
            http: Outbound::new(true).client(settings.timeout)?,
            guarded_http: outbound.client(settings.timeout)?,
            outbound,
            settings,
            bots: Arc::default(),
        })
    }

    /// The address to wake for a campaign that names `own`, if any bot is to be woken at all.
    #[must_use]
    pub fn address(&self, own: Option<&str>) -> Option<BotAddress> {
        let of = |url: String, is_own_setting| BotAddress {
            url,
            is_own_setting,
        };
        let default = || {
            self.settings
                .url
                .as_ref()
                .map(|url| of(url.to_string(), true))
        };
        own.map(|url| of(url.to_owned(), false))
            .or_else(default)
            .filter(|_| self.settings.enabled)
    }

    /// Makes sure that the bot at `address` is awake; returns at once when it is known to be.
    pub async fn ensure(&self, address: &BotAddress) -> Warmth {
        let bot = self.bot(address);
        let mut tried = bot.lock().await;
        let fresh = tried.filter(|tried| {
            tried.at.elapsed()
                < if tried.warm {
                    self.settings.ttl
                } else {
                    COLD_FOR
                }
        });
        let known = match fresh {
            Some(known) => known,
            None => self.wake(address).await,
        };
        *tried = Some(known);
        Warmth {
            warm: known.warm,
            tries: known.tries,
        }
    }

    async fn wake(&self, address: &BotAddress) -> Tried {
        let mut tries = 0;
        loop {
            let warm = self.ask(address).await;
            tries += 1;
            if warm || tries > self.settings.retries {
                if !warm {
                    tracing::warn!(tries, "a bot did not wake");
                }
                return Tried {
                    at: Instant::now(),
                    warm,
                    tries,
                };
            }
            tokio::time::sleep(backoff::exponential(FIRST_PAUSE, tries - 1, LONGEST_PAUSE)).await;
        }
    }

    /// One request to a bot; true when it answers that all is well.
    async fn ask(&self, address: &BotAddress) -> bool {
        let Ok(url) = Url::parse(&address.url) else {
            return false;
        };
        let http = match address.is_own_setting {
            true => &self.http,
            false if self.outbound.may_ask(&url) => &self.guarded_http,
            false => return false,
        };
        let answer = http.get(url).send().await;
        answer.is_ok_and(|response| response.status().is_success())
    }

    fn bot(&self, address: &BotAddress) -> Bot {
        let mut bots = self.bots.lock().unwrap_or_else(PoisonError::into_inner);
        if bots.len() >= MOST_ADDRESSES && !bots.contains_key(address) {
            bots.retain(|_, bot| Arc::strong_count(bot) > 1);
        }
        Arc::clone(bots.entry(address.clone()).or_default())
    }
}
