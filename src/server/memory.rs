//! The memory that the connections of a worker hold together, and which of them wait for more.

use std::collections::{BTreeMap, VecDeque};

use crate::server::budget::Budget;
use crate::server::mailbox::Place;
use crate::time::Time;

/// The memory that the connections of a worker hold together.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) budget: Budget,
    /// The connections that are not read, for lack of memory, in the order in which they began to wait.
    pub(crate) waiting: VecDeque<Place>,
    /// Those of them for whose bodies memory is kept now.
    pub(crate) turns: Vec<Place>,
    /// When to check whether those with a turn make progress.
    pub(crate) turn_due: Option<Time>,
    /// What the kernel held for clients that should read a response, at the last check. Kept here, so that it costs
    /// idle connections nothing.
    unsent: BTreeMap<usize, Unsent>,
    /// Since when sent bytes have been unacknowledged, for connections that wait for the application: by their place,
    /// with their serial number.
    unacknowledged: BTreeMap<usize, (u32, Time)>,
}

/// What the kernel held for a client at a check.
#[derive(Debug)]
struct Unsent {
    /// The number of the connection, and its deadline then.
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
            unacknowledged: BTreeMap::new(),
        }
    }

    /// Whether nobody waits for memory, or is made to release some.
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        self.turn_due.is_none() && !self.budget.is_full() && self.waiting.is_empty() && self.turns.is_empty()
    }

    /// When some must go on, or release theirs.
    #[cold]
    pub(crate) fn due(&self) -> Time {
        self.budget.due().into_iter().chain(self.turn_due).min().unwrap_or(Time::NEVER)
    }

    /// Whether any connection may use memory. The last of the budget is kept for those that have waited, so that some
    /// finish, however many there are.
    pub(crate) fn is_free(&self) -> bool {
        self.waiting.is_empty() && self.budget.surplus() == 0
    }

    pub(crate) fn has_turn(&self, place: Place) -> bool {
        self.turns.contains(&place)
    }

    /// A connection waits for memory. One that has its turn keeps its place in the queue.
    pub(crate) fn wait(&mut self, place: Place) {
        match self.has_turn(place) {
            true => self.waiting.push_front(place),
            false => self.waiting.push_back(place),
        }
    }

    /// How many bytes a client has read since the last check of what the kernel holds for it, if nothing was added
    /// meanwhile; in that case the deadline would have moved.
    pub(crate) fn taken_since_last_look(&mut self, place: Place, deadline: Time, unsent: usize) -> usize {
        let before = self.note_unsent(place, deadline, unsent);
        let before = before.filter(|it| it.serial == place.serial && it.deadline == deadline);
        before.map_or(0, |before| before.bytes.saturating_sub(unsent))
    }

    /// The deadline has moved because of what was read.
    pub(crate) fn move_unsent(&mut self, place: Place, deadline: Time, unsent: usize) {
        self.note_unsent(place, deadline, unsent);
    }

    fn note_unsent(&mut self, place: Place, deadline: Time, bytes: usize) -> Option<Unsent> {
        self.unsent.insert(place.index, Unsent { serial: place.serial, deadline, bytes })
    }

    /// Since when sent bytes of this connection have been unacknowledged. Call this if they are at `now`.
    pub(crate) fn unacknowledged(&mut self, place: Place, now: Time) -> Time {
        let since = self.unacknowledged.entry(place.index).or_insert((place.serial, now));
        if since.0 != place.serial {
            *since = (place.serial, now);
        }
        since.1
    }

    /// The client's machine has acknowledged something.
    pub(crate) fn acknowledged(&mut self, place: Place) {
        self.unacknowledged.remove(&place.index);
    }

    /// The connection at `index` has ended.
    pub(crate) fn forget(&mut self, index: usize) {
        self.unacknowledged.remove(&index);
        self.unsent.remove(&index);
    }
}
