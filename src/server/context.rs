//! What the connections of a worker share: buffers, configuration, the time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::server::access_log::AccessLog;
use crate::server::budget::Budget;
use crate::server::http::{Encoder, Recall, Request};
use crate::server::mailbox::{Bell, Mailbox, Place};
use crate::shared::config::ServerConfig;
use crate::shared::scoreboard::{LatencyRow, NameRow, OwnRow};
use crate::time::Time;

/// Bytes read at once, besides what is held of an incomplete head.
const READ_SIZE: usize = 64 * 1024;

/// What the kernel held for a client at a look.
#[derive(Debug)]
pub(crate) struct Queue {
    /// The connection's, and when it would have been out of time.
    serial: u32,
    deadline: Time,
    unsent: usize,
}

/// What the connections of a worker share.
pub(crate) struct Context<'w> {
    pub(crate) config: &'w ServerConfig,
    pub(crate) row: OwnRow<'w>,
    /// Where it is counted how long answers take, if anybody wants to know.
    pub(crate) latency: Option<LatencyRow<'w>>,
    /// Where the request is named that the handler has, if that is wanted.
    pub(crate) name: Option<NameRow<'w>>,
    pub(crate) worker: usize,
    /// How the log names the worker.
    pub(crate) tag: String,
    /// The worker drains: every answer is the last one of its connection.
    pub(crate) is_draining: bool,
    /// How long it then waits for a request, or for the rest of its head.
    pub(crate) drain_patience: Duration,
    /// How long it then waits for the next bytes of a body.
    pub(crate) body_patience: Duration,
    pub(crate) now: Time,
    /// The same without the time in which the loop did not look at its connections: what their deadlines are told by.
    pub(crate) running: Time,
    /// When the turn began, in microseconds, where latency is counted.
    pub(crate) turn: u64,
    pub(crate) encoder: Encoder,
    /// Somebody else may be the client.
    pub(crate) has_proxies: bool,
    /// When it was last said that a connection is closed for what proxies have to say.
    pub(crate) proxies_told: Option<Time>,
    /// None when no access is logged.
    pub(crate) log: Option<AccessLog>,
    pub(crate) mailbox: Arc<Mailbox>,
    /// When the turns began that have read the heads of requests which are not answered yet, in microseconds, by the
    /// place and the serial number of their connection: kept here, so that idle connections do not have it.
    late: BTreeMap<usize, (u32, u64)>,
    /// What the kernel held for clients that are to take an answer, when that was looked at; kept here as well.
    queues: BTreeMap<usize, Queue>,
    /// Chooses the requests that are given out before their body.
    pub(crate) streams: Box<dyn FnMut(&Request<'_>) -> bool>,
    /// What the connections hold together.
    pub(crate) budget: Budget,
    /// Those that are not read from, as there is no room for more; in the order in which they came to wait.
    pub(crate) waiting: VecDeque<Place>,
    /// Those of them for whose bodies room is kept now.
    pub(crate) turns: Vec<Place>,
    /// The connection that has its turn.
    pub(crate) place: Place,
    /// The head that may come again.
    pub(crate) recall: Recall,
    pub(crate) input: Box<[u8]>,
    pub(crate) output: Vec<u8>,
}

impl<'w> Context<'w> {
    pub(crate) fn new(
        config: &'w ServerConfig,
        row: OwnRow<'w>,
        worker: usize,
        encoder: Encoder,
        mailbox: Arc<Mailbox>,
        streams: Box<dyn FnMut(&Request<'_>) -> bool>,
    ) -> Context<'w> {
        let input = vec![0; READ_SIZE + config.limits.head].into_boxed_slice();
        let (place, now) = (Place::default(), Time::NEVER);
        Context {
            config,
            row,
            latency: None,
            name: None,
            worker,
            tag: String::new(),
            is_draining: false,
            drain_patience: Duration::MAX,
            body_patience: Duration::MAX,
            now,
            running: now,
            turn: 0,
            encoder,
            has_proxies: config.has_proxies(),
            proxies_told: None,
            log: None,
            mailbox,
            late: BTreeMap::new(),
            queues: BTreeMap::new(),
            streams,
            budget: Budget::new(config.max_held),
            waiting: VecDeque::new(),
            turns: Vec::new(),
            place,
            recall: Recall::default(),
            input,
            output: Vec::new(),
        }
    }

    /// The request of the connection that has its turn is answered later; unless it is known since when already, since
    /// this turn.
    pub(crate) fn be_late(&mut self) {
        let Place { index, serial } = self.place;
        let entry = self.late.entry(index).or_insert((serial, self.turn));
        if entry.0 != serial {
            *entry = (serial, self.turn);
        }
    }

    /// Since when it was, if it was.
    pub(crate) fn take_late(&mut self) -> Option<u64> {
        let (serial, began) = self.late.remove(&self.place.index)?;
        (serial == self.place.serial).then_some(began)
    }

    pub(crate) fn is_late(&self) -> bool {
        self.late.get(&self.place.index).is_some_and(|(serial, _)| *serial == self.place.serial)
    }

    /// How many bytes the client of the connection that has its turn has taken since the last look at its queue, if nothing
    /// was added to that meanwhile: the deadline would have moved.
    pub(crate) fn taken_since_last_look(&mut self, deadline: Time, unsent: usize) -> usize {
        let before = self.note_queue(deadline, unsent);
        let before = before.filter(|it| it.serial == self.place.serial && it.deadline == deadline);
        before.map_or(0, |before| before.unsent.saturating_sub(unsent))
    }

    pub(crate) fn note_queue(&mut self, deadline: Time, unsent: usize) -> Option<Queue> {
        let Place { index, serial } = self.place;
        self.queues.insert(index, Queue { serial, deadline, unsent })
    }

    /// The connection at `index` has ended.
    pub(crate) fn forget_queue(&mut self, index: usize) {
        self.queues.remove(&index);
    }

    /// What other threads ring for the connection that has its turn.
    pub(crate) fn bell(&self) -> Bell {
        Bell { mailbox: Arc::clone(&self.mailbox), place: self.place }
    }
}
