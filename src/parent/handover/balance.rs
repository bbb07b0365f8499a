//! Has workers pass connections to each other until all have about as many, and are about as busy.
//!
//! The parent compares the number of connections for some seconds after a worker has become ready, or after connections
//! were moved. It compares how busy the workers are while some worker is busy, so that an idle pool makes no system
//! call.

use std::collections::BTreeMap;
use std::time::Duration;

use log::debug;

use super::{takes, Handover};
use crate::parent::process::Roster;
use crate::parent::supervisor::{Pid, PoolState, SlotId};
use crate::shared::handover::activity::{Activity, Sample};
use crate::shared::handover::plan::{plan, Load, Move, Selection};
use crate::shared::handover::Pair;
use crate::shared::scoreboard::{ParentBoard, Row};
use crate::sys;
use crate::time::{Time, TICK};

/// The interval between two steps.
const STEP_INTERVAL: Duration = Duration::from_millis(50);

/// For how long to look after a change, or after connections were moved.
const COMPARED_FOR: Duration = Duration::from_secs(2);

/// How long nothing is passed on until orders count as obeyed. A worker may have fewer connections to give than it was
/// told, and does not say so.
const ORDER_TIMEOUT: Duration = Duration::from_millis(200);

/// How long to wait for further workers that are starting, after one has become ready. What passes to the first of
/// several would pass on from there to the next.
const START_DELAY: Duration = Duration::from_millis(250);

/// When to look at the rows, and what was seen.
#[derive(Debug, Default)]
pub(super) struct Balancing {
    is_off: bool,
    /// When to compare the numbers of connections, and how long that goes on.
    next: Option<Time>,
    until: Time,
    /// Until when to wait for workers that are starting.
    not_before: Time,
    /// When to look who is busy.
    next_sample: Option<Time>,
    activity: Activity,
    ordered: Ordered,
}

/// What workers were last ordered to pass on.
#[derive(Debug, Default)]
struct Ordered {
    /// How many each will have passed on in all, since it started.
    goals: BTreeMap<Pid, u64>,
    /// When any was last passed on, or ordered to be.
    progress: Time,
    /// How many all had passed on when the parent last looked.
    handed: u64,
}

impl Balancing {
    /// A worker has become ready: compares from now on for a while.
    pub(super) fn begin(&mut self, now: Time) {
        self.not_before = now + START_DELAY;
        self.extend(now);
    }

    fn extend(&mut self, now: Time) {
        if !self.is_off {
            self.until = now + COMPARED_FOR;
            self.next.get_or_insert(now);
        }
    }

    pub(super) fn set(&mut self, is_on: bool) {
        self.is_off = !is_on;
        if self.is_off {
            self.stop();
        }
    }

    /// Nothing is to be compared.
    fn stop(&mut self) {
        (self.next, self.next_sample) = (None, None);
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.next.into_iter().chain(self.next_sample).min()
    }

    /// Whether it is time to look who is busy. That has times of its own, since a busy worker may be what has woken the
    /// parent.
    fn is_time_to_sample(&mut self, are_some_busy: bool, now: Time) -> bool {
        let is_due = self.next_sample.is_some_and(|due| due <= now);
        if is_due || self.next_sample.is_none() {
            self.next_sample = (are_some_busy && !self.is_off).then_some(now + TICK);
        }
        is_due
    }

    /// Whether it is time to compare the numbers of connections.
    fn is_time_to_compare(&mut self, now: Time) -> bool {
        let is_due = self.next.is_some_and(|due| due <= now);
        if is_due {
            self.next = (now < self.until).then_some(now + STEP_INTERVAL);
        }
        is_due && self.next.is_some()
    }
}

impl Handover {
    /// Orders the moves of a step, if it is time for one.
    pub(super) fn balance(&mut self, roster: &Roster, board: &ParentBoard, are_some_busy: bool, now: Time) {
        let looks = self.balancing.is_time_to_sample(are_some_busy, now);
        let compares = self.balancing.is_time_to_compare(now);
        if !looks && !compares {
            return;
        }
        let serving = roster.serving_by_slot();
        // Servers of one's own do not obey.
        let rows = serving.iter().filter_map(|(slot, pid)| {
            let row = takes(*pid, roster, board).filter(Row::is_neighbour)?;
            Some((*slot, *pid, row))
        });
        let rows: Vec<_> = rows.collect();
        if rows.len() < 2 || roster.supervisor.state() == PoolState::Stopping {
            return self.balancing.stop();
        }
        if looks {
            let moves = self.balancing.activity.sample(rows.iter().map(|(slot, _, row)| Sample {
                slot: *slot,
                is_busy: row.busy_since().is_some(),
                takes: !row.is_full(),
            }));
            if !moves.is_empty() {
                self.order(&moves, &rows, roster, now);
                // Others have more connections then.
                self.balancing.extend(now);
            }
        }
        let are_all_there = rows.len() >= roster.supervisor.slots().wanted() || self.balancing.not_before <= now;
        if compares && are_all_there && !self.are_under_way(&rows, now) {
            let loads = rows.iter().map(|(slot, _, row)| Load { slot: *slot, has: row.open(), takes: !row.is_full() });
            let moves = plan(&loads.collect::<Vec<_>>());
            self.order(&moves, &rows, roster, now);
        }
    }

    /// Whether connections that were to be moved are not counted by their new workers yet. Goes on to compare while
    /// some are passed on: it would be in vain where all that a worker has must stay.
    fn are_under_way(&mut self, rows: &[(SlotId, Pid, Row<'_>)], now: Time) -> bool {
        let handed = rows.iter().fold(0_u64, |sum, (_, _, row)| sum.wrapping_add(row.handed()));
        if handed != self.balancing.ordered.handed {
            (self.balancing.ordered.handed, self.balancing.ordered.progress) = (handed, now);
            self.balancing.until = now + COMPARED_FOR;
        }
        let Ordered { goals, progress, .. } = &self.balancing.ordered;
        let is_obeyed = |pid: &Pid, row: &Row<'_>| goals.get(pid).is_none_or(|goal| row.handed() >= *goal);
        let are_obeyed = now.since(*progress) >= ORDER_TIMEOUT || rows.iter().all(|(_, pid, row)| is_obeyed(pid, row));
        !are_obeyed || self.pairs.values().any(has_unread)
    }

    fn order(&mut self, moves: &[Move], rows: &[(SlotId, Pid, Row<'_>)], roster: &Roster, now: Time) {
        let mut goals = BTreeMap::new();
        for it in moves {
            let from = rows.iter().find(|(slot, ..)| *slot == it.from);
            let (Some((_, pid, row)), Some(pair)) = (from, self.pairs.get(&it.to)) else { continue };
            let Some(process) = roster.get(*pid) else { continue };
            match process.ends.lifeline.move_some(it.to, it.selection, pair.sender()) {
                Ok(()) => {
                    let count = if let Selection::Any(count) = it.selection { count } else { 0 };
                    // A worker may report anything.
                    let goal: &mut u64 = goals.entry(*pid).or_insert_with(|| row.handed());
                    *goal = goal.saturating_add(count.into());
                }
                Err(error) => debug!("cannot order {} to move connections: {error}", roster.tag(*pid)),
            }
        }
        (self.balancing.ordered.goals, self.balancing.ordered.progress) = (goals, now);
    }
}

/// Whether connections wait in the queue of a slot, so that no report counts them.
fn has_unread(pair: &Pair) -> bool {
    sys::fds::unread(pair.receiver()).is_ok_and(|bytes| bytes > 0)
}
