//! PURE. How long things may take, and how long to wait before the next try.
//!
//! **Starting again.** A worker that has served (it was ready, and has accepted a connection or lived for a second) is
//! replaced at once, however young it died: whoever can end a worker by a request must not be able to keep its slot
//! empty. No slot is started twice within 30 ms, nor, after twenty times at once, more than twenty times a second, and after
//! one start a slot at once no pool makes more than fifty a second, since what a worker says of itself (that it has
//! served) is a claim. Replacements that workers ask for themselves (to leave, for their requests, for a socket that
//! fails) come one a second in each slot, after four at once: one that is to be recycled serves meanwhile, and for one
//! that leaves the others do. A slot whose worker never served backs off, exponentially and with jitter, and all such
//! slots together are tried four times a second until one serves: a crash loop costs the others nothing, however many
//! slots are in it. Only these failures count for `--give-up`. What an operator asks for (a rolling restart, more
//! slots) is not held back.

use std::time::Duration;

use crate::shared::config::{Config, OnStall};
use crate::shared::pace::Rate;
use crate::time::Time;

/// The time limits of the pool. A time-out of zero means never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// From the fork until the worker is ready.
    pub(crate) boot_timeout: Duration,
    /// From being asked to drain until being killed.
    pub(crate) drain_timeout: Duration,
    /// From being asked to quit until being killed. 1 s: a quick stop waits for nobody, and this only lets a
    /// worker leave through its own exit.
    pub(crate) quick_timeout: Duration,
    /// Between two starts of a slot, but those that an operator asks for. 30 ms: hardly noticed by who waits,
    /// and a worker that dies as soon as it serves costs little of a processor.
    pub(crate) floor: Duration,
    /// Between two such starts in the whole pool, after one for each slot at once. 20 ms: a request that ends its
    /// worker may come as often, and then costs nobody a wait; and no pool forks more than fifty times a second.
    pub(crate) pace: Duration,
    /// Between two such starts of one slot, after twenty at once. 50 ms: less often than requests end workers one after
    /// the other where two serve, and workers that claim to have served and exit cost the parent a few percent of a
    /// processor.
    pub(crate) slot_pace: Duration,
    /// Between two replacements of a slot that its own workers have asked for, whether to leave, for their requests or for
    /// a socket, after a few at once. 1 s: a worker that asks again and again costs the others next to nothing,
    /// and one that asks for its requests serves until it is replaced.
    pub(crate) own_word: Duration,
    /// The wait before a slot is tried again after two workers in a row that never served; after one it is tried at
    /// once. Each further one doubles it. 100 ms, never zero.
    pub(crate) backoff_first: Duration,
    /// The longest such wait. 5 s: once the cause is repaired, the slot serves again this soon.
    pub(crate) backoff_max: Duration,
    /// While new workers do not come to serve, one slot of the whole pool is tried this often: at most, and where no
    /// other worker serves also at least, whatever its backoff. 250 ms: a crash loop costs the workers that
    /// serve nothing, however many slots are in it, and a pool that could serve is not left without a worker.
    pub(crate) retry: Duration,
    /// What is asked within this time of the first request to stop is the same request. 1 s: wrappers and
    /// service managers send their signal twice, and a person who has lost patience takes longer.
    pub(crate) repeat: Duration,
    /// How many slots a rolling restart replaces at a time.
    pub(crate) surge: usize,
    /// Between being asked to drain the pool and doing so.
    pub(crate) lame_duck: Duration,
    /// Failures of one slot in a row that end the pool; zero for never.
    pub(crate) give_up: u32,
    /// How long a worker may serve before it is replaced, or up to a tenth less; zero for ever.
    pub(crate) max_age: Duration,
    /// Whether a stalled worker is to say where it hangs before it is killed.
    pub(crate) abort_stalled: bool,
    /// A worker that was ready for this long has served, whether it has counted a connection or not. 1 s: longer
    /// than a program lives that cannot start.
    pub(crate) stable: Duration,
}

impl From<&Config> for Policy {
    /// The settings' values, and beside them the times that nobody has to set.
    fn from(config: &Config) -> Policy {
        Policy {
            boot_timeout: config.boot_timeout,
            drain_timeout: config.drain_timeout,
            quick_timeout: Duration::from_secs(1),
            floor: Duration::from_millis(30),
            pace: Duration::from_millis(20),
            slot_pace: Duration::from_millis(50),
            own_word: Duration::from_secs(1),
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            retry: Duration::from_millis(250),
            repeat: Duration::from_secs(1),
            surge: config.surge,
            lame_duck: config.lame_duck,
            give_up: config.give_up,
            max_age: config.max_age,
            abort_stalled: config.on_stall == OnStall::Abort,
            stable: Duration::from_secs(1),
        }
    }
}

/// That of a pool of which nothing is said.
#[cfg(test)]
impl Default for Policy {
    fn default() -> Policy {
        Policy::from(&Config::default())
    }
}

impl Policy {
    /// How many starts of one slot may follow each other at once.
    pub(super) const SLOT_AT_ONCE: usize = 20;

    /// How many replacements of a slot its own workers may ask for at once.
    pub(super) const OWN_WORD_AT_ONCE: usize = 4;

    /// Of the starts of a pool with this many slots, but those that an operator asks for.
    pub(super) fn starts(&self, slots: usize) -> Rate {
        Rate::new(self.pace, slots)
    }

    /// Of such starts of one slot.
    pub(super) fn starts_of_slot(&self) -> Rate {
        Rate::new(self.slot_pace, Policy::SLOT_AT_ONCE)
    }

    /// Of the replacements of a slot that its own workers ask for.
    pub(super) fn own_words(&self) -> Rate {
        Rate::new(self.own_word, Policy::OWN_WORD_AT_ONCE)
    }

    /// The wait before a slot's next start after this many workers in a row that never served: between half of the full delay and all of
    /// it, so that slots which failed together do not start together.
    pub(super) fn backoff(&self, failures: u32, random: u64) -> Duration {
        let Some(doublings) = failures.checked_sub(2) else { return Duration::ZERO };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let full = self.backoff_first.saturating_mul(factor).min(self.backoff_max);
        let full = u64::try_from(full.as_millis()).unwrap_or(u64::MAX);
        let least = full.div_ceil(2);
        Duration::from_millis(least + random % (full - least + 1))
    }

    /// When a worker that is ready now has had its time.
    pub(super) fn expires(&self, now: Time, random: u64) -> Option<Time> {
        let age = u64::try_from(self.max_age.as_millis()).unwrap_or(u64::MAX);
        (age > 0).then(|| now + Duration::from_millis(jittered(age, random)))
    }
}

/// Up to a tenth less than `limit`, which may be zero for none, so that what began together does not end together; seeds
/// that differ by little are as good as any.
pub(crate) fn jittered(limit: u64, seed: u64) -> u64 {
    limit - SplitMix64::new(seed).next() % (limit / 10 + 1)
}

/// The splitmix64 generator: small, seedable, and good enough to spread respawns.
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
