//! What the connections of a worker hold together, and who of them waits for room.

use std::collections::{BTreeMap, VecDeque};

use crate::server::budget::Budget;
use crate::server::mailbox::Place;
use crate::time::Time;

/// What the connections of a worker hold together.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) budget: Budget,
    /// Those that are not read from, as there is no room for more; in the order in which they came to wait.
    pub(crate) waiting: VecDeque<Place>,
    /// Those of them for whose bodies room is kept now.
    pub(crate) turns: Vec<Place>,
    /// When to look whether those that have their turn get on.
    pub(crate) turn_due: Option<Time>,
    /// What the kernel held for clients that are to take an answer, when that was looked at: kept here, so that idle
    /// connections do not have it.
    unsent: BTreeMap<usize, Unsent>,
}

/// What the kernel held for a client at a look.
#[derive(Debug)]
struct Unsent {
    /// The connection's, and when it would have been out of time.
    serial: u32,
    deadline: Time,
    bytes: usize,
}

impl Memory {
    /// Zero is no limit.
    pub(crate) fn new(limit: usize) -> Memory {
        Memory {
            budget: Budget::new(limit),
            waiting: VecDeque::new(),
            turns: Vec::new(),
            turn_due: None,
            unsent: BTreeMap::new(),
        }
    }

    /// Whether there is room for anybody: the last of the budget is kept for those that have waited, so that some get to
    /// their end however many there are.
    pub(crate) fn is_free(&self) -> bool {
        self.waiting.is_empty() && self.budget.surplus() == 0
    }

    pub(crate) fn has_turn(&self, place: Place) -> bool {
        self.turns.contains(&place)
    }

    /// A connection waits for room. Who has its turn keeps its place in the line.
    pub(crate) fn wait(&mut self, place: Place) {
        match self.has_turn(place) {
            true => self.waiting.push_front(place),
            false => self.waiting.push_back(place),
        }
    }

    /// How many bytes a client has taken since the last look at what the kernel holds for it, if nothing was added to that
    /// meanwhile: the deadline would have moved.
    pub(crate) fn taken_since_last_look(&mut self, place: Place, deadline: Time, unsent: usize) -> usize {
        let before = self.note_unsent(place, deadline, unsent);
        let before = before.filter(|it| it.serial == place.serial && it.deadline == deadline);
        before.map_or(0, |before| before.bytes.saturating_sub(unsent))
    }

    /// The deadline has moved since, for what was taken.
    pub(crate) fn move_unsent(&mut self, place: Place, deadline: Time, unsent: usize) {
        self.note_unsent(place, deadline, unsent);
    }

    fn note_unsent(&mut self, place: Place, deadline: Time, bytes: usize) -> Option<Unsent> {
        self.unsent.insert(place.index, Unsent { serial: place.serial, deadline, bytes })
    }

    /// The connection at `index` has ended.
    pub(crate) fn forget(&mut self, index: usize) {
        self.unsent.remove(&index);
    }
}
