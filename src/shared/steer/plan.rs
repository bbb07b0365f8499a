//! PURE. Which seats of a group may get new connections.
#![forbid(unsafe_code)]

use crate::shared::seats::{Seats, SEATS_MAX};

/// The condition of the slot on a seat; greater is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Condition {
    /// No worker accepts: it is dead, starting, backing off, draining, or stopped by a signal.
    Vacant,
    /// Its worker has reached its limit of connections.
    Full,
    /// Its worker has been busy with one turn for long.
    Stalled,
    /// Its worker serves.
    Free,
}

/// The seats in the best condition. If no worker serves, these are all seats, since a queue that is served later is
/// better than none.
pub(crate) fn plan(conditions: impl Iterator<Item = Condition>) -> Seats {
    let mut best = Condition::Vacant;
    let mut allowed = Seats::default();
    for (seat, condition) in conditions.take(SEATS_MAX).enumerate() {
        if condition > best {
            (best, allowed) = (condition, Seats::default());
        }
        if condition == best {
            allowed.insert(seat);
        }
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::Condition::{Free, Full, Stalled, Vacant};
    use super::*;
    use crate::shared::random::random_below;

    fn seats(list: &[usize]) -> Seats {
        let mut seats = Seats::default();
        list.iter().for_each(|seat| seats.insert(*seat));
        seats
    }

    #[test]
    fn the_best_standing_decides() {
        for (conditions, allowed) in [
            (&[][..], &[][..]),
            (&[Free, Free, Free], &[0, 1, 2]),
            (&[Free, Vacant, Free], &[0, 2]),
            (&[Free, Full, Stalled], &[0]),
            (&[Stalled, Full, Vacant, Stalled], &[0, 3]),
            (&[Full, Vacant, Full], &[0, 2]),
            (&[Vacant, Vacant], &[0, 1]),
        ] {
            assert_eq!(plan(conditions.iter().copied()), seats(allowed), "{conditions:?}");
        }
    }

    #[test]
    fn it_is_never_empty_and_never_takes_a_worse_one() {
        let mut draw = random_below(1);
        for _ in 0..2000 {
            let count = 1 + draw(SEATS_MAX as u64);
            let kinds = 1 + draw(4) as usize;
            let all = [Vacant, Full, Stalled, Free];
            let conditions: Vec<Condition> = (0..count).map(|_| all[draw(kinds as u64) as usize]).collect();
            let allowed = plan(conditions.iter().copied());
            let best = conditions.iter().max().expect("at least one");
            for (seat, condition) in conditions.iter().enumerate() {
                assert_eq!(allowed.contains(seat), condition == best);
            }
            assert!(!allowed.is_empty());
            let listed: Vec<usize> = allowed.ranges().iter().flat_map(|(start, end)| *start..*end).collect();
            assert_eq!(seats(&listed), allowed, "ranges tell the same");
        }
    }
}
