//! PURE. When to look at which connection, lazily: if the deadline of a connection moves later, its alarm stays, and is
//! set again when it goes off. So a request costs nothing here, and a connection has one alarm, rarely two. The
//! connection of an alarm may have ended, and its place may belong to another one.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Time;

/// Look at the connection at `index`, which is below [`INDEX_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alarm {
    pub(crate) due: Time,
    pub(crate) index: usize,
}

/// The maximum number of connections of a worker. The place and the time, milliseconds of 34 years, share one word, so
/// that an idle connection costs little.
pub(crate) const INDEX_MAX: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 24;

impl Alarm {
    fn packed(self) -> u64 {
        debug_assert!(self.index < INDEX_MAX);
        self.due.as_millis() << INDEX_BITS | self.index as u64
    }

    fn unpacked(packed: u64) -> Alarm {
        Alarm { due: Time::from_millis(packed >> INDEX_BITS), index: packed as usize & (INDEX_MAX - 1) }
    }
}

/// The alarms, earliest first.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    alarms: BinaryHeap<Reverse<u64>>,
}

impl Deadlines {
    pub(crate) fn push(&mut self, alarm: Alarm) {
        self.alarms.push(Reverse(alarm.packed()));
    }

    /// When the next alarm goes off.
    pub(crate) fn next(&self) -> Option<Time> {
        self.alarms.peek().map(|Reverse(alarm)| Alarm::unpacked(*alarm).due)
    }

    /// Takes the next alarm that goes off at `now` or before.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Alarm> {
        if self.next()? > now {
            return None;
        }
        self.alarms.pop().map(|Reverse(alarm)| Alarm::unpacked(alarm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::random::random_below;

    #[test]
    fn alarms_ring_in_order_and_not_early() {
        let mut deadlines = Deadlines::default();
        for (due, index) in [(30, 1), (10, INDEX_MAX - 1), (20, 3)] {
            deadlines.push(Alarm { due: Time::from_millis(due), index });
        }
        assert_eq!(deadlines.next(), Some(Time::from_millis(10)));
        assert_eq!(deadlines.pop_due(Time::from_millis(9)), None);
        let due: Vec<usize> =
            std::iter::from_fn(|| deadlines.pop_due(Time::from_millis(25))).map(|alarm| alarm.index).collect();
        assert_eq!(due, [INDEX_MAX - 1, 3]);
        assert_eq!(deadlines.next(), Some(Time::from_millis(30)));
    }

    /// A connection as the loop keeps it: its deadline, and when its alarm goes off.
    #[derive(Clone, Copy)]
    struct Open {
        deadline: Time,
        armed: Time,
    }

    /// What the loop does after a step.
    fn arm(deadlines: &mut Deadlines, index: usize, open: &mut Open) {
        if open.deadline < open.armed {
            open.armed = open.deadline;
            deadlines.push(Alarm { due: open.armed, index });
        }
    }

    #[test]
    fn however_deadlines_move_each_is_met_and_none_early() {
        for seed in 1..=50_u64 {
            let mut below = random_below(seed);
            let (mut deadlines, mut places, mut now) = (Deadlines::default(), [None::<Open>; 40], 1_000);
            for _ in 0..5_000 {
                let index = below(places.len() as u64) as usize;
                let deadline = Time::from_millis(now + [1, 100, 10_000][below(3) as usize] + below(50));
                match (&mut places[index], below(8)) {
                    // It ends; its alarm stays.
                    (place @ Some(_), 0) => *place = None,
                    (Some(open), 1) => open.deadline = Time::NEVER,
                    (Some(open), _) => {
                        open.deadline = deadline;
                        arm(&mut deadlines, index, open);
                    }
                    // Perhaps in a place for which an alarm is left.
                    (place @ None, _) => {
                        arm(&mut deadlines, index, place.insert(Open { deadline, armed: Time::NEVER }));
                    }
                }
                now += below(30);
                let at = Time::from_millis(now);
                while let Some(alarm) = deadlines.pop_due(at) {
                    let Some(open) = places[alarm.index].as_mut().filter(|open| open.armed == alarm.due) else {
                        continue;
                    };
                    open.armed = Time::NEVER;
                    match open.deadline <= at {
                        true => places[alarm.index] = None,
                        false => arm(&mut deadlines, alarm.index, open),
                    }
                }
                for open in places.iter().flatten() {
                    assert!(open.deadline > at, "a deadline was missed, seed {seed}");
                    assert!(open.deadline == Time::NEVER || open.armed <= open.deadline, "no alarm, seed {seed}");
                }
                assert!(deadlines.next().is_none_or(|next| next > at));
            }
        }
    }
}
