//! Has workers pass connections to each other until all have about as many.
//!
//! The parent looks at the workers' rows for some seconds after a worker has become ready, and not at all in a pool in
//! which nothing has changed.

use std::collections::BTreeMap;
use std::time::Duration;

use log::debug;

use super::{takes, Handover};
use crate::parent::process::Roster;
use crate::parent::supervisor::{Pid, PoolState, SlotId};
use crate::shared::handover::plan::{plan, Load, Move};
use crate::shared::handover::Pair;
use crate::shared::scoreboard::{ParentBoard, Row};
use crate::sys;
use crate::time::Time;

/// The interval between two steps.
const INTERVAL: Duration = Duration::from_millis(50);

/// For how long to look after a change, or after connections were moved.
const LOOKED: Duration = Duration::from_secs(2);

/// When to look at the rows.
#[derive(Debug, Default)]
pub(super) struct Balancing {
    is_off: bool,
    next: Option<Time>,
    until: Time,
}

impl Balancing {
    /// Something has changed: looks from now on for a while.
    pub(super) fn begin(&mut self, now: Time) {
        if !self.is_off {
            self.until = now + LOOKED;
            self.next.get_or_insert(now);
        }
    }

    pub(super) fn set(&mut self, is_on: bool) {
        self.is_off = !is_on;
        self.next.take_if(|_| !is_on);
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.next
    }
}

impl Handover {
    /// Orders the moves of a step, if it is time for one.
    pub(super) fn balance(&mut self, roster: &Roster, board: &ParentBoard, now: Time) {
        if self.balancing.next.is_none_or(|next| now < next) {
            return;
        }
        let may_go_on = now < self.balancing.until && roster.supervisor.state() != PoolState::Stopping;
        self.balancing.next = may_go_on.then_some(now + INTERVAL);
        if !may_go_on || self.pairs.values().any(is_under_way) {
            return;
        }
        let serving = roster.serving_by_slot();
        // Servers of one's own do not obey.
        let loads = serving.iter().filter_map(|(slot, pid)| {
            let row = takes(*pid, roster, board).filter(Row::is_neighbour)?;
            Some(Load { slot: *slot, open: row.open(), takes: !row.is_full() })
        });
        let loads: Vec<_> = loads.collect();
        if loads.len() < 2 {
            self.balancing.next = None;
            return;
        }
        let moves = plan(&loads);
        if !moves.is_empty() {
            self.balancing.until = now + LOOKED;
        }
        self.order(&moves, &serving, roster);
    }

    fn order(&self, moves: &[Move], serving: &BTreeMap<SlotId, Pid>, roster: &Roster) {
        for it in moves {
            let (Some(pid), Some(pair)) = (serving.get(&it.from), self.pairs.get(&it.to)) else { continue };
            let Some(process) = roster.get(*pid).filter(|process| process.ends.program.is_none()) else { continue };
            if let Err(error) = process.ends.lifeline.move_some(it.to, it.count, pair.sender()) {
                debug!("cannot order {} to move connections: {error}", roster.tag(*pid));
            }
        }
    }
}

/// Whether connections wait in the queue of a slot, so that no report counts them.
fn is_under_way(pair: &Pair) -> bool {
    sys::fds::unread(pair.receiver()).is_ok_and(|bytes| bytes > 0)
}
