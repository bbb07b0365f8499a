//! PURE. The last minutes of the pool, for a page that is opened after something has happened.
//!
//! A sample is taken when somebody asks about the pool, at most once a second: probes and scrapers ask every few
//! seconds, and a pool that nobody asks about need not wake for it.

use std::collections::VecDeque;

use super::Snapshot;

/// How far back the samples reach, and how close they are, in milliseconds.
const SPAN: u64 = 150_000;
const INTERVAL: u64 = 950;

#[derive(Debug, Default)]
pub(crate) struct History(VecDeque<Sample>);

/// Counts since the pool began; `None` if they are unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// In milliseconds since 1970.
    pub(crate) time: u64,
    pub(crate) requests: Option<u64>,
    /// Responses with a status of 500 to 599.
    pub(crate) failed: Option<u64>,
    pub(crate) open: Option<u64>,
    /// CPU time of all workers, in microseconds.
    pub(crate) cpu: u64,
}

impl History {
    /// Whether the latest sample is old enough for another one. The clock may have gone back.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.0.back().is_none_or(|last| now < last.time || now - last.time >= INTERVAL)
    }

    pub(crate) fn learn(&mut self, snapshot: &Snapshot<'_>) {
        let totals = Some(&snapshot.totals).filter(|_| snapshot.is_counted);
        self.add(Sample {
            time: snapshot.now,
            requests: totals.map(|it| it.requests),
            failed: totals.map(|it| it.responses[4]),
            open: snapshot.open,
            cpu: snapshot.slots.iter().map(|slot| slot.cpu).sum(),
        });
    }

    fn add(&mut self, sample: Sample) {
        if !self.is_due(sample.time) {
            return;
        }
        self.0.retain(|it| it.time < sample.time && it.time + SPAN >= sample.time);
        self.0.push_back(sample);
    }

    /// Oldest first.
    pub(crate) fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_a_second_apart_and_reach_back_so_far() {
        let mut history = History::default();
        let sample = |time| Sample { time, requests: None, failed: None, open: Some(1), cpu: 0 };
        (0..2_000_000).step_by(100).for_each(|time| history.add(sample(time)));
        let times: Vec<u64> = history.samples().map(|sample| sample.time).collect();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= INTERVAL), "{times:?}");
        assert!(times.len() <= 1 + (SPAN / INTERVAL) as usize && times[0] >= 1_848_000, "{times:?}");
        // A clock that was set back does not stop it.
        history.add(sample(5_000));
        assert_eq!(history.samples().map(|sample| sample.time).collect::<Vec<_>>(), [5_000]);
    }
}
