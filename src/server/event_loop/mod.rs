//! The built-in server: a mio loop over listeners, connections and their deadlines. Knows no processes.

mod accepting;
mod acceptors;
mod admission;
mod connections;
mod descriptors;
mod drain_notices;
mod draining;
pub(crate) mod eviction;
mod handover_queue;
pub(crate) mod handshakes;
mod orders;
mod passing;
mod pressure;
mod steering;
mod stepping;
mod table;
mod taking;
mod upgrades;

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::error::{Error, Result};
use crate::server::acceptor::Acceptor;
use crate::server::answer::response::Response;
use crate::server::context::{Context, Http};
use crate::server::http::Request;
use crate::server::inbox::Inbox;
use crate::server::mailbox::{self, ConnectionWaker, Mailbox, Place};
use crate::server::resources::Resources;
use crate::server::station::Station;
use crate::shared::listener;
use crate::sys;
use crate::sys::clock;
use crate::time::Time;

use self::acceptors::{Acceptors, LISTENERS, LISTENERS_MAX};
use self::admission::Admission;
use self::connections::Connections;
use self::handover_queue::HandoverQueue;
use self::handshakes::Handshakes;
use self::steering::Steering;
use self::taking::Taking;

/// The number of events handled in one turn.
const EVENTS: usize = 256;

const LIFELINE: Token = Token(usize::MAX);

/// Another thread has something for the loop.
const MAILBOX: Token = Token(usize::MAX - 1);

/// The parent has orders.
const ORDERS: Token = Token(usize::MAX - 2);

/// The parent has messages for the application.
const MESSAGES: Token = Token(usize::MAX - 3);

/// Another process passes a connection to this slot.
const HANDOVER: Token = Token(usize::MAX - 4);

/// The state of the server.
pub(crate) struct Server<'w, H> {
    connections: Connections<'w, H>,
    acceptors: Acceptors,
    admission: Admission,
    steering: Steering,
    passing: HandoverQueue,
    taking: Taking,
    inbox: Option<Inbox>,
    handshakes: Handshakes,
    lifeline: UnixStream,
}

impl<'w, H> Server<'w, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    pub(crate) fn new(station: Station<'w>, resources: Resources, handler: H) -> Result<Server<'w, H>> {
        let listen = |source| Error::system("listen in the worker with epoll_ctl(2)", source);
        let poll = Poll::new().map_err(|source| Error::system("wait for events with epoll_create(2)", source))?;
        let gate = resources.gate();
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
        let taking = Taking::new(resources.handover);
        taking.register(&poll, HANDOVER).map_err(listen)?;
        if taking.due().is_some() {
            station.row().set_takes();
        }
        for tcp in own.iter().chain(&shared) {
            listener::keep_alive(tcp, station.config.timeouts.tcp_keepalive);
        }
        let tcp = own.into_iter().map(Acceptor::tcp).chain(shared.into_iter().map(Acceptor::shared_tcp));
        let unix = resources.unix_listeners.into_iter().map(Acceptor::unix);
        let mut acceptors = Acceptors::default();
        for acceptor in tcp.chain(unix) {
            let acceptor = acceptor.secured_by(resources.tls.as_ref());
            acceptors.add(acceptor, &poll).map_err(listen)?;
        }
        let waker = Waker::new(poll.registry(), MAILBOX)
            .map_err(|source| Error::system("let other threads wake the loop with eventfd(2)", source))?;
        let mailbox = Arc::new(Mailbox::new(waker));
        station.adoptions.adopt_by(&mailbox);
        let http = Http::new(resources.common, resources.streams);
        let waker = ConnectionWaker { mailbox, place: Place::default() };
        let cx = Context::new(station, http, resources.log, waker);
        Ok(Server {
            connections: Connections::new(cx, handler, poll),
            acceptors,
            admission: Admission::default(),
            steering: Steering::new(),
            passing: HandoverQueue::new(gate),
            taking,
            inbox,
            handshakes: Handshakes::new(resources.tls),
            lifeline,
        })
    }

    /// Serves until the lifeline ends and every connection has ended.
    pub(crate) fn run(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        mailbox::set_in_loop(true);
        while !self.is_over() {
            if self.connections.cx.memory.budget.take_trim() {
                sys::memory::trim();
            }
            self.handshakes.end_turn(self.connections.cx.stats.row);
            let is_still_busy = self.handshakes.are_deferred();
            match is_still_busy {
                true => self.connections.cx.stats.row.goes_on(),
                false => self.connections.cx.stats.row.idle(),
            }
            let wait = self.wait();
            match self.connections.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.map_err(|source| Error::system("wait for events with epoll_wait(2)", source))?,
            }
            self.begin_turn(is_still_busy);
            self.connections.go_on();
            self.take(&events);
            if self.connections.cx.station.quits() {
                break;
            }
            let Connections { notices, table, cx, .. } = &mut self.connections;
            notices.tell(table, cx.clock.now);
            self.connections.expire(&mut self.passing);
            if !self.connections.cx.memory.is_calm() {
                self.connections.relieve();
            }
            self.make_room_for_files();
            self.accept();
            if !self.passing.is_empty() || !self.taking.is_empty() {
                self.take_over();
                self.passing.pass_on(&mut self.connections);
            }
            self.connections.cx.station.check_requests();
        }
        let cx = &mut self.connections.cx;
        if let Some(mut inbox) = self.inbox.take() {
            inbox.finish(&cx.station);
        }
        self.connections.end();
        mailbox::set_in_loop(false);
        Ok(())
    }

    /// Whether the worker drains, and nothing is left.
    fn is_over(&self) -> bool {
        self.connections.cx.is_draining() && self.connections.count() == 0 && self.taking.due().is_none()
    }

    /// Handles events.
    fn take(&mut self, events: &Events) {
        let (mut is_notified, mut is_over) = (false, false);
        for event in events {
            match event.token() {
                // What nearly all are.
                Token(index) if index <= LISTENERS - LISTENERS_MAX => self.connections.step(index, Some(event)),
                LIFELINE => is_over = true,
                MAILBOX => is_notified = true,
                ORDERS => self.obey(),
                HANDOVER => self.taking.notice(),
                MESSAGES => self.inbox.iter_mut().for_each(|inbox| inbox.has_more = true),
                Token(token) => {
                    if self.acceptors.notice(token, self.connections.cx.clock.now) {
                        self.admission.wake();
                    }
                }
            }
        }
        // New connections come last, since an event could be for a connection whose place they take.
        if is_notified {
            self.connections.deliver();
            self.adopt();
        }
        if is_over {
            self.drain();
        }
        if let Some(inbox) = self.inbox.as_mut().filter(|inbox| inbox.has_more) {
            inbox.deliver(&self.connections.cx.station);
        }
    }

    /// Reads the clocks, once for everything in this turn.
    fn begin_turn(&mut self, is_still_busy: bool) {
        let cx = &mut self.connections.cx;
        cx.clock.begin_turn(clock::now_micros());
        if !is_still_busy {
            cx.stats.row.busy(cx.clock.now);
        }
        cx.station.wake_watch();
        self.handshakes.begin_turn();
        if self.steering.is_due(cx.clock.now) {
            self.steer();
        }
        let cx = &mut self.connections.cx;
        if cx.http.is_date_due(cx.clock.now) {
            cx.http.refresh(clock::unix_millis(), cx.clock.now);
        }
    }

    /// Keeps the kernel's steering up to date.
    fn steer(&mut self) {
        let cx = &self.connections.cx;
        match cx.is_draining() {
            true => self.steering.skip(cx.clock.now),
            false => self.steering.look(&cx.station, cx.clock.now),
        }
    }

    /// How long nothing is due.
    fn wait(&mut self) -> Option<Duration> {
        if !self.connections.ready.is_empty() || self.inbox.as_ref().is_some_and(|inbox| inbox.has_more) {
            self.connections.cx.clock.continue_at_once();
            return Some(Duration::ZERO);
        }
        // Not the turn's own time, since the turn may have been long.
        let now = self.connections.cx.clock.end_turn(clock::coarse_now());
        let mut next = self.connections.due(now);
        // Each is asked only if it has anything to do, as in few turns.
        if !self.admission.is_quiet() {
            next = next.min(self.accept_due(now).unwrap_or(Time::NEVER));
        }
        if !self.passing.is_empty() || !self.taking.is_empty() {
            let both = self.passing.due().into_iter().chain(self.taking.due());
            next = next.min(both.min().unwrap_or(Time::NEVER));
        }
        self.connections.cx.clock.wait_for(next, now)
    }
}
