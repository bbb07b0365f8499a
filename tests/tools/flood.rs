//! cargo run --release --example flood -- 127.0.0.1:8000: a client that costs less than the server, for benchmarks. It
//! takes all answers to be as long as the first one, and looks at their status lines only; the example `load` looks at
//! everything, and costs more than the server does.

#[path = "load/histogram.rs"]
mod histogram;
#[path = "load/schedule.rs"]
#[allow(dead_code)]
mod schedule;
#[path = "load/wire.rs"]
mod wire;

use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustls::ClientConfig;

use histogram::Histogram;
use schedule::{Demand, Schedule};
use wire::{Tls, Wire};

const USAGE: &str = "\
usage: flood ADDR [options]

  --connections N   kept at once (default 64)
  --active N        requests under way at once, at most; the connections take turns (default all)
  --pipeline N      requests sent at once on each, after the answers to those before (default 1)
  --close           a connection for each request
  --field FIELD     a further header field, as in 'Accept: */*'; may be repeated
  --path PATH       what to ask for (default /plaintext); ######## in it or in a field is another number in each
                    request
  --seconds S       how long (default 1)
  --requests N      how many requests instead, rounded up to what is sent at once
  --rate R          R requests a second, due at random whatever the server does, and all that are due are made; prints
                    latencies too, in nanoseconds from when a request was due. It does not wait either
  --seed N          when they are due, the same for the same N (default 1)
  --hold            make a request on each connection, print open=N, and begin when a line comes on standard input; and
                    again with each further line
  --tls             speak TLS 1.3, with AES-128-GCM and X25519, and check no certificate
  --resume          with --close, resume sessions; each of the connections kept at once belongs to a client of its own
  --tls12           TLS 1.2 instead
  --spin            never wait: a client that sleeps has to be woken, at the server's cost

Prints key=value: requests answered, errors, and microseconds; with TLS, the sessions begun anew and those resumed. Exit codes: 0 done, 1 there were errors, 2 usage, 3 it
could not run.
";

fn main() -> ExitCode {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match Flood::new(options).and_then(Flood::run) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("flood: {error}");
            ExitCode::from(3)
        }
    }
}

struct Options {
    address: SocketAddr,
    connections: usize,
    active: usize,
    pipeline: usize,
    is_close: bool,
    request: Vec<u8>,
    /// Where in it the numbers are.
    serials: Vec<usize>,
    duration: Duration,
    requests: Option<u64>,
    demand: Option<Demand>,
    is_holding: bool,
    is_spinning: bool,
    tls: Option<Tls>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
        let address = arguments.next()?.parse().ok()?;
        let (mut connections, mut active, mut pipeline, mut is_close) = (64, usize::MAX, 1, false);
        let (mut fields, mut path, mut seconds, mut requests) = (String::new(), "/plaintext".to_owned(), 1.0, None);
        let (mut rate, mut seed, mut is_holding, mut is_spinning, mut tls) = (None, 1, false, false, None::<Tls>);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--connections" => connections = arguments.next()?.parse().ok()?,
                "--active" => active = arguments.next()?.parse().ok()?,
                "--pipeline" => pipeline = arguments.next()?.parse().ok()?,
                "--close" => is_close = true,
                "--field" => fields += &format!("{}\r\n", arguments.next()?),
                "--path" => path = arguments.next()?,
                "--seconds" => seconds = arguments.next()?.parse().ok()?,
                "--requests" => requests = Some(arguments.next()?.parse().ok()?),
                "--rate" => rate = Some(f64::from(arguments.next()?.parse::<u32>().ok().filter(|rate| *rate > 0)?)),
                "--seed" => seed = arguments.next()?.parse().ok()?,
                "--hold" => is_holding = true,
                "--tls" => _ = tls.get_or_insert_default(),
                "--resume" => tls.get_or_insert_default().resumes = true,
                "--tls12" => tls.get_or_insert_default().is_12 = true,
                "--spin" => is_spinning = true,
                _ => return None,
            }
        }
        if is_close {
            fields += "Connection: close\r\n";
        }
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n").repeat(pipeline);
        let serials = request.match_indices(SERIAL).map(|(at, _)| at).collect();
        let request = request.replace(SERIAL, "00000000").into_bytes();
        let duration = Duration::try_from_secs_f64(seconds).ok()?;
        // One that is due waits for no other, and for no connection.
        let is_single = pipeline == 1 && !is_close && requests.is_none();
        let is_possible = connections > 0 && active > 0 && pipeline > 0 && !(is_close && pipeline > 1);
        (is_possible && (rate.is_none() || is_single)).then_some(Options {
            address,
            connections,
            active: active.min(connections),
            pipeline,
            is_close,
            request,
            serials,
            duration,
            requests,
            demand: rate.map(|rate| Demand { rate: Some(rate), is_random: true, slow: 0.0, churn: 0.0, seed }),
            is_holding,
            is_spinning: is_spinning || rate.is_some(),
            tls,
        })
    }
}

/// What a number takes the place of.
const SERIAL: &str = "########";

struct Flood {
    options: Options,
    poll: Poll,
    lanes: Vec<Lane>,
    /// The lanes without a request; those that waited longest first.
    idle: VecDeque<usize>,
    buffer: Vec<u8>,
    /// Bytes of one answer.
    length: usize,
    pace: Pace,
    begun: u64,
    answered: u64,
    errors: u64,
    opened: u32,
    latencies: Histogram,
    /// Sessions that were begun anew, and that were resumed.
    full: u64,
    resumed: u64,
}

/// A connection, and how many bytes of the answers have come on it.
struct Lane {
    stream: Wire<TcpStream>,
    /// Who begins TLS on it.
    client: Option<Arc<ClientConfig>>,
    received: usize,
    /// A handshake has to be made first.
    is_unsent: bool,
    is_idle: bool,
    due: Instant,
}

/// When requests are made.
enum Pace {
    /// After those before, until there were so many.
    Answers(u64),
    /// When they are due, and the next one is at this moment.
    Schedule { schedule: Schedule, start: Instant, due: Instant },
}

impl Flood {
    fn new(options: Options) -> io::Result<Flood> {
        let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
        let length = measure(&options)?;
        let poll = Poll::new()?;
        let (lanes, buffer) = (Vec::with_capacity(options.connections), vec![0; 256 * 1024]);
        Ok(Flood {
            options,
            poll,
            lanes,
            idle: VecDeque::new(),
            buffer,
            length,
            pace: Pace::Answers(0),
            begun: 0,
            answered: 0,
            errors: 0,
            opened: 0,
            latencies: Histogram::default(),
            full: 0,
            resumed: 0,
        })
    }

    /// Returns how many errors there were.
    fn run(mut self) -> io::Result<u64> {
        for index in 0..self.options.connections {
            // Clients that resume nothing may as well be one.
            let last = self.lanes.last().and_then(|lane| lane.client.clone());
            let client = match self.options.tls {
                Some(tls) if tls.resumes || last.is_none() => Some(tls.client().map_err(io::Error::other)?),
                _ => last,
            };
            let stream = self.connect(index, client.as_ref())?;
            let (received, is_unsent, is_idle, due) = (0, false, true, Instant::now());
            self.lanes.push(Lane { stream, client, received, is_unsent, is_idle, due });
            self.idle.push_back(index);
        }
        if !self.options.is_holding {
            self.measure()?;
            return Ok(self.errors);
        }
        self.pace = Pace::Answers(self.lanes.len() as u64);
        self.load(None)?;
        println!("open={}", self.lanes.len());
        io::stdin().lock().read_line(&mut String::new())?;
        loop {
            self.measure()?;
            // Those under way when the time was over are answered before the next ones are made.
            self.pace = Pace::Answers(0);
            self.load(None)?;
            if io::stdin().lock().read_line(&mut String::new())? == 0 {
                return Ok(self.errors);
            }
        }
    }

    /// Makes the requests that the options ask for, and prints what came of them.
    fn measure(&mut self) -> io::Result<()> {
        (self.begun, self.answered, self.full, self.resumed) = (0, 0, 0, 0);
        self.latencies = Histogram::default();
        let start = Instant::now();
        self.pace = match self.options.demand.clone() {
            None => Pace::Answers(self.options.requests.unwrap_or(u64::MAX)),
            Some(demand) => {
                let mut schedule = Schedule::new(demand);
                let first = schedule.draw();
                Pace::Schedule { schedule, start, due: start + first.after.unwrap_or_default() }
            }
        };
        let is_counted = self.options.requests.is_some();
        self.load(if is_counted { None } else { start.checked_add(self.options.duration) })?;
        let us = start.elapsed().as_micros();
        print!("requests={} errors={} us={us} length={}", self.answered, self.errors, self.length);
        if self.options.tls.is_some() {
            print!(" full={} resumed={}", self.full, self.resumed);
        }
        if let Pace::Schedule { .. } = self.pace {
            self.latencies.summary().iter().for_each(|(name, value)| print!(" {name}={value}"));
        }
        println!();
        Ok(())
    }

    /// Makes requests until then, or until there were enough.
    fn load(&mut self, end: Option<Instant>) -> io::Result<()> {
        for _ in 0..self.options.active {
            self.follow()?;
        }
        let mut events = Events::with_capacity(1024);
        let wait = if self.options.is_spinning { Duration::ZERO } else { Duration::from_millis(10) };
        while !self.is_over(end) {
            // Looking costs a system call, so it looks often only where many answers come at once.
            for _ in 0..16 {
                self.begin_due(end)?;
                match self.poll.poll(&mut events, Some(wait)) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    result => result?,
                }
                for event in &events {
                    self.receive(event.token().0)?;
                }
            }
        }
        Ok(())
    }

    fn is_over(&self, end: Option<Instant>) -> bool {
        let is_all_answered = self.idle.len() == self.lanes.len();
        match &self.pace {
            Pace::Answers(_) => is_all_answered || end.is_some_and(|end| Instant::now() >= end),
            // What was due is waited for: to leave it out would leave out the longest latencies.
            Pace::Schedule { due, .. } => is_all_answered && end.is_some_and(|end| *due >= end),
        }
    }

    /// Waits for the connection: on loopback it comes at once.
    fn connect(&mut self, index: usize, client: Option<&Arc<ClientConfig>>) -> io::Result<Wire<TcpStream>> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_tcp_nodelay(true)?;
        if self.options.address.ip().is_loopback() {
            // One address has too few ports, also because of those in TIME-WAIT. Which one is left to connect(2), which
            // knows that only pairs of addresses have to be unique (ip(7)).
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            let source = Ipv4Addr::new(127, 0, 1, (1 + self.opened % 250) as u8);
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        self.opened = self.opened.wrapping_add(1);
        socket.connect(&self.options.address.into())?;
        socket.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(socket.into());
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
        Wire::new(stream, client)
    }

    /// Makes the next request, where it is made after an answer.
    fn follow(&mut self) -> io::Result<()> {
        match self.pace {
            Pace::Answers(wanted) if self.begun < wanted => self.send(None),
            _ => Ok(()),
        }
    }

    /// Makes the requests that are due, as far as there are connections.
    fn begin_due(&mut self, end: Option<Instant>) -> io::Result<()> {
        while let Pace::Schedule { schedule, start, due } = &mut self.pace {
            let is_full = self.lanes.len() - self.idle.len() >= self.options.active;
            if is_full || *due > Instant::now() || end.is_some_and(|end| *due >= end) {
                break;
            }
            let next = *start + schedule.draw().after.unwrap_or_default();
            let due = std::mem::replace(due, next);
            self.send(Some(due))?;
        }
        Ok(())
    }

    fn send(&mut self, due: Option<Instant>) -> io::Result<()> {
        let Some(index) = self.idle.pop_front() else { return Ok(()) };
        let lane = &mut self.lanes[index];
        (lane.is_idle, lane.received) = (false, 0);
        if let Some(due) = due {
            lane.due = due;
        }
        let Options { request, serials, pipeline, .. } = &mut self.options;
        let each = request.len() / *pipeline;
        for at in serials {
            let serial = format!("{:08}", (self.begun + (*at / each) as u64) % 100_000_000);
            request[*at..*at + SERIAL.len()].copy_from_slice(serial.as_bytes());
        }
        self.begun += *pipeline as u64;
        lane.is_unsent = true;
        lane.send(request)
    }

    fn receive(&mut self, index: usize) -> io::Result<()> {
        while !self.lanes[index].is_idle {
            let lane = &mut self.lanes[index];
            if lane.is_unsent {
                lane.send(&self.options.request)?;
            }
            if lane.is_unsent {
                return Ok(());
            }
            let count = match lane.stream.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                result => result?,
            };
            self.check(index, count)?;
            let lane = &mut self.lanes[index];
            lane.received += count;
            if lane.received == self.length * self.options.pipeline && (count == 0 || !self.options.is_close) {
                return self.finish(index);
            }
            // Events are edges (epoll(7)): there may be more, or the end. A read of TLS ends with a record.
            if count < self.buffer.len() && !self.options.is_close && self.options.tls.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn finish(&mut self, index: usize) -> io::Result<()> {
        self.answered += self.options.pipeline as u64;
        if let Pace::Schedule { .. } = self.pace {
            self.latencies.record(self.lanes[index].due.elapsed().as_nanos().try_into().unwrap_or(u64::MAX));
        }
        if self.options.is_close {
            self.count_session(index);
            let client = self.lanes[index].client.clone();
            self.lanes[index].stream = self.connect(index, client.as_ref())?;
        }
        self.lanes[index].is_idle = true;
        self.idle.push_back(index);
        self.follow()
    }

    fn count_session(&mut self, index: usize) {
        match self.lanes[index].stream.is_resumed() {
            Some(true) => self.resumed += 1,
            Some(false) => self.full += 1,
            None => {}
        }
    }

    /// Looks at each status line within the bytes that have come.
    fn check(&mut self, index: usize, count: usize) -> io::Result<()> {
        let received = self.lanes[index].received;
        let expected = self.length * self.options.pipeline;
        if received + count > expected || (count == 0 && received < expected) {
            return Err(io::Error::other(format!("an answer has other than {} bytes", self.length)));
        }
        let first = received.next_multiple_of(self.length) - received;
        let lines = (first..count).step_by(self.length).map(|at| &self.buffer[at..count]);
        self.errors += lines.filter(|line| line.len() >= 12 && &line[9..12] != b"200").count() as u64;
        Ok(())
    }
}

impl Lane {
    /// Sends a request, or as much of a handshake as can be made before it.
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        match self.stream.write(request) {
            Ok(count) if count == request.len() => self.is_unsent = false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) => return Err(io::Error::other("a request was not sent at once")),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// How long an answer is, by its Content-Length.
fn measure(options: &Options) -> io::Result<usize> {
    let stream = std::net::TcpStream::connect(options.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let client = options.tls.map(Tls::client).transpose().map_err(io::Error::other)?;
    let mut stream = Wire::new(stream, client.as_ref())?;
    stream.write_all(&options.request[..options.request.len() / options.pipeline])?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer)?;
        bytes.extend_from_slice(&buffer[..count]);
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut fields);
        if let Ok(httparse::Status::Complete(len)) = head.parse(&bytes) {
            let length = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("Content-Length"));
            let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse::<usize>().ok());
            return match (head.code, length) {
                (Some(200), Some(length)) => Ok(len + length),
                _ => Err(io::Error::other("the first answer is no 200 with a Content-Length")),
            };
        }
        if count == 0 {
            return Err(io::Error::other("the server closes without an answer"));
        }
    }
}
