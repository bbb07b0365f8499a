//! cargo run --release --example kept -- 127.0.0.1:8000: keeps connections, and notices every one that is closed.
//! `scripts/bench kept` does to the server what must close none.

#[allow(dead_code, reason = "the example load uses the rest")]
#[path = "load/answer.rs"]
mod answer;
#[path = "load/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use answer::{Answer, Progress};
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use wire::{Tls, Wire};

const USAGE: &str = "\
usage: kept ADDR [--connections N] [--busy N] [--every MS] [--path PATH] [--tls]

Opens N connections (default 10000), makes a request on each, and never opens another. For each line on standard input
it makes a request on each that is still open, and prints one line: how many were answered since the line before, how
many were closed by the server between two requests or by a last answer, how many were lost with a request in progress,
how long it took, and how many connections each worker (X-Pid) has answered on. The first BUSY connections
(default 0) also make a request every MS milliseconds (default 20). With --tls it speaks TLS, and checks no certificate.

It ends with standard input. Exit codes: 0 all were kept, 1 some were closed or lost, 2 usage, 3 it could not run.
";

/// So many requests are in progress at once, besides those of the busy connections.
const BATCH: usize = 256;

/// A server that does not answer for so long does not answer.
const CLIENT_TURN_MAX: Duration = Duration::from_secs(30);

const STDIN: Token = Token(usize::MAX);

fn main() -> ExitCode {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match Client::open(options).and_then(Client::run) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kept: {error}");
            ExitCode::from(3)
        }
    }
}

struct Options {
    address: SocketAddr,
    connections: usize,
    busy: usize,
    every: Duration,
    path: String,
    tls: Option<Tls>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
        let address = arguments.next()?.parse().ok()?;
        let (every, path) = (Duration::from_millis(20), "/plaintext".to_owned());
        let mut options = Options { address, connections: 10_000, busy: 0, every, path, tls: None };
        while let Some(argument) = arguments.next() {
            if argument == "--tls" {
                options.tls = Some(Tls::default());
                continue;
            }
            let value = arguments.next()?;
            match argument.as_str() {
                "--connections" => options.connections = value.parse().ok()?,
                "--busy" => options.busy = value.parse().ok()?,
                "--every" => options.every = Duration::from_millis(value.parse().ok()?),
                "--path" => options.path = value,
                _ => return None,
            }
        }
        (options.busy <= options.connections).then_some(options)
    }
}

struct Lane {
    /// Until the server has ended it.
    stream: Option<Wire<TcpStream>>,
    /// Since when a request is in progress.
    asked: Option<Instant>,
    /// Whether it is among those that are to answer.
    is_wanted: bool,
    answer: Answer,
}

#[derive(Default)]
struct Counts {
    answered: u64,
    closed: u64,
    lost: u64,
    workers: BTreeMap<u32, u64>,
}

struct Client {
    options: Options,
    request: Vec<u8>,
    poll: Poll,
    lanes: Vec<Lane>,
    counts: Counts,
    /// How many were closed or lost in all.
    gone: u64,
    /// The next lane to ask, if each is asked now, and since when.
    next: Option<(usize, Instant)>,
    /// How many of those are not answered yet.
    waiting: usize,
    next_busy: Instant,
    next_check: Instant,
}

impl Client {
    fn open(options: Options) -> io::Result<Client> {
        let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
        let poll = Poll::new()?;
        let descriptor = io::stdin().as_raw_fd();
        poll.registry().register(&mut SourceFd(&descriptor), STDIN, Interest::READABLE)?;
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", options.path, options.address).into_bytes();
        let mut lanes = Vec::with_capacity(options.connections);
        let client = options.tls.map(Tls::client).transpose().map_err(io::Error::other)?;
        for index in 0..options.connections {
            // Blocks until the server's kernel has the connection, so the queue of the listener does not overflow.
            let stream = std::net::TcpStream::connect(options.address)?;
            stream.set_nodelay(true)?;
            let mut stream = Wire::new(stream, client.as_ref())?.open(|stream| {
                stream.set_nonblocking(true)?;
                Ok(TcpStream::from_std(stream))
            })?;
            poll.registry().register(stream.socket_mut(), Token(index), Interest::READABLE)?;
            lanes.push(Lane { stream: Some(stream), asked: None, is_wanted: false, answer: Answer::default() });
        }
        let (now, counts) = (Instant::now(), Counts::default());
        let next = Some((0, now));
        let (next_busy, next_check) = (now, now + CLIENT_TURN_MAX);
        Ok(Client { options, request, poll, lanes, counts, gone: 0, next, waiting: 0, next_busy, next_check })
    }

    /// Returns how many connections were not kept.
    fn run(mut self) -> io::Result<u64> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            self.ask();
            self.ask_busy();
            self.report();
            let wait = if self.options.busy > 0 { self.options.every / 2 } else { CLIENT_TURN_MAX / 10 };
            match self.poll.poll(&mut events, Some(wait.max(Duration::from_millis(1)))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    STDIN if !self.is_told()? => return Ok(self.gone),
                    STDIN => {}
                    Token(index) => self.read(index, &mut buffer),
                }
            }
            self.check();
        }
    }

    /// Whether standard input goes on.
    fn is_told(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 64];
        // Without the buffer of the standard library, in which a second line would be forgotten.
        let len = nix::unistd::read(io::stdin(), &mut bytes)?;
        if bytes[..len].contains(&b'\n') {
            self.next = Some((0, Instant::now()));
        }
        Ok(len > 0)
    }

    /// Makes the requests that were asked for, as many as may be in progress.
    fn ask(&mut self) {
        let Some((mut index, begun)) = self.next else { return };
        while index < self.lanes.len() && self.waiting < BATCH {
            if self.lanes[index].stream.is_some() {
                self.lanes[index].is_wanted = true;
                self.waiting += 1;
                self.send(index);
            }
            index += 1;
        }
        self.next = Some((index, begun));
    }

    fn ask_busy(&mut self) {
        let now = Instant::now();
        if self.options.busy == 0 || now < self.next_busy {
            return;
        }
        self.next_busy = now + self.options.every;
        (0..self.options.busy).for_each(|index| self.send(index));
    }

    /// Makes a request, unless one is in progress, whose answer will do.
    fn send(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        let Some(stream) = lane.stream.as_mut().filter(|_| lane.asked.is_none()) else { return };
        match stream.write(&self.request) {
            Ok(sent) if sent == self.request.len() => lane.asked = Some(Instant::now()),
            // It was closed, and the event is to come.
            _ => self.end(index, false),
        }
    }

    fn read(&mut self, index: usize, buffer: &mut [u8]) {
        loop {
            let lane = &mut self.lanes[index];
            let Some(stream) = &mut lane.stream else { return };
            match stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => {
                    let is_lost = lane.asked.is_some();
                    return self.end(index, is_lost);
                }
                Ok(_) if lane.asked.is_none() => return self.end(index, true),
                Ok(len) => match lane.answer.take(&buffer[..len]) {
                    Progress::Partial => {}
                    Progress::Whole => self.answered(index),
                    Progress::Bad => return self.end(index, true),
                },
            }
        }
    }

    fn answered(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        lane.asked = None;
        self.counts.answered += 1;
        let (worker, closes) = (lane.answer.worker, lane.answer.closes);
        lane.answer.clear();
        if std::mem::take(&mut lane.is_wanted) {
            self.waiting -= 1;
            if let Some(worker) = worker {
                *self.counts.workers.entry(worker).or_default() += 1;
            }
        }
        if closes {
            self.end(index, false);
        }
    }

    /// The server has ended the connection.
    fn end(&mut self, index: usize, is_lost: bool) {
        let lane = &mut self.lanes[index];
        (lane.stream, lane.asked) = (None, None);
        self.waiting -= usize::from(std::mem::take(&mut lane.is_wanted));
        *if is_lost { &mut self.counts.lost } else { &mut self.counts.closed } += 1;
        self.gone += 1;
    }

    /// Looks now and then for requests that are not answered.
    fn check(&mut self) {
        let now = Instant::now();
        if now < self.next_check {
            return;
        }
        self.next_check = now + CLIENT_TURN_MAX / 10;
        for index in 0..self.lanes.len() {
            if self.lanes[index].asked.is_some_and(|asked| now.duration_since(asked) > CLIENT_TURN_MAX) {
                self.end(index, true);
            }
        }
    }

    /// All that were asked have answered or ended.
    fn report(&mut self) {
        let Some((index, begun)) = self.next else { return };
        if index < self.lanes.len() || self.waiting > 0 {
            return;
        }
        self.next = None;
        let Counts { answered, closed, lost, workers } = std::mem::take(&mut self.counts);
        let open = self.lanes.len() as u64 - self.gone;
        let ms = begun.elapsed().as_millis();
        let workers: String = workers.iter().map(|(pid, count)| format!(" worker.{pid}={count}")).collect();
        println!("open={open} answered={answered} closed={closed} lost={lost} ms={ms}{workers}");
    }
}
