//! What the connections of a worker share: buffers, configuration, the time.

use std::sync::Arc;

use crate::access_log::AccessLog;
use crate::config::ServerConfig;
use crate::http::{Common, Recall, Request};
use crate::mailbox::{Bell, Mailbox, Place};
use crate::scoreboard::Row;
use crate::time::Time;

/// Bytes read at once, besides what is held of an incomplete head.
const READ_SIZE: usize = 64 * 1024;

/// What the connections of a worker share.
pub(crate) struct Context<'w> {
    pub(crate) config: &'w ServerConfig,
    pub(crate) row: Row<'w>,
    pub(crate) worker: usize,
    /// The worker drains: every answer is the last one of its connection.
    pub(crate) is_draining: bool,
    pub(crate) now: Time,
    pub(crate) common: Common,
    /// None when no access is logged.
    pub(crate) log: Option<AccessLog>,
    pub(crate) mailbox: Arc<Mailbox>,
    /// Chooses the requests that are given out before their body.
    pub(crate) streams: Box<dyn FnMut(&Request<'_>) -> bool>,
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
        row: Row<'w>,
        worker: usize,
        common: Common,
        log: Option<AccessLog>,
        mailbox: Arc<Mailbox>,
        streams: Box<dyn FnMut(&Request<'_>) -> bool>,
    ) -> Context<'w> {
        let input = vec![0; READ_SIZE + config.limits.head].into_boxed_slice();
        let (place, now) = (Place::default(), Time::NEVER);
        Context {
            config,
            row,
            worker,
            is_draining: false,
            now,
            common,
            log,
            mailbox,
            streams,
            place,
            recall: Recall::default(),
            input,
            output: Vec::new(),
        }
    }

    /// What other threads ring for the connection that has its turn.
    pub(crate) fn bell(&self) -> Bell {
        Bell { mailbox: Arc::clone(&self.mailbox), place: self.place }
    }
}
