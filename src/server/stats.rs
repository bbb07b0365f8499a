//! What a worker counts of its answers, for the status: how many, how long they took, and which request the handler has.

use std::collections::BTreeMap;

use crate::server::mailbox::Place;
use crate::shared::scoreboard::{LatencyRow, NameRow, OwnRow, RowPage};

/// Where a worker counts.
#[derive(Debug)]
pub(crate) struct Stats<'w> {
    pub(crate) row: OwnRow<'w>,
    /// How long answers take, if anybody wants to know.
    pub(crate) latency: Option<LatencyRow<'w>>,
    /// The request that the handler has, if it is to be named.
    pub(crate) name: Option<NameRow<'w>>,
    /// When the turns began that have read the heads of requests which are not answered yet, in microseconds, by the
    /// place and the serial number of their connection: kept here, so that idle connections do not have it.
    late: BTreeMap<usize, (u32, u64)>,
}

impl<'w> Stats<'w> {
    pub(crate) fn new(page: &'w RowPage, names_requests: bool) -> Stats<'w> {
        let name = names_requests.then(|| page.name());
        Stats { row: page.row(), latency: page.latency(), name, late: BTreeMap::new() }
    }

    /// The request of this connection is answered later; unless it is known since when already, since a turn that began
    /// at so many microseconds.
    pub(crate) fn be_late(&mut self, place: Place, turn: u64) {
        let Place { index, serial } = place;
        let entry = self.late.entry(index).or_insert((serial, turn));
        if entry.0 != serial {
            *entry = (serial, turn);
        }
    }

    /// Since when it was, if it was.
    pub(crate) fn take_late(&mut self, place: Place) -> Option<u64> {
        let (serial, began) = self.late.remove(&place.index)?;
        (serial == place.serial).then_some(began)
    }

    pub(crate) fn is_late(&self, place: Place) -> bool {
        self.late.get(&place.index).is_some_and(|(serial, _)| *serial == place.serial)
    }
}
