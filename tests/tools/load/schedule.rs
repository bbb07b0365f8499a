//! Which requests are made, and when each is due: the same for the same seed.

use std::time::Duration;

/// What the requests are drawn from. Shares are parts of 1.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    /// Requests a second, due whatever the server does; without it, as many as it answers.
    pub(crate) rate: Option<f64>,
    /// Due at random (a Poisson process), as from many clients that know nothing of each other, instead of at even
    /// distances.
    pub(crate) is_random: bool,
    /// How many of them are slow.
    pub(crate) slow: f64,
    /// How many of them are not to be made on a connection that was used before.
    pub(crate) churn: f64,
    pub(crate) seed: u64,
}

/// The slow ones are counted apart: what is asked is what they do to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Fast,
    Slow,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Request {
    /// How long after the first it is due; `None` when it is whenever it can be made.
    pub(crate) after: Option<Duration>,
    pub(crate) kind: Kind,
    /// On a new connection, in the place of the one that is kept.
    pub(crate) is_renewal: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    demand: Demand,
    random: Random,
    drawn: u64,
    /// Mean distances between the first request and the next one that is due at random.
    distances: f64,
}

impl Schedule {
    pub(crate) fn new(demand: Demand) -> Schedule {
        Schedule { random: Random(demand.seed), demand, drawn: 0, distances: 0.0 }
    }

    pub(crate) fn draw(&mut self) -> Request {
        let distances = if self.demand.is_random { self.distances } else { self.drawn as f64 };
        let request = Request {
            after: self.demand.rate.map(|rate| Duration::from_secs_f64(distances / rate)),
            kind: if self.random.part() < self.demand.slow { Kind::Slow } else { Kind::Fast },
            is_renewal: self.random.part() < self.demand.churn,
        };
        self.drawn += 1;
        // Distances of a Poisson process are exponentially distributed.
        self.distances -= (1.0 - self.random.part()).ln();
        request
    }
}

/// SplitMix64, by Steele, Lea and Flood.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    /// From 0 up to, but not including, 1.
    fn part(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // As many bits as a float's mantissa has.
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}
