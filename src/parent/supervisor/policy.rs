//! PURE. Timeouts, rates, and delays between attempts.
//!
//! **Restarts.** A worker that has served (it was ready, and accepted a connection or lived for a second) is replaced
//! at once, however young it died. Otherwise a client that can crash a worker by a request could keep its slot empty.
//!
//! Restarts are limited, since a worker's report that it has served may be false. No slot is started twice within 30 ms
//! or, after a burst of twenty, more than twenty times a second. After one start per slot at once, a pool makes at most
//! fifty starts a second. Replacements that workers ask for themselves (to leave, because of their requests, or because
//! a socket fails) come once a second per slot, after a burst of four: a worker that is to be recycled serves
//! meanwhile, and other workers serve for one that leaves.
//!
//! A slot whose worker never served backs off, exponentially and with jitter. All such slots together are tried four
//! times a second until one serves, so a crash loop costs the other slots nothing, however many slots are in it. Only
//! these failures count for `--give-up`. What an operator asks for (a rolling restart, more slots) is not delayed.

use std::time::Duration;

use crate::shared::config::{Config, OnStall};
use crate::shared::pace::Rate;
use crate::time::Time;

/// The limits of the pool. A timeout of zero means never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(super) timeouts: Timeouts,
    pub(super) rates: Rates,
    pub(super) backoff: Backoff,
    pub(super) shutdown: ShutdownPolicy,
    /// The number of slots that a rolling restart replaces at a time.
    pub(super) surge: usize,
    /// How long a worker may serve before it is replaced, less up to a tenth; zero is no limit.
    pub(super) max_age: Duration,
    /// Whether a stalled worker logs a backtrace before it is killed.
    pub(super) abort_stalled: bool,
}

/// How long a process may stay in a stage before it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeouts {
    /// From the fork until the worker is ready.
    pub(super) boot: Duration,
    /// From the signal that has stopped a worker before it was ready. 5 s: whoever has stopped the whole pool for a
    /// moment continues one process after the other.
    pub(super) suspended: Duration,
    /// From the request to drain until the worker is killed.
    pub(super) drain: Duration,
    /// From the request to quit until the worker is killed. 1 s: a quick stop waits for nothing, and this only lets a
    /// worker run its own exit code.
    pub(super) quick: Duration,
}

/// Limits on starts, except those requested by an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rates {
    /// Between two starts of a slot. 30 ms: clients hardly notice, and a worker that dies as soon as it serves costs
    /// little processor time.
    pub(super) floor: Duration,
    /// Between two starts in the whole pool, after one per slot at once. 20 ms: requests that crash their worker may
    /// come this often without making clients wait, and no pool forks more than fifty times a second.
    pub(super) pool: Duration,
    /// Between two starts of one slot, after a burst of twenty. 50 ms: enough for requests that crash one worker after
    /// the other in a pool of two, while workers that claim to have served and exit cost the parent a few percent of a
    /// processor.
    pub(super) slot: Duration,
    /// Between two replacements of a slot at the request of its own workers (to leave, because of their requests or a
    /// socket), after a small burst. 1 s: a worker that asks again and again costs the others next to nothing, and a
    /// worker that has reached its requests serves until it is replaced.
    pub(super) requests: Duration,
}

/// Delays after workers that never served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backoff {
    /// The delay before a slot is tried again after two workers in a row that never served; after one it is tried at
    /// once. Each further failure doubles the delay. 100 ms, never zero.
    pub(super) first: Duration,
    /// The longest such delay. 5 s: once the cause is repaired, the slot serves again this soon.
    pub(super) max: Duration,
    /// While new workers fail to serve, one slot of the whole pool is tried this often at most; if no worker serves,
    /// also at least this often, whatever the backoff. 250 ms: a crash loop costs the workers that serve nothing,
    /// however many slots are in it, and a pool that could serve is soon not without a worker.
    pub(super) retry: Duration,
    /// A worker that was ready for this long has served, whether it has counted a connection or not. 1 s: longer than a
    /// program lives that cannot start.
    pub(super) stable: Duration,
    /// The number of failures in a row of one slot that ends the pool; zero is no limit.
    pub(super) give_up: u32,
}

/// What requests to stop the pool mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShutdownPolicy {
    /// Requests within this time after the first request to stop count as the same request. 1 s: wrappers and service
    /// managers may send their signal twice, and an impatient person takes longer.
    pub(super) repeat: Duration,
    /// From the request to drain the pool until the drain begins.
    pub(super) lame_duck: Duration,
}

impl From<&Config> for Policy {
    /// Takes the settings, and constants for the times that have none.
    fn from(config: &Config) -> Policy {
        Policy {
            timeouts: Timeouts {
                boot: config.lifecycle.boot_timeout,
                suspended: Duration::from_secs(5),
                drain: config.lifecycle.drain_timeout,
                quick: Duration::from_secs(1),
            },
            rates: Rates {
                floor: Duration::from_millis(30),
                pool: Duration::from_millis(20),
                slot: Duration::from_millis(50),
                requests: Duration::from_secs(1),
            },
            backoff: Backoff {
                first: Duration::from_millis(100),
                max: Duration::from_secs(5),
                retry: Duration::from_millis(250),
                stable: Duration::from_secs(1),
                give_up: config.lifecycle.give_up,
            },
            shutdown: ShutdownPolicy { repeat: Duration::from_secs(1), lame_duck: config.lifecycle.lame_duck },
            surge: config.lifecycle.surge,
            max_age: config.recycling.max_age,
            abort_stalled: config.lifecycle.on_stall == OnStall::Abort,
        }
    }
}

#[cfg(test)]
impl Policy {
    /// The policy of a default configuration, with these changes.
    pub(crate) fn with(change: impl FnOnce(&mut Policy)) -> Policy {
        let mut policy = Policy::default();
        change(&mut policy);
        policy
    }
}

/// The policy of a default configuration.
#[cfg(test)]
impl Default for Policy {
    fn default() -> Policy {
        Policy::from(&Config::default())
    }
}

impl Policy {
    /// When a worker that becomes ready now reaches its age.
    pub(super) fn expires(&self, now: Time, random: u64) -> Option<Time> {
        let age = u64::try_from(self.max_age.as_millis()).unwrap_or(u64::MAX);
        (age > 0).then(|| now + Duration::from_millis(jittered(age, random)))
    }
}

impl Rates {
    /// The burst of starts of one slot.
    pub(super) const SLOT_BURST: usize = 20;

    /// The burst of replacements of a slot at the request of its own workers.
    pub(super) const REQUEST_BURST: usize = 4;

    /// The rate of starts in a pool with this number of slots.
    pub(super) fn of_pool(&self, slots: usize) -> Rate {
        Rate::new(self.pool, slots)
    }

    /// The rate of starts of one slot.
    pub(super) fn of_slot(&self) -> Rate {
        Rate::new(self.slot, Rates::SLOT_BURST)
    }

    /// The rate of replacements of a slot at the request of its own workers.
    pub(super) fn of_requests(&self) -> Rate {
        Rate::new(self.requests, Rates::REQUEST_BURST)
    }
}

impl Backoff {
    /// The delay before a slot's next start after this number of workers in a row that never served. It is between half
    /// of the full delay and all of it, so that slots that failed together do not start together.
    pub(super) fn delay(&self, failures: u32, random: u64) -> Duration {
        let Some(doublings) = failures.checked_sub(2) else { return Duration::ZERO };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let full = self.first.saturating_mul(factor).min(self.max);
        let full = u64::try_from(full.as_millis()).unwrap_or(u64::MAX);
        let least = full.div_ceil(2);
        Duration::from_millis(least + random % (full - least + 1))
    }
}

/// Returns `limit` less up to a tenth, so that what began together does not end together; zero stays zero. Seeds that
/// differ by little are as good as any.
pub(crate) fn jittered(limit: u64, seed: u64) -> u64 {
    limit - SplitMix64::new(seed).next() % (limit / 10 + 1)
}

/// The splitmix64 generator: small, seedable, and good enough to spread restarts.
#[derive(Clone, Debug)]
pub(super) struct SplitMix64(u64);

impl SplitMix64 {
    pub(super) fn new(seed: u64) -> SplitMix64 {
        SplitMix64(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit_and_are_jittered_by_half() {
        let backoff = Policy::default().backoff;
        let millis = |failures, random| backoff.delay(failures, random).as_millis();
        assert_eq!((millis(0, 7), millis(1, 7)), (0, 0), "the first failure costs no delay");
        for (failures, full) in [(2, 100), (3, 200), (4, 400), (7, 3_200), (8, 5_000), (33, 5_000), (u32::MAX, 5_000)] {
            let delays: Vec<_> = (0..1_000).map(|seed| millis(failures, SplitMix64::new(seed).next())).collect();
            assert!(delays.iter().all(|delay| (full / 2..=full).contains(delay)), "{failures}: {delays:?}");
            let (least, most) = (delays.iter().min(), delays.iter().max());
            assert!(least < most, "{failures}: slots that failed together would start together");
        }
    }

    #[test]
    fn an_age_is_less_up_to_a_tenth_and_none_is_none() {
        assert_eq!(Policy::default().expires(Time::default(), 1), None);
        let policy = Policy::with(|policy| policy.max_age = Duration::from_secs(10));
        for seed in 0..1_000 {
            let age = policy.expires(Time::default(), seed).map(Time::as_millis);
            assert!(age.is_some_and(|age| (9_000..=10_000).contains(&age)), "{age:?}");
        }
        assert_eq!(jittered(0, 7), 0);
    }
}
