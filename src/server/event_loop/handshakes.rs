//! When connections with TLS are accepted: not while handshakes wait for a turn, and at the limit of handshakes in
//! progress only if one of them makes room.

use std::rc::Rc;
use std::time::Duration;

use log::warn;

use super::acceptors::Acceptors;
use super::admission::is_warning_due;
use super::connections::Connections;
use super::eviction::Eviction;
use crate::server::acceptor::Acceptor;
use crate::server::answer::response::Response;
use crate::server::http::Request;
use crate::server::tls::Endpoint;
use crate::shared::scoreboard::OwnRow;
use crate::time::Time;

/// The maximum number of handshakes to examine for one new connection.
const EXAMINED_MAX: usize = 16;

/// The delay before the next search when all were examined.
const PAUSE: Duration = Duration::from_millis(1);

/// The handshakes of a worker.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// What connections with TLS share, if there are any.
    pub(super) endpoint: Option<Rc<Endpoint>>,
    /// Which of them makes room for another.
    eviction: Eviction,
    /// When it was last logged that some do.
    warned: Option<Time>,
}

impl Handshakes {
    pub(super) fn new(endpoint: Option<Rc<Endpoint>>) -> Handshakes {
        Handshakes { endpoint, ..Handshakes::default() }
    }

    /// Whether some wait for the next turn.
    #[inline]
    pub(super) fn are_deferred(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.defers())
    }

    pub(super) fn begin_turn(&self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.begin_turn();
        }
    }

    /// Reports how they have ended.
    #[inline]
    pub(super) fn end_turn(&self, row: OwnRow<'_>) {
        if let Some(endpoint) = &self.endpoint {
            row.set_handshakes(&endpoint.counts());
        }
    }

    /// Whether a connection of this listener may be accepted. Makes room for its handshake if necessary.
    pub(super) fn may_begin<H>(
        &mut self,
        key: usize,
        acceptors: &mut Acceptors,
        connections: &mut Connections<'_, H>,
    ) -> bool
    where
        H: FnMut(&Request<'_>) -> Response,
    {
        let Some(endpoint) = &self.endpoint else { return true };
        let Some(acceptor) = acceptors.waiting(key).filter(|acceptor| acceptor.is_secured()) else { return true };
        if endpoint.defers() {
            return false;
        }
        // Without a connection that waits, nothing has to make room.
        if !endpoint.is_crowded() || !acceptor.is_waited_for() {
            return true;
        }
        let endpoint = Rc::clone(endpoint);
        let Some(index) = self.longest_awaited(&endpoint, connections) else { return !endpoint.is_crowded() };
        self.end(index, connections);
        true
    }

    /// When to accept from a listener at which a connection may wait from `due` on.
    pub(super) fn due(&self, acceptor: &Acceptor, due: Time) -> Time {
        match self.endpoint.as_ref().is_some_and(|endpoint| endpoint.is_crowded()) && acceptor.is_secured() {
            true => due.max(self.eviction.due()),
            false => due,
        }
    }

    /// The handshake that has waited longest for its client. Reads first what has arrived for it.
    fn longest_awaited<H>(&mut self, endpoint: &Endpoint, connections: &mut Connections<'_, H>) -> Option<usize>
    where
        H: FnMut(&Request<'_>) -> Response,
    {
        let now = connections.cx.clock.now;
        for _ in 0..EXAMINED_MAX {
            let Some(first) = self.eviction.first() else {
                if !self.eviction.is_due(now) {
                    return None;
                }
                self.eviction.note(connections.table.handshakes(&connections.cx), endpoint.handshakes(), now);
                continue;
            };
            if connections.table.is_still_awaited(first, &connections.cx) {
                connections.look(first.index);
                if connections.table.is_still_awaited(first, &connections.cx) {
                    return Some(first.index);
                }
            }
            self.eviction.drop_first();
            if !endpoint.is_crowded() {
                return None;
            }
        }
        self.eviction.pause(now + PAUSE);
        None
    }

    fn end<H>(&mut self, index: usize, connections: &mut Connections<'_, H>)
    where
        H: FnMut(&Request<'_>) -> Response,
    {
        let cx = &connections.cx;
        let max = cx.station.config.capacity.max_handshakes;
        warn_of_limit(&mut self.warned, &cx.station.tag, max, cx.clock.now);
        self.eviction.drop_first();
        connections.table.entries[index].connection.transport.end_handshake();
        connections.close(index);
    }
}

/// Logs that handshakes make room for others, if that is due again.
pub(crate) fn warn_of_limit(warned: &mut Option<Time>, tag: &str, max: usize, now: Time) {
    if is_warning_due(warned, now) {
        warn!(
            "{tag} has reached its limit at {max} TLS handshakes in progress: it ends those that wait longest for \
             their clients to make room; raise tls-max-handshakes if they are wanted"
        );
    }
}
