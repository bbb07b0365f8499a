//! Talks to a pool's admin process by HTTP/1.0, with one connection per request. Another program may listen on the
//! address, so all reads are bounded, in bytes and in time.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use super::output::printable;

/// How long a response may take, to its last byte. The admin process waits for nobody, so this is generous.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for an event before asking the callback whether to go on.
const TICK: Duration = Duration::from_millis(200);

/// How many times in a row the event stream may break off early.
const BREAKS_MAX: u32 = 100;

/// The maximum sizes of a head, of a line with an event, and of a body. The status of a thousand workers is a megabyte.
const HEAD_MAX: u64 = 64 << 10;
const LINE_MAX: u64 = 64 << 10;
const BODY_MAX: u64 = 16 << 20;

/// How the Server field of an admin process begins.
const SERVER: &str = "forkpool-admin/";

#[derive(Debug)]
pub(super) struct Client {
    pub(super) address: String,
    /// The token that allows commands over TCP.
    pub(super) token: Option<String>,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing listens on the address.
    Gone(String),
    /// The connection ended early, as it does when the admin process dies or its pool ends.
    Broken(String),
    /// The connection was refused, took too long, or is not that of an admin process.
    Other(String),
}

impl Failure {
    pub(super) fn text(self) -> String {
        let (Failure::Gone(text) | Failure::Broken(text) | Failure::Other(text)) = self;
        text
    }
}

/// A response of which the head has been read.
struct Answer {
    status: u16,
    /// The length of the body, if the head says it.
    length: Option<u64>,
    body: BufReader<DeadlineReader>,
}

/// A socket whose reads end at a deadline, however few bytes come at a time.
struct DeadlineReader {
    socket: Socket,
    end: Instant,
}

impl Read for DeadlineReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.socket.set_read_timeout(Some(left))?;
        self.socket.read(bytes)
    }
}

impl Client {
    /// Makes a request, and returns the body of the response.
    pub(super) fn ask(&self, method: &str, target: &str) -> Result<String, Failure> {
        match self.fetch(method, target)? {
            (200..300, body) => Ok(body),
            (_, body) => {
                let answer = serde_json::from_str::<Value>(&body).unwrap_or_default();
                let why = answer["error"].as_str().map_or_else(|| body.trim(), str::trim);
                Err(Failure::Other(format!("the pool at {} refuses: {}", self.address, printable(why).escape_debug())))
            }
        }
    }

    /// Returns the status as JSON.
    pub(super) fn status(&self) -> Result<Value, Failure> {
        self.object("GET", "/status.json")
    }

    /// Makes a request whose response is a JSON object.
    pub(super) fn object(&self, method: &str, target: &str) -> Result<Value, Failure> {
        let body = self.ask(method, target)?;
        serde_json::from_str(&body).map_err(|error| self.is_other(&format!("the pool sent invalid JSON: {error}")))
    }

    /// Makes a request, and returns the status and body of the response, fit for printing.
    pub(super) fn fetch(&self, method: &str, target: &str) -> Result<(u16, String), Failure> {
        let Answer { status, length, body } = self.open(method, target)?;
        if length.is_some_and(|length| length > BODY_MAX) {
            return Err(self.is_other("its response is too long"));
        }
        let mut text = String::new();
        let read = body.take(length.unwrap_or(BODY_MAX + 1)).read_to_string(&mut text);
        let read = read.map_err(|error| self.failed(&error))? as u64;
        match length {
            Some(length) if read < length => Err(self.failed(&ErrorKind::UnexpectedEof.into())),
            _ if read > BODY_MAX => Err(self.is_other("its response is too long")),
            _ => Ok((status, printable(&text))),
        }
    }

    /// Calls the callback with the text of each event after number `seq`, and with `None` whenever some time has
    /// passed, until it returns something. Returns `None` when the pool has ended.
    pub(super) fn follow(
        &self,
        mut seq: u64,
        tell: &mut dyn FnMut(Option<&str>) -> Option<u8>,
    ) -> Result<Option<u8>, Failure> {
        let mut breaks = 0;
        loop {
            let began = Instant::now();
            match self.open("GET", &format!("/events?after={seq}")) {
                Ok(Answer { status: 200, body, .. }) => {
                    let found = self.events(body, &mut seq, tell)?;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                Ok(Answer { status, .. }) => {
                    return Err(Failure::Other(format!(
                        "the pool at {} sends no events: status {status}",
                        self.address
                    )))
                }
                Err(Failure::Gone(_)) => return Ok(None),
                Err(Failure::Broken(_)) => {}
                Err(other) => return Err(other),
            }
            breaks = if began.elapsed() < TIMEOUT { breaks + 1 } else { 0 };
            if breaks > BREAKS_MAX {
                return Err(Failure::Other(format!("the pool at {} keeps closing the connection", self.address)));
            }
            // An admin process that was killed is replaced at once.
            std::thread::sleep(TICK / 4);
            if let Some(found) = tell(None) {
                return Ok(Some(found));
            }
        }
    }

    /// Reads events for as long as the connection lasts.
    fn events(
        &self,
        mut stream: BufReader<DeadlineReader>,
        seq: &mut u64,
        tell: &mut dyn FnMut(Option<&str>) -> Option<u8>,
    ) -> Result<Option<u8>, Failure> {
        let mut line = Vec::new();
        let mut last_event = Instant::now();
        loop {
            stream.get_mut().end = Instant::now() + TICK;
            // An incomplete line stays in the buffer when the time is over.
            let left = LINE_MAX.saturating_sub(line.len() as u64);
            let found = match stream.by_ref().take(left).read_until(b'\n', &mut line) {
                Ok(_) if line.last() != Some(&b'\n') && line.len() as u64 == LINE_MAX => {
                    return Err(self.is_other("it sends an event that is too long"));
                }
                Ok(_) if line.last() != Some(&b'\n') => return Ok(None),
                Ok(_) => {
                    let event: Value = serde_json::from_slice(&line).unwrap_or_default();
                    let told = event["seq"].as_u64().zip(event["text"].as_str());
                    let (number, text) = told.ok_or_else(|| self.is_other("it sends something other than an event"))?;
                    (*seq, last_event) = (number, Instant::now());
                    line.clear();
                    tell(Some(&printable(text)))
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => tell(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => None,
                Err(_) => return Ok(None),
            };
            if found.is_some() {
                return Ok(found);
            }
            // The process may have nothing to say, or it may hang.
            if last_event.elapsed() >= TIMEOUT {
                match self.ask("GET", "/healthz") {
                    Err(Failure::Other(problem)) => return Err(Failure::Other(problem)),
                    _ => last_event = Instant::now(),
                }
            }
        }
    }

    /// Sends a request and reads the head of the response, which must come from an admin process.
    fn open(&self, method: &str, target: &str) -> Result<Answer, Failure> {
        let connected = self.connect().map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                Failure::Gone(format!("no pool answers at {}: is it running with --admin? ({error})", self.address))
            }
            _ => Failure::Other(format!("cannot connect to the pool at {}: {error}", self.address)),
        })?;
        let (head, body) = self.exchange(connected, method, target).map_err(|error| self.failed(&error))?;
        let (line, fields) = head.split_once("\r\n").unwrap_or_default();
        let field = |name: &str| {
            let mut fields = fields.lines().filter_map(|field| field.split_once(':'));
            fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        match status {
            Some(status) if field("server").is_some_and(|server| server.starts_with(SERVER)) => {
                Ok(Answer { status, length: field("content-length").and_then(|length| length.parse().ok()), body })
            }
            Some(status) => Err(self.is_other(&format!("it responds with status {status}"))),
            None => Err(self.is_other("it does not speak HTTP")),
        }
    }

    fn exchange(
        &self,
        mut socket: Socket,
        method: &str,
        target: &str,
    ) -> io::Result<(String, BufReader<DeadlineReader>)> {
        socket.set_write_timeout(Some(TIMEOUT))?;
        // Reading the status needs no token, so it is not sent.
        let tells = method == "POST" || target.starts_with("/events");
        let token = self.token.as_ref().filter(|_| tells);
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!("{method} {target} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n{token}\r\n");
        socket.write_all(request.as_bytes())?;
        let mut stream = BufReader::new(DeadlineReader { socket, end: Instant::now() + TIMEOUT });
        let mut head = Vec::new();
        let mut rest = stream.by_ref().take(HEAD_MAX);
        while !head.ends_with(b"\r\n\r\n") {
            if rest.read_until(b'\n', &mut head)? == 0 {
                return Err(match rest.limit() {
                    0 => io::Error::other("the head of its response is too long"),
                    _ => ErrorKind::UnexpectedEof.into(),
                });
            }
        }
        Ok((String::from_utf8_lossy(&head).into_owned(), stream))
    }

    fn connect(&self) -> io::Result<Socket> {
        let connect = |domain, address: &SockAddr| {
            let socket = Socket::new(domain, Type::STREAM, None)?;
            socket.connect_timeout(address, TIMEOUT).map(|()| socket)
        };
        if let Some(path) = self.address.strip_prefix("unix:") {
            return connect(Domain::UNIX, &SockAddr::unix(path)?);
        }
        // Accepts an address for all interfaces, and one as the log shows it. Does not resolve host names; neither does
        // the pool.
        let host = self.address.strip_prefix("http://").unwrap_or(&self.address).trim_end_matches('/');
        let local = host.strip_prefix("localhost").unwrap_or(host);
        let address = if local.starts_with(':') { format!("127.0.0.1{local}") } else { host.to_owned() };
        let address: SocketAddr =
            address.parse().map_err(|_| io::Error::other("not an address; write unix:PATH or 127.0.0.1:9000"))?;
        connect(Domain::for_address(address), &address.into())
    }

    fn failed(&self, error: &io::Error) -> Failure {
        let text = format!("the pool at {} does not answer: {error}", self.address);
        match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Failure::Broken(text),
            ErrorKind::WouldBlock => {
                Failure::Other(format!("the pool at {} does not answer within {TIMEOUT:?}", self.address))
            }
            _ => Failure::Other(text),
        }
    }

    /// The error for an address that is not that of an admin process.
    fn is_other(&self, sign: &str) -> Failure {
        let address = &self.address;
        Failure::Other(format!("the server at {address} is not a pool's admin process: {sign}"))
    }
}
