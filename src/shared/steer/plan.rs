//! PURE. Which seats of a group may be given new connections.
#![forbid(unsafe_code)]

/// Most seats that a group can have, and so most slots of a pool.
pub(crate) const SEATS_MAX: usize = 1024;

const WORDS: usize = SEATS_MAX / 64;

/// What is known about the slot on a seat, the better the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// No worker takes from it: dead, starting, backing off, draining, stopped by a signal.
    Vacant,
    /// Its worker has as many connections as it may have.
    Full,
    /// Its worker has been busy with one thing for long.
    Stalled,
    /// Its worker serves.
    Free,
}

/// A set of seats, numbered in the order in which their sockets joined the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seats([u64; WORDS]);

/// Those that stand best. Where nobody serves these are all seats: a queue that is looked after later is better than
/// none.
pub(crate) fn plan(standings: impl Iterator<Item = Standing>) -> Seats {
    let mut best = Standing::Vacant;
    let mut allowed = Seats::default();
    for (seat, standing) in standings.take(SEATS_MAX).enumerate() {
        if standing > best {
            (best, allowed) = (standing, Seats::default());
        }
        if standing == best {
            allowed.insert(seat);
        }
    }
    allowed
}

impl Seats {
    pub(crate) fn insert(&mut self, seat: usize) {
        self.0[seat / 64] |= 1 << (seat % 64);
    }

    pub(crate) fn remove(&mut self, seat: usize) {
        self.0[seat / 64] &= !(1 << (seat % 64));
    }

    pub(crate) fn contains(&self, seat: usize) -> bool {
        self.0[seat / 64] & 1 << (seat % 64) != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(crate) fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    pub(crate) fn from_words(words: [u64; WORDS]) -> Seats {
        Seats(words)
    }

    /// Its seats as ranges: the first one, and the one behind the last.
    pub(crate) fn ranges(&self) -> Vec<(usize, usize)> {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for seat in (0..SEATS_MAX).filter(|seat| self.contains(*seat)) {
            match ranges.last_mut() {
                Some((_, end)) if *end == seat => *end += 1,
                _ => ranges.push((seat, seat + 1)),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::Standing::{Free, Full, Stalled, Vacant};
    use super::*;

    fn seats(list: &[usize]) -> Seats {
        let mut seats = Seats::default();
        list.iter().for_each(|seat| seats.insert(*seat));
        seats
    }

    #[test]
    fn the_best_standing_decides() {
        for (standings, allowed) in [
            (&[][..], &[][..]),
            (&[Free, Free, Free], &[0, 1, 2]),
            (&[Free, Vacant, Free], &[0, 2]),
            (&[Free, Full, Stalled], &[0]),
            (&[Stalled, Full, Vacant, Stalled], &[0, 3]),
            (&[Full, Vacant, Full], &[0, 2]),
            (&[Vacant, Vacant], &[0, 1]),
        ] {
            assert_eq!(plan(standings.iter().copied()), seats(allowed), "{standings:?}");
        }
    }

    #[test]
    fn it_is_never_empty_and_never_takes_a_worse_one() {
        let mut random = 1_u64;
        for _ in 0..2000 {
            let mut draw = |below: u64| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % below
            };
            let count = 1 + draw(SEATS_MAX as u64);
            let kinds = 1 + draw(4) as usize;
            let all = [Vacant, Full, Stalled, Free];
            let standings: Vec<Standing> = (0..count).map(|_| all[draw(kinds as u64) as usize]).collect();
            let allowed = plan(standings.iter().copied());
            let best = standings.iter().max().expect("at least one");
            for (seat, standing) in standings.iter().enumerate() {
                assert_eq!(allowed.contains(seat), standing == best);
            }
            assert!(!allowed.is_empty());
            let listed: Vec<usize> = allowed.ranges().iter().flat_map(|(start, end)| *start..*end).collect();
            assert_eq!(seats(&listed), allowed, "ranges tell the same");
        }
    }
}
