//! Logs the requests to which the application takes long to respond (`--slow-request`).

use std::collections::BTreeMap;
use std::time::Duration;

use log::warn;

use crate::server::http::Request;
use crate::server::mailbox::Place;
use crate::shared::config::ServerConfig;
use crate::shared::pace::{Pace, Rate};
use crate::sys::clock;
use crate::time::Time;

/// The rate of log lines, so that the log of a pool in which everything is slow remains readable.
const LOG_RATE: Rate = Rate::new(Duration::from_millis(100), 10);

/// The maximum length of a path in the log.
const PATH_MAX: usize = 200;

/// Which requests are slow.
#[derive(Debug)]
pub(crate) struct SlowRequests {
    /// In microseconds.
    limit: u64,
    are_named: bool,
    /// When the application got its current request.
    began: u64,
    /// Requests with deferred responses, by the place and the number of their connection.
    pending: BTreeMap<usize, Pending>,
    pace: Pace,
    untold: u64,
}

#[derive(Debug)]
struct Pending {
    serial: u32,
    began: u64,
    name: String,
}

impl SlowRequests {
    /// `None` unless slow requests are logged.
    pub(crate) fn new(config: &ServerConfig) -> Option<Box<SlowRequests>> {
        let limit = u64::try_from(config.slow_request.as_micros()).unwrap_or(u64::MAX);
        let (are_named, pending, pace) = (config.name_requests, BTreeMap::new(), Pace::default());
        (limit > 0).then(|| Box::new(SlowRequests { limit, are_named, began: 0, pending, pace, untold: 0 }))
    }

    /// The application gets a request, or a piece of a body.
    pub(crate) fn begin(&mut self) {
        self.began = clock::now_micros();
    }

    /// The handler has returned; `is_pending` if its response is deferred.
    pub(crate) fn handled(&mut self, request: &Request<'_>, is_pending: bool, place: Place, tag: &str) {
        if is_pending {
            let (serial, began, name) = (place.serial, self.began, self.name(request));
            self.pending.insert(place.index, Pending { serial, began, name });
            return;
        }
        let now = clock::now_micros();
        if now.saturating_sub(self.began) >= self.limit {
            let name = self.name(request);
            self.tell(&name, self.began, now, tag);
        }
    }

    /// The application has received a piece of a body, and the response is still to come. The time until the next piece
    /// is the client's.
    pub(crate) fn took_piece(&mut self, place: Place, tag: &str) {
        let (began, now) = (self.began, clock::now_micros());
        let Some(name) = self.of(place).map(|pending| pending.name.clone()) else { return };
        if now.saturating_sub(began) >= self.limit {
            self.tell(&name, began, now, tag);
        }
    }

    /// The receiver of the body has returned a deferred response.
    pub(crate) fn promised(&mut self, place: Place) {
        let began = self.began;
        if let Some(pending) = self.of(place) {
            pending.began = began;
        }
    }

    /// The deferred response is there. For a body received in pieces, the time counts from its last piece.
    pub(crate) fn answered(&mut self, place: Place, tag: &str) {
        let now = clock::now_micros();
        let Some(pending) = self.pending.remove(&place.index).filter(|pending| pending.serial == place.serial) else {
            return;
        };
        if now.saturating_sub(pending.began) >= self.limit {
            self.tell(&pending.name, pending.began, now, tag);
        }
    }

    fn of(&mut self, place: Place) -> Option<&mut Pending> {
        self.pending.get_mut(&place.index).filter(|pending| pending.serial == place.serial)
    }

    fn name(&self, request: &Request<'_>) -> String {
        if !self.are_named {
            return "a request".to_owned();
        }
        let path = request.path();
        // It is ASCII.
        match path.get(..PATH_MAX) {
            Some(beginning) => format!("{} {beginning}...", request.method()),
            None => format!("{} {path}", request.method()),
        }
    }

    fn tell(&mut self, name: &str, began: u64, now: u64, tag: &str) {
        if self.pace.take(LOG_RATE, Time::from_millis(now / 1000)).is_err() {
            self.untold += 1;
            return;
        }
        let took = Duration::from_millis(now.saturating_sub(began) / 1000);
        match std::mem::take(&mut self.untold) {
            0 => warn!("{tag} was slow: {name} took {took:?} (slow-request)"),
            more => warn!("{tag} was slow: {name} took {took:?} (slow-request); {more} more before it"),
        }
    }
}
