//! One place for a request at a time, and the connection it uses.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustls::ClientConfig;
use socket2::{Domain, Protocol, Socket, Type};

use super::answer::{Answer, Progress};
use super::schedule::Kind;
use super::tally::Class;
use super::wire::{Tls, Wire};

/// What a request is made of, and how its connection ends.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    /// The bytes of a request of each kind.
    pub(crate) fast: Vec<u8>,
    pub(crate) slow: Vec<u8>,
    /// Requests one after the other on a connection, instead of a connection for each.
    ///
    /// Without it the request says `Connection: close` and the answer is read until the server closes. So what is wrong
    /// behind an answer is noticed too, and the TIME-WAIT state stays with the server, whose port is one, and not with
    /// the client, whose ports would be used up.
    pub(crate) is_keep_alive: bool,
    pub(crate) tls: Option<Tls>,
}

impl Plan {
    fn request(&self, kind: Kind) -> &[u8] {
        match kind {
            Kind::Fast => &self.fast,
            Kind::Slow => &self.slow,
        }
    }
}

/// What a request has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Pending,
    /// Answered, at this moment.
    Answered(Instant),
    Failed(Class),
}

/// What an idle connection has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    Open,
    /// There is none, or the server has ended it.
    Closed,
    /// Bytes came that nobody asked for: the answer before was longer than it said.
    Excess,
}

#[derive(Debug)]
enum State {
    /// No request; perhaps an idle connection.
    Free,
    Connecting,
    Sending {
        sent: usize,
    },
    Waiting,
    /// Answered whole at this moment; the server is still to close.
    Ending(Instant),
}

#[derive(Debug)]
pub(crate) struct Lane {
    stream: Option<Wire<TcpStream>>,
    /// Who begins TLS on its connections.
    tls: Option<Arc<ClientConfig>>,
    /// Whether it was answered with them before, and so has got tickets.
    pub(crate) has_tickets: bool,
    state: State,
    pub(crate) answer: Answer,
    /// Of the request that is made, or was last.
    pub(crate) kind: Kind,
    /// When the request was to be made, from which its latency counts; no earlier than it was for a client that is told
    /// no rate.
    pub(crate) due: Instant,
    /// When the request last came further.
    pub(crate) progress: Instant,
    /// What became of the request before, on the same connection.
    pub(crate) before: Option<(Kind, Class)>,
    /// The process that has answered on this connection, where it says.
    pub(crate) worker: Option<u32>,
}

impl Lane {
    pub(crate) fn new(now: Instant, tls: Option<Arc<ClientConfig>>) -> Lane {
        let answer = Answer::default();
        let (state, kind) = (State::Free, Kind::Fast);
        Lane {
            stream: None,
            tls,
            has_tickets: false,
            state,
            answer,
            kind,
            due: now,
            progress: now,
            before: None,
            worker: None,
        }
    }

    pub(crate) fn is_free(&self) -> bool {
        matches!(self.state, State::Free)
    }

    pub(crate) fn stream(&mut self) -> Option<&mut TcpStream> {
        self.stream.as_mut().map(Wire::socket_mut)
    }

    /// Whether the connection goes on with an earlier session of TLS.
    pub(crate) fn is_resumed(&self) -> Option<bool> {
        self.stream.as_ref()?.is_resumed()
    }

    /// Closes the connection and is free for the next request.
    pub(crate) fn close(&mut self) {
        self.stream = None;
        self.before = None;
        self.worker = None;
        self.state = State::Free;
    }

    /// Keeps the connection for the next request, which is the caller's to make.
    pub(crate) fn keep(&mut self, became: Class) {
        self.before = Some((self.kind, became));
        self.worker = self.answer.worker;
        self.state = State::Free;
    }

    /// Looks whether the server has ended the idle connection, and then lets go of it.
    pub(crate) fn look(&mut self) -> Idle {
        let Some(stream) = &mut self.stream else { return Idle::Closed };
        let found = loop {
            match stream.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Idle::Open,
                Ok(0) | Err(_) => break Idle::Closed,
                Ok(_) => break Idle::Excess,
            }
        };
        self.stream = None;
        self.worker = None;
        found
    }

    /// Begins a request on the idle connection. `Closed` if it turns out to be closed before a byte of it was sent.
    pub(crate) fn reuse(&mut self, plan: &Plan, kind: Kind, due: Instant, now: Instant) -> Idle {
        self.begin(kind, due, now);
        let Some(stream) = &mut self.stream else { return Idle::Closed };
        match stream.write(plan.request(kind)) {
            Ok(sent) => self.state = State::Sending { sent },
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.state = State::Sending { sent: 0 },
            Err(_) => {
                self.close();
                return Idle::Closed;
            }
        }
        self.rest_is_sent(plan);
        Idle::Open
    }

    /// Begins a request on a connection of its own.
    ///
    /// # Errors
    /// What socket(2), bind(2) or connect(2) say at once.
    pub(crate) fn connect(
        &mut self,
        plan: &Plan,
        source: Option<Ipv4Addr>,
        kind: Kind,
        due: Instant,
        now: Instant,
    ) -> io::Result<()> {
        self.begin(kind, due, now);
        self.before = None;
        self.stream = Some(Wire::new(connect(plan.address, source)?, self.tls.as_ref())?);
        self.state = State::Connecting;
        Ok(())
    }

    fn begin(&mut self, kind: Kind, due: Instant, now: Instant) {
        self.kind = kind;
        (self.due, self.progress) = (due, now);
        self.answer.clear();
    }

    /// Does what the socket allows. Whatever woke it, only what the system calls return is believed, so that an event
    /// that was meant for an earlier connection of this lane does no harm.
    pub(crate) fn proceed(&mut self, plan: &Plan, buffer: &mut [u8]) -> Step {
        if let State::Connecting | State::Sending { .. } = self.state {
            if let Err(class) = self.send(plan) {
                return Step::Failed(class);
            }
        }
        match self.state {
            State::Waiting | State::Ending(_) => self.receive(plan, buffer),
            _ => Step::Pending,
        }
    }

    fn send(&mut self, plan: &Plan) -> Result<(), Class> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let is_connecting = matches!(self.state, State::Connecting);
        let mut sent = if let State::Sending { sent } = self.state { sent } else { 0 };
        // The outcome of the connect(2) that was begun (connect(2), EINPROGRESS).
        if let Some(error) = stream.socket_mut().take_error().map_err(|_| Class::Local)? {
            return Err(broken(&error, is_connecting, Class::ResetConnecting));
        }
        let request = plan.request(self.kind);
        while sent < request.len() {
            match stream.write(&request[sent..]) {
                Ok(count) => {
                    sent += count;
                    self.state = State::Sending { sent };
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::NotConnected => return Ok(()),
                    _ => return Err(broken(&error, is_connecting, Class::ResetConnecting)),
                },
            }
        }
        self.rest_is_sent(plan);
        Ok(())
    }

    fn rest_is_sent(&mut self, plan: &Plan) {
        if matches!(self.state, State::Sending { sent } if sent == plan.request(self.kind).len()) {
            self.state = State::Waiting;
        }
    }

    /// Reads until there is no more: the events are edges.
    fn receive(&mut self, plan: &Plan, buffer: &mut [u8]) -> Step {
        let Some(stream) = &mut self.stream else { return Step::Pending };
        loop {
            let ended = if let State::Ending(at) = self.state { Some(at) } else { None };
            let count = match stream.read(buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Pending,
                Err(error) => {
                    let reset = match ended {
                        Some(_) => Class::ResetAfterAnswer,
                        None if self.answer.has_begun() => Class::ResetMidAnswer,
                        None => Class::ResetWaiting,
                    };
                    return Step::Failed(broken(&error, false, reset));
                }
            };
            match (count, ended) {
                (0, Some(at)) => return Step::Answered(at),
                (0, None) if self.answer.has_begun() => return Step::Failed(Class::Truncated),
                (0, None) => return Step::Failed(Class::Dropped),
                (_, Some(_)) => return Step::Failed(Class::Bad),
                (_, None) => {}
            }
            let now = Instant::now();
            self.progress = now;
            match self.answer.take(&buffer[..count]) {
                Progress::Partial => {}
                Progress::Whole if plan.is_keep_alive => return Step::Answered(now),
                Progress::Whole => self.state = State::Ending(now),
                Progress::Bad => return Step::Failed(Class::Bad),
            }
        }
    }
}

/// How it is named to who looks for a loss: by the client's address.
impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stream.as_ref().map(|stream| stream.socket().local_addr()) {
            Some(Ok(local)) => write!(f, ", from {local}")?,
            _ => write!(f, ", without an address")?,
        }
        if self.before.is_some() {
            write!(f, ", on a connection that had answered")
        } else {
            Ok(())
        }
    }
}

/// The class of a connection's error; `reset` is what a reset is at this point.
pub(crate) fn broken(error: &io::Error, is_connecting: bool, reset: Class) -> Class {
    match error.kind() {
        ErrorKind::ConnectionRefused if is_connecting => Class::Refused,
        // The end of a handshake is no better than a reset.
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => reset,
        ErrorKind::InvalidData => Class::Bad,
        ErrorKind::TimedOut => Class::TimedOut,
        _ => Class::Local,
    }
}

/// Begins to connect. On loopback each connection has a source address of its own out of 249, since 28 000 ports of one
/// last a second of full load; which port it gets is left to connect(2), which knows that only pairs of addresses have
/// to be unique (ip(7), IP_BIND_ADDRESS_NO_PORT).
fn connect(address: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if let Some(source) = source {
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}
