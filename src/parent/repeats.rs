//! PURE. Keeps repeated events from filling the log: of the lines about a slot, a burst is written, then one line a
//! minute, which says how many there were.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::shared::pace::{Pace, Rate};
use crate::time::Time;

/// The rate of lines about a slot: a burst for a dozen workers that come and go, and then so few that eight slots with
/// endless events write less than 2 MiB a day.
const LINE_RATE: Rate = Rate::new(PERIOD, 48);
const PERIOD: Duration = Duration::from_secs(60);

/// The recent lines about each slot.
///
/// `L` is the level of a line.
#[derive(Debug)]
pub(super) struct Repeats<L> {
    slots: BTreeMap<usize, Logged<L>>,
}

#[derive(Debug)]
struct Logged<L> {
    pace: Pace,
    /// The lines that were left out, and the latest of them.
    left_out: u64,
    latest: Option<(L, String)>,
}

impl<L> Repeats<L> {
    pub(super) fn new() -> Repeats<L> {
        Repeats { slots: BTreeMap::new() }
    }

    /// Whether to write a line about this slot now; otherwise it is kept for the summary.
    pub(super) fn admits(&mut self, slot: usize, level: L, text: &str, now: Time) -> bool {
        let logged = self.slots.entry(slot).or_insert(Logged { pace: Pace::default(), left_out: 0, latest: None });
        if logged.left_out == 0 && logged.pace.take(LINE_RATE, now).is_ok() {
            return true;
        }
        logged.left_out += 1;
        logged.latest = Some((level, text.to_owned()));
        false
    }

    /// When a summary is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.slots.values().filter(|logged| logged.left_out > 0).map(|logged| logged.pace.next(LINE_RATE)).min()
    }

    /// The summaries that are due, each as a line about a slot.
    pub(super) fn summaries(&mut self, now: Time) -> Vec<(usize, L, String)> {
        let due = self.slots.iter_mut().filter(|(_, logged)| logged.left_out > 0 && logged.pace.next(LINE_RATE) <= now);
        due.filter_map(|(slot, logged)| {
            logged.pace.count(LINE_RATE, now);
            let left_out = std::mem::take(&mut logged.left_out);
            let (level, text) = logged.latest.take()?;
            let text = match left_out {
                1 => text,
                more => format!("{text}; and {} more lines like it since the last one", more - 1),
            };
            Some((*slot, level, text))
        })
        .collect()
    }

    pub(super) fn forget(&mut self, slot: usize) {
        self.slots.remove(&slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_never_end_get_rare_and_none_is_forgotten() {
        let (mut repeats, mut written, mut counted, mut bytes) = (Repeats::new(), 0, 0_u64, 0);
        let line = "worker=1 gen=2000 pid=4194304 exited with code 0, 0 requests on 0 connections";
        // A day with ten lines a second.
        for now in (0..86_400_000).step_by(100).map(Time::from_millis) {
            for (_, _, text) in repeats.summaries(now) {
                let more = text.split("and ").nth(1).and_then(|it| it.split(' ').next()?.parse::<u64>().ok());
                counted += 1 + more.unwrap_or(0);
                written += 1;
                bytes += text.len();
            }
            if repeats.admits(1, 'w', line, now) {
                counted += 1;
                written += 1;
                bytes += line.len();
            }
        }
        counted += repeats.slots[&1].left_out;
        assert_eq!(counted, 864_000, "all are counted");
        assert!((1440..1440 + 60).contains(&written), "{written} lines");
        assert!(bytes < 256 << 10, "{bytes} bytes");
    }

    #[test]
    fn what_is_rare_is_written_at_once_and_the_last_of_many_soon() {
        let mut repeats = Repeats::new();
        assert!((0..100).all(|hour| repeats.admits(0, 'i', "a", Time::from_millis(hour * 3_600_000))));
        let now = Time::from_millis(1_000_000_000);
        let written = (0..100).filter(|_| repeats.admits(0, 'i', "b", now)).count();
        assert_eq!(written, 48);
        let due = repeats.deadline().expect("52 are left out");
        assert_eq!(due, now + PERIOD);
        assert_eq!(repeats.summaries(now), []);
        let text = "b; and 51 more lines like it since the last one".to_owned();
        assert_eq!(repeats.summaries(due), [(0, 'i', text)]);
        assert_eq!(repeats.deadline(), None);
        assert!(repeats.admits(1, 'i', "another slot", now));
    }
}
