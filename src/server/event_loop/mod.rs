//! The built-in server: a mio loop over listeners, connections and their deadlines. Knows no processes.

mod accepting;
mod draining;
mod guard;
mod lent;
mod orders;
mod places;
mod pressure;
mod stepping;

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use crate::error::{Error, Result};
use crate::server::acceptor::Acceptor;
use crate::server::access_log::AccessLog;
use crate::server::answer::response::Response;
use crate::server::connection::Connection;
use crate::server::context::Context;
use crate::server::deadlines::Deadlines;
use crate::server::http::{Encoder, Request};
use crate::server::inbox::Inbox;
use crate::server::mailbox::{self, Mailbox};
use crate::server::resources::Resources;
use crate::server::station::Station;
use crate::shared::listener;
use crate::shared::scoreboard::Seen;
use crate::sys;
use crate::sys::clock;
use crate::time::{frozen, Time};

use self::draining::Moments;
use self::lent::Lent;
use self::places::Places;

/// Events taken in one turn.
const EVENTS: usize = 256;

const LIFELINE: Token = Token(usize::MAX);

/// Other threads have something for the loop.
const MAILBOX: Token = Token(usize::MAX - 1);

/// The parent has orders.
const ORDERS: Token = Token(usize::MAX - 2);

/// The parent has messages for the application.
const MESSAGES: Token = Token(usize::MAX - 3);

/// Listeners count down from here, connections up from zero.
const LISTENERS: usize = usize::MAX - 4;

/// Tokens that are kept for listeners.
const LISTENERS_MAX: usize = 1 << 20;

/// Longer than it ever needs to, and short enough for epoll_wait(2).
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What it takes to serve.
pub(crate) struct Server<'w, H> {
    station: Station<'w>,
    handler: H,
    cx: Context<'w>,
    poll: Poll,
    lifeline: UnixStream,
    inbox: Option<Inbox>,
    acceptors: Slab<Acceptor>,
    connections: Slab<Entry>,
    lent: Lent,
    deadlines: Deadlines,
    /// Connections that have more to do in the next turn.
    again: Vec<usize>,
    /// Tells successive connections in one place of the slab apart.
    accepted: u32,
    /// When to try to accept again though no connection has ended.
    accept_retry: Option<Time>,
    /// Who gives up its place for the next one when all are taken.
    places: Places,
    /// When to look whether those that have their turn get on.
    turn_due: Option<Time>,
    /// When the worker drains: who is told when.
    moments: Moments,
    /// Time in which the loop did not look at its connections, as it was frozen, or busy with one of them for long.
    lost: Duration,
    /// When the loop meant to go on.
    expected: Time,
    /// When it was last said that connections are closed in favour of new ones.
    evicted: Option<Time>,
    /// The second that the Date field shows.
    second: u64,
    /// When it was last seen whether the kernel chooses well.
    steered: Time,
    /// Least of the connections that were pending while no queue held any, what was to be seen of the other workers, and
    /// since when.
    pending: i64,
    seen: Vec<Seen>,
    settled: Time,
}

struct Entry {
    connection: Connection,
    serial: u32,
    /// When the deadlines will next look at it.
    armed: Time,
    /// What it holds of the budget.
    held: u32,
}

// With one word for its deadline that is all that an idle connection costs. mio adds to it when debugging.
#[cfg(all(target_pointer_width = "64", not(debug_assertions)))]
const _: () = assert!(size_of::<Entry>() == 112);

impl<'w, H> Server<'w, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    pub(crate) fn new(station: Station<'w>, resources: Resources, handler: H) -> Result<Server<'w, H>> {
        let listen = |source| Error::system("listen in the worker with epoll_ctl(2)", source);
        let poll = Poll::new().map_err(|source| Error::system("wait for events with epoll_create(2)", source))?;
        let lifeline = resources.shutdown;
        let descriptor = lifeline.as_raw_fd();
        poll.registry().register(&mut SourceFd(&descriptor), LIFELINE, Interest::READABLE).map_err(listen)?;
        let orders = station.lifeline.orders_source().as_raw_fd();
        poll.registry().register(&mut SourceFd(&orders), ORDERS, Interest::READABLE).map_err(listen)?;
        let inbox = resources.inbox;
        if let Some(inbox) = &inbox {
            let messages = inbox.as_fd().as_raw_fd();
            poll.registry().register(&mut SourceFd(&messages), MESSAGES, Interest::READABLE).map_err(listen)?;
        }
        let (own, shared) = (resources.listeners, resources.shared_listeners);
        for tcp in own.iter().chain(&shared) {
            listener::keep_alive(tcp, station.config.tcp_keepalive);
        }
        let tcp = own.into_iter().map(Acceptor::tcp).chain(shared.into_iter().map(Acceptor::shared_tcp));
        let unix = resources.unix_listeners.into_iter().map(Acceptor::unix);
        let mut acceptors = Slab::new();
        for mut acceptor in tcp.chain(unix) {
            let entry = acceptors.vacant_entry();
            acceptor.register(&poll, Token(LISTENERS - entry.key())).map_err(listen)?;
            entry.insert(acceptor);
        }
        let encoder = Encoder::new(resources.common);
        let waker = Waker::new(poll.registry(), MAILBOX)
            .map_err(|source| Error::system("let other threads wake the loop with eventfd(2)", source))?;
        let mailbox = Arc::new(Mailbox::new(waker));
        station.adoptions.adopt_by(&mailbox);
        let mut cx = Context::new(station.config, station.row(), station.id, encoder, mailbox, resources.streams);
        cx.name = station.config.name_requests.then(|| station.page.name());
        (cx.latency, cx.log, cx.tag) = (station.page.latency(), resources.log, station.tag.clone());
        Ok(Server {
            station,
            handler,
            cx,
            poll,
            lifeline,
            inbox,
            acceptors,
            connections: Slab::new(),
            lent: Lent::default(),
            deadlines: Deadlines::default(),
            again: Vec::new(),
            accepted: 0,
            accept_retry: None,
            places: Places::default(),
            turn_due: None,
            moments: Moments::default(),
            lost: Duration::ZERO,
            expected: Time::NEVER,
            evicted: None,
            second: 0,
            steered: Time::NEVER,
            pending: i64::MAX,
            seen: Vec::new(),
            settled: Time::default(),
        })
    }

    /// Serves until the lifeline ends and every connection is done.
    pub(crate) fn run(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        mailbox::set_in_loop(true);
        while !(self.cx.is_draining && self.connections.is_empty() && self.lent.count() == 0) {
            if self.cx.budget.take_trim() {
                sys::memory::trim();
            }
            self.cx.row.idle();
            let wait = self.wait();
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.map_err(|source| Error::system("wait for events with epoll_wait(2)", source))?,
            }
            self.begin_turn();
            for index in std::mem::take(&mut self.again) {
                if let Some(entry) = self.connections.get_mut(index).filter(|entry| entry.connection.is_again) {
                    entry.connection.is_again = false;
                    self.advance(index);
                }
            }
            let (mut is_rung, mut is_over) = (false, false);
            for event in &events {
                match event.token() {
                    LIFELINE => is_over = true,
                    MAILBOX => is_rung = true,
                    ORDERS => self.obey(),
                    MESSAGES => self.inbox.iter_mut().for_each(|inbox| inbox.has_more = true),
                    Token(token) if token > LISTENERS - LISTENERS_MAX => {
                        // It may have been let go of in this turn.
                        if let Some(acceptor) = self.acceptors.get_mut(LISTENERS - token) {
                            acceptor.notice(self.cx.now);
                        }
                    }
                    Token(index) => {
                        if let Some(entry) = self.connections.get_mut(index) {
                            entry.connection.notice(event);
                            self.advance(index);
                        }
                    }
                }
            }
            // What lets in connections comes last: an event could be of one whose place they take.
            if is_rung {
                self.deliver();
            }
            if is_over {
                self.drain();
            }
            if let Some(inbox) = self.inbox.as_mut().filter(|inbox| inbox.has_more) {
                inbox.deliver(&self.station);
            }
            if self.station.quits() {
                break;
            }
            self.tell();
            self.expire();
            self.relieve();
            self.accept();
            self.station.check_requests();
        }
        if let Some(mut inbox) = self.inbox.take() {
            inbox.finish(&self.station);
        }
        for (_, entry) in &mut self.connections {
            entry.connection.end(&mut self.cx);
        }
        self.cx.row.idle();
        mailbox::set_in_loop(false);
        Ok(())
    }

    /// Reads the clocks, once for all that happens in this turn.
    fn begin_turn(&mut self) {
        self.cx.turn = clock::now_micros();
        self.cx.now = Time::from_millis(self.cx.turn / 1000);
        self.skip_frozen(self.expected, self.cx.now);
        self.cx.running = self.cx.now.before(self.lost);
        self.cx.row.busy(self.cx.now);
        self.station.wake_watch();
        if self.cx.now != self.steered {
            self.steer();
        }
        let second = clock::unix_seconds();
        if second != self.second {
            self.second = second;
            self.cx.encoder.refresh(second);
        }
    }

    /// No deadline comes nearer in the time from `expected` to `now` if that is so long that the loop was frozen.
    #[inline]
    fn skip_frozen(&mut self, expected: Time, now: Time) {
        let span = frozen(expected, now);
        if !span.is_zero() {
            self.lost += span;
        }
    }

    /// Sees to it that the kernel chooses well: once a millisecond, so at next to no cost per request.
    fn steer(&mut self) {
        self.steered = self.cx.now;
        if !self.cx.is_draining {
            self.station.steer(self.cx.now);
        }
    }

    /// How long nothing is due.
    fn wait(&mut self) -> Option<Duration> {
        if !self.again.is_empty() || self.inbox.as_ref().is_some_and(|inbox| inbox.has_more) {
            self.expected = self.cx.now;
            return Some(Duration::ZERO);
        }
        // Not from the turn's own time: the turn may have been long.
        let now = clock::now();
        self.skip_frozen(self.cx.now, now);
        let or_never = |due: Option<Time>| due.unwrap_or(Time::NEVER);
        let next = or_never(self.deadlines.next().map(|due| now.towards(due + self.lost)))
            .min(or_never(self.accept_retry))
            .min(or_never(self.accept_due()))
            .min(or_never(self.cx.log.as_ref().and_then(AccessLog::due)))
            .min(or_never(self.cx.budget.due()))
            .min(or_never(self.turn_due))
            .min(or_never(self.moments.next()));
        let is_due = next != Time::NEVER;
        self.expected = if is_due { next.max(now).min(now + LONGEST_WAIT) } else { next };
        is_due.then(|| self.expected.since(now))
    }

    /// Goes on with the connections that other threads have named.
    fn deliver(&mut self) {
        for place in self.cx.mailbox.take() {
            if self.connections.get(place.index).is_some_and(|entry| entry.serial == place.serial) {
                self.advance(place.index);
            }
        }
        self.take_back(self.cx.mailbox.take_given_back());
        self.adopt();
    }
}
