//! cargo run --release --example flood -- 127.0.0.1:8000: a client that costs less than the server, for benchmarks. It
//! takes all answers to be as long as the first one, and looks at their status lines only; the example `load` looks at
//! everything, and costs more than the server does.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

const USAGE: &str = "\
usage: flood ADDR [options]

  --connections N   kept at once (default 64)
  --pipeline N      requests sent at once on each, after the answers to those before (default 1)
  --close           a connection for each request
  --field FIELD     a further header field, as in 'Accept: */*'; may be repeated
  --path PATH       what to ask for (default /plaintext)
  --seconds S       how long (default 1)
  --requests N      how many requests instead, rounded up to what is sent at once
  --spin            never wait: a client that sleeps has to be woken, at the server's cost

Prints key=value: requests answered, errors, and microseconds. Exit codes: 0 done, 1 there were errors, 2 usage, 3 it
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
    pipeline: usize,
    is_close: bool,
    request: Vec<u8>,
    duration: Duration,
    requests: Option<u64>,
    is_spinning: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
        let address = arguments.next()?.parse().ok()?;
        let (mut connections, mut pipeline, mut is_close, mut is_spinning) = (64, 1, false, false);
        let (mut fields, mut path, mut seconds, mut requests) = (String::new(), "/plaintext".to_owned(), 1.0, None);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--connections" => connections = arguments.next()?.parse().ok()?,
                "--pipeline" => pipeline = arguments.next()?.parse().ok()?,
                "--close" => is_close = true,
                "--field" => fields += &format!("{}\r\n", arguments.next()?),
                "--path" => path = arguments.next()?,
                "--seconds" => seconds = arguments.next()?.parse().ok()?,
                "--requests" => requests = Some(arguments.next()?.parse().ok()?),
                "--spin" => is_spinning = true,
                _ => return None,
            }
        }
        if is_close {
            fields += "Connection: close\r\n";
        }
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n").repeat(pipeline).into_bytes();
        let duration = Duration::try_from_secs_f64(seconds).ok()?;
        let is_possible = connections > 0 && pipeline > 0 && !(is_close && pipeline > 1);
        is_possible.then_some(Options {
            address,
            connections,
            pipeline,
            is_close,
            request,
            duration,
            requests,
            is_spinning,
        })
    }
}

struct Flood {
    options: Options,
    poll: Poll,
    lanes: Vec<Lane>,
    buffer: Vec<u8>,
    /// Bytes of one answer.
    length: usize,
    begun: u64,
    answered: u64,
    errors: u64,
    opened: u32,
}

/// A connection, and how many bytes of the answers have come on it.
struct Lane {
    stream: TcpStream,
    received: usize,
    is_idle: bool,
}

impl Flood {
    fn new(options: Options) -> io::Result<Flood> {
        let length = measure(&options)?;
        let poll = Poll::new()?;
        let (lanes, buffer) = (Vec::with_capacity(options.connections), vec![0; 256 * 1024]);
        Ok(Flood { options, poll, lanes, buffer, length, begun: 0, answered: 0, errors: 0, opened: 0 })
    }

    /// Returns how many errors there were.
    fn run(mut self) -> io::Result<u64> {
        for index in 0..self.options.connections {
            let stream = self.connect(index)?;
            self.lanes.push(Lane { stream, received: 0, is_idle: true });
        }
        let start = Instant::now();
        let end =
            start + if self.options.requests.is_some() { Duration::from_secs(3600) } else { self.options.duration };
        for index in 0..self.lanes.len() {
            self.send(index)?;
        }
        let mut events = Events::with_capacity(1024);
        let wait = if self.options.is_spinning { Duration::ZERO } else { Duration::from_millis(10) };
        loop {
            let now = Instant::now();
            if now >= end || self.lanes.iter().all(|lane| lane.is_idle) {
                let us = (now - start).as_micros();
                println!("requests={} errors={} us={us} length={}", self.answered, self.errors, self.length);
                return Ok(self.errors);
            }
            // Looking costs a system call, so it looks often only where many answers come at once.
            for _ in 0..16 {
                match self.poll.poll(&mut events, Some(wait)) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    result => result?,
                }
                for event in &events {
                    self.receive(event.token().0)?;
                }
            }
        }
    }

    /// Waits for the connection: on loopback it comes at once.
    fn connect(&mut self, index: usize) -> io::Result<TcpStream> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_tcp_nodelay(true)?;
        if self.options.is_close {
            // One address has too few ports for all that end in TIME-WAIT.
            socket.set_reuse_address(true)?;
            let source = Ipv4Addr::new(127, 0, 1, (1 + self.opened % 250) as u8);
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        self.opened = self.opened.wrapping_add(1);
        socket.connect(&self.options.address.into())?;
        socket.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(socket.into());
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
        Ok(stream)
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let lane = &mut self.lanes[index];
        lane.is_idle = self.options.requests.is_some_and(|requests| self.begun >= requests);
        if !lane.is_idle {
            self.begun += self.options.pipeline as u64;
            lane.received = 0;
            lane.stream.write_all(&self.options.request)?;
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) -> io::Result<()> {
        while !self.lanes[index].is_idle {
            let lane = &mut self.lanes[index];
            let count = match lane.stream.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                result => result?,
            };
            self.check(index, count)?;
            let lane = &mut self.lanes[index];
            lane.received += count;
            if lane.received == self.length * self.options.pipeline && (count == 0 || !self.options.is_close) {
                self.answered += self.options.pipeline as u64;
                if self.options.is_close {
                    self.lanes[index].stream = self.connect(index)?;
                }
                return self.send(index);
            }
            // Events are edges (epoll(7)): there may be more, or the end.
            if count < self.buffer.len() && !self.options.is_close {
                return Ok(());
            }
        }
        Ok(())
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

/// How long an answer is, by its Content-Length.
fn measure(options: &Options) -> io::Result<usize> {
    let mut stream = std::net::TcpStream::connect(options.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
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
