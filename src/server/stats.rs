//! What a worker counts about its responses, for the status: their number, their latency, and the handler's current
//! request.

use std::collections::BTreeMap;

use crate::server::mailbox::Place;
use crate::shared::scoreboard::{LatencyRow, NameRow, OwnRow, RowPage};

/// Where a worker counts.
#[derive(Debug)]
pub(crate) struct Stats<'w> {
    pub(crate) row: OwnRow<'w>,
    /// The latency of responses, if an admin process wants to know.
    pub(crate) latency: Option<LatencyRow<'w>>,
    /// The handler's current request, if requests are named.
    pub(crate) name: Option<NameRow<'w>>,
    /// When the turns began that read the heads of requests without responses, in microseconds, by the place and the
    /// number of their connection. Kept here, so that it costs idle connections nothing.
    late: BTreeMap<usize, (u32, u64)>,
}

impl<'w> Stats<'w> {
    pub(crate) fn new(page: &'w RowPage, names_requests: bool) -> Stats<'w> {
        let name = names_requests.then(|| page.name());
        Stats { row: page.row(), latency: page.latency(), name, late: BTreeMap::new() }
    }

    /// Marks the current request of this connection as pending, since the turn that began at this time in microseconds
    /// unless already marked.
    pub(crate) fn be_late(&mut self, place: Place, turn: u64) {
        let Place { index, serial } = place;
        let entry = self.late.entry(index).or_insert((serial, turn));
        if entry.0 != serial {
            *entry = (serial, turn);
        }
    }

    /// Since when it was pending, if so.
    pub(crate) fn take_late(&mut self, place: Place) -> Option<u64> {
        let (serial, began) = self.late.remove(&place.index)?;
        (serial == place.serial).then_some(began)
    }

    pub(crate) fn is_late(&self, place: Place) -> bool {
        self.late.get(&place.index).is_some_and(|(serial, _)| *serial == place.serial)
    }
}
