//! PURE. How much time reading the messages of one worker may take. If a worker floods the parent, its messages wait.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::time::Time;

/// How much of its share a worker's messages may use at once.
const AT_ONCE: Duration = Duration::from_millis(100);

/// How long a worker waits that has used up its share.
const PAUSE: Duration = Duration::from_millis(50);

/// The remaining share of one worker.
#[derive(Debug)]
pub(super) struct Quota {
    /// The percentage of the time that passes.
    share: u32,
    /// In microseconds. Negative if reading took more than there was.
    left: i64,
    /// Whether it was used up. Then it is not used again until there is enough for more than a message or two.
    is_resting: bool,
    since: Time,
}

impl Quota {
    pub(super) fn new(share: u32, now: Time) -> Quota {
        Quota { share: share.clamp(1, 100), left: micros(AT_ONCE), is_resting: false, since: now }
    }

    /// The amount from which it is worth continuing.
    fn enough(&self) -> i64 {
        micros(PAUSE) * i64::from(self.share) / 100
    }

    /// When messages may be read: now, unless the share is used up.
    pub(super) fn next(&self, now: Time) -> Time {
        if !self.is_resting {
            return now;
        }
        let wanting = (self.enough() - self.left).max(0) * 100 / i64::from(self.share);
        self.since + Duration::from_micros(wanting.unsigned_abs().next_multiple_of(1000))
    }

    pub(super) fn refill(&mut self, now: Time) {
        let passed = now.since(self.since);
        self.since = now;
        let more = micros(passed).saturating_mul(self.share.into()) / 100;
        self.left = self.left.saturating_add(more).min(micros(AT_ONCE));
        self.is_resting &= self.left < self.enough();
    }

    pub(super) fn pay(&mut self, cost: Duration) {
        // 100 percent means no limit; the limit of one turn still applies.
        if self.share < 100 {
            self.left = self.left.saturating_sub(micros(cost));
            self.is_resting |= self.left <= 0;
        }
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The milliseconds of reading in ten seconds of a worker that sends all the time.
    fn read_in_ten_seconds(share: u32) -> u64 {
        let (mut quota, mut read, mut now) = (Quota::new(share, Time::default()), 0, Time::default());
        while now < Time::from_millis(10_000) {
            quota.refill(now);
            let next = quota.next(now);
            if next > now {
                now = next;
            } else {
                quota.pay(Duration::from_millis(1));
                read += 1;
                now = now + Duration::from_millis(1);
            }
        }
        read
    }

    #[test]
    fn a_flood_takes_its_share_and_what_may_come_at_once() {
        for (share, expected) in [(1, 100..=210), (2, 200..=310), (50, 5000..=5200), (100, 10_000..=10_000)] {
            let read = read_in_ten_seconds(share);
            assert!(expected.contains(&read), "{share} %: {read} ms of 10 s");
        }
    }
}
