//! What the connections of a worker share: buffers, configuration, the time.

use std::time::Duration;

use crate::server::access_log::AccessLog;
use crate::server::clock::Clock;
use crate::server::http::{CommonFields, Encoder, Recall, Request};
use crate::server::mailbox::ConnectionWaker;
use crate::server::memory::Memory;
use crate::server::slow::SlowRequests;
use crate::server::station::Station;
use crate::server::stats::Stats;
use crate::server::timing::Waits;
use crate::time::Time;

/// The bytes to read at once, in addition to those held of an incomplete head.
const READ_SIZE: usize = 64 * 1024;

/// What the connections of a worker share.
pub(crate) struct Context<'w> {
    pub(crate) station: Station<'w>,
    pub(crate) stats: Stats<'w>,
    pub(crate) clock: Clock,
    pub(crate) waits: Waits,
    pub(crate) http: Http,
    pub(crate) memory: Memory,
    /// Set while the worker drains.
    pub(crate) drain: Option<DrainLimits>,
    pub(crate) proxies: Proxies,
    pub(crate) logs: Logs,
    /// The waker of the connection that has its turn, for other threads.
    pub(crate) waker: ConnectionWaker,
    pub(crate) input: Box<[u8]>,
    pub(crate) output: Vec<u8>,
}

/// The logs of requests.
pub(crate) struct Logs {
    /// `None` without an access log.
    pub(crate) access: Option<AccessLog>,
    /// `None` if slow requests are not logged.
    pub(crate) slow: Option<Box<SlowRequests>>,
}

/// Whether proxies tell who their clients are.
#[derive(Debug)]
pub(crate) struct Proxies {
    /// The client may be somebody else than the peer.
    pub(crate) are_trusted: bool,
    /// When it was last logged that a connection was closed because of a proxy.
    pub(crate) warned: Option<Time>,
}

/// What the codecs of all connections share.
pub(crate) struct Http {
    pub(crate) encoder: Encoder,
    /// A head that may come again.
    pub(crate) recall: Recall,
    /// Chooses the requests whose handler is called before the body has arrived.
    pub(crate) streams: Box<dyn FnMut(&Request<'_>) -> bool>,
    /// When the Date field is to show another second.
    date_due: Time,
}

/// How long a draining worker waits for its clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DrainLimits {
    /// For a request, or for the rest of its head.
    pub(crate) head: Duration,
    /// For the next bytes of a body.
    pub(crate) body: Duration,
    /// Until when to read what is discarded.
    pub(crate) linger: Time,
    /// Whether other processes take over the connections. If not, each response is the last of its connection.
    pub(crate) passes_on: bool,
}

impl<'w> Context<'w> {
    pub(crate) fn new(station: Station<'w>, http: Http, log: Option<AccessLog>, waker: ConnectionWaker) -> Context<'w> {
        let config = station.config;
        Context {
            stats: Stats::new(station.page, config.name_requests),
            station,
            clock: Clock::new(),
            waits: Waits::new(&config.timeouts),
            http,
            memory: Memory::new(config.capacity.max_held),
            drain: None,
            proxies: Proxies { are_trusted: config.has_proxies(), warned: None },
            logs: Logs { access: log, slow: SlowRequests::new(config) },
            waker,
            input: vec![0; READ_SIZE + config.limits.head].into_boxed_slice(),
            output: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Whether anything measures how long requests take.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.logs.access.is_some() || self.stats.latency.is_some()
    }

    /// Whether the worker drains, and other processes take over its connections.
    #[inline]
    pub(crate) fn passes_on(&self) -> bool {
        self.drain.is_some_and(|limits| limits.passes_on)
    }
}

impl Http {
    pub(crate) fn new(common: CommonFields, streams: Box<dyn FnMut(&Request<'_>) -> bool>) -> Http {
        Http { encoder: Encoder::new(common), recall: Recall::default(), streams, date_due: Time::default() }
    }

    /// Whether the Date field may be out of date.
    #[inline]
    pub(crate) fn is_date_due(&self, now: Time) -> bool {
        self.date_due <= now
    }

    /// Sets the current time, in milliseconds since 1970.
    pub(crate) fn refresh(&mut self, millis: u64, now: Time) {
        self.encoder.refresh(millis / 1000);
        self.date_due = now + Duration::from_millis(1000 - millis % 1000);
    }
}
