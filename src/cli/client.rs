//! Talks to a pool's admin process: HTTP/1.0, a connection for each request.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// How long an answer may take: the admin process asks nobody else.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long nothing may happen until whoever follows the events is asked whether that is enough.
const TICK: Duration = Duration::from_millis(200);

/// The most that is read of an answer.
const ANSWER_MAX: u64 = 64 << 20;

#[derive(Debug)]
pub(super) struct Client {
    pub(super) address: String,
    /// Lets it give commands over TCP.
    pub(super) token: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody listens there.
    Gone(String),
    /// The connection ended early, as it does when the admin process dies or its pool ends.
    Broken(String),
    /// It was refused, or takes too long.
    Other(String),
}

impl Failure {
    pub(super) fn text(self) -> String {
        let (Failure::Gone(text) | Failure::Broken(text) | Failure::Other(text)) = self;
        text
    }
}

impl Client {
    /// Makes a request, and returns the body of the answer.
    pub(super) fn ask(&self, method: &str, target: &str) -> Result<String, Failure> {
        let (mut stream, status, length) = self.open(method, target)?;
        let mut body = String::new();
        stream.by_ref().take(ANSWER_MAX).read_to_string(&mut body).map_err(|error| self.failed(&error))?;
        if length.is_some_and(|length| body.len() < length) {
            return Err(self.failed(&ErrorKind::UnexpectedEof.into()));
        }
        match status {
            200..300 => Ok(printable(&body)),
            _ => {
                let why = value(&body, "error").map_or_else(|| body.trim().escape_debug().to_string(), unquoted);
                Err(Failure::Other(format!("the pool at {} refuses: {why}", self.address)))
            }
        }
    }

    /// Tells of each event after the one of number `seq`, by its text, and by None that some time has passed, until that
    /// returns something. Returns None when the pool has ended.
    pub(super) fn follow(
        &self,
        mut seq: u64,
        tell: &mut dyn FnMut(Option<&str>) -> Option<u8>,
    ) -> Result<Option<u8>, Failure> {
        loop {
            match self.open("GET", &format!("/events?after={seq}")) {
                Ok((stream, 200, _)) => {
                    let found = events(stream, &mut seq, tell);
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                Ok((_, status, _)) => return Err(Failure::Other(format!("{} answers with {status}", self.address))),
                Err(Failure::Gone(_)) => return Ok(None),
                Err(Failure::Broken(_)) => {}
                Err(other) => return Err(other),
            }
            // An admin process that was killed is started anew at once.
            std::thread::sleep(TICK / 4);
            if let Some(found) = tell(None) {
                return Ok(Some(found));
            }
        }
    }

    /// Sends a request and reads the answer's head: what follows, the status, and the length if it is said.
    fn open(&self, method: &str, target: &str) -> Result<(BufReader<Socket>, u16, Option<usize>), Failure> {
        let connected = self.connect().map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                Failure::Gone(format!("no pool answers at {}: is it running with --admin? ({error})", self.address))
            }
            _ => Failure::Other(format!("cannot connect to the pool at {}: {error}", self.address)),
        })?;
        self.exchange(connected, method, target).map_err(|error| self.failed(&error))
    }

    fn exchange(
        &self,
        mut socket: Socket,
        method: &str,
        target: &str,
    ) -> io::Result<(BufReader<Socket>, u16, Option<usize>)> {
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!("{method} {target} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n{token}\r\n");
        socket.write_all(request.as_bytes())?;
        let mut stream = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.by_ref().take(64 << 10).read_line(&mut head)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|(_, value)| value.parse().ok());
        let status = status.filter(|_| head.starts_with("HTTP/1."));
        Ok((stream, status.ok_or_else(|| io::Error::other("this is no HTTP"))?, length))
    }

    fn connect(&self) -> io::Result<Socket> {
        let connect = |domain, address: &SockAddr| {
            let socket = Socket::new(domain, Type::STREAM, None)?;
            socket.connect_timeout(address, PATIENCE).map(|()| socket)
        };
        if let Some(path) = self.address.strip_prefix("unix:") {
            return connect(Domain::UNIX, &SockAddr::unix(path)?);
        }
        // As it is written for every interface, and as the log shows it; no host names, as for the pool itself.
        let host = self.address.strip_prefix("http://").unwrap_or(&self.address).trim_end_matches('/');
        let local = host.strip_prefix("localhost").unwrap_or(host);
        let address = if local.starts_with(':') { format!("127.0.0.1{local}") } else { host.to_owned() };
        let address: SocketAddr =
            address.parse().map_err(|_| io::Error::other("this is no address; write unix:PATH, or 127.0.0.1:9000"))?;
        connect(Domain::for_address(address), &address.into())
    }

    fn failed(&self, error: &io::Error) -> Failure {
        let text = format!("the pool at {} does not answer: {error}", self.address);
        match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Failure::Broken(text),
            ErrorKind::WouldBlock => {
                Failure::Other(format!("the pool at {} does not answer within {PATIENCE:?}", self.address))
            }
            _ => Failure::Other(text),
        }
    }
}

/// Reads events for as long as the connection lasts.
fn events(
    mut stream: BufReader<Socket>,
    seq: &mut u64,
    tell: &mut dyn FnMut(Option<&str>) -> Option<u8>,
) -> Option<u8> {
    stream.get_ref().set_read_timeout(Some(TICK)).ok()?;
    let mut line = Vec::new();
    loop {
        // What has come of a line stays in it when the time is over.
        let found = match stream.read_until(b'\n', &mut line) {
            Ok(_) if line.last() != Some(&b'\n') => return None,
            Ok(_) => {
                let event = String::from_utf8_lossy(&line);
                *seq = number(&event, "seq").unwrap_or(*seq);
                let text = value(&event, "text").map(unquoted);
                line.clear();
                tell(Some(&text.unwrap_or_default()))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => tell(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => None,
            Err(_) => return None,
        };
        if found.is_some() {
            return found;
        }
    }
}

/// What follows the first member of this name in a JSON text that the admin process has written. The name cannot be
/// found inside of a string, where its quotes would be escaped.
pub(super) fn value<'j>(json: &'j str, name: &str) -> Option<&'j str> {
    let quoted = format!("\"{name}\":");
    json.split_once(quoted.as_str()).map(|(_, value)| value)
}

/// The whole number that is the value of this name.
pub(super) fn number(json: &str, name: &str) -> Option<u64> {
    value(json, name)?.split([',', '}', ']']).next()?.parse().ok()
}

/// The seconds that are the value of this name, which have a fraction, as microseconds.
pub(super) fn micros(json: &str, name: &str) -> Option<u64> {
    let (seconds, fraction) = value(json, name)?.split([',', '}', ']']).next()?.split_once('.')?;
    let fraction = format!("{fraction:0<6}").parse::<u64>().ok().filter(|micros| *micros < 1_000_000)?;
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction)
}

/// The string at the beginning of a JSON text (RFC 8259 section 7), fit to be printed.
fn unquoted(json: &str) -> String {
    let mut text = String::new();
    let mut rest = json.strip_prefix('"').unwrap_or_default().chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => break,
            '\\' => match rest.next() {
                // Controls, which the terminal would obey.
                Some('u') => text.extend(rest.nth(3).map(|_| '?')),
                other => text.extend(other),
            },
            c => text.push(c),
        }
    }
    printable(&text)
}

/// A text without what a terminal would obey, but for the ends of its lines.
fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_of_json() {
        let json = r#"{"seq":17,"time":1.5,"worker":null,"text":"a \"seq\":3 \\ \u001b[1m %é","last":{"x":0.000042}}"#
            .replace('%', "\u{9b}");
        assert_eq!(number(&json, "seq"), Some(17));
        assert_eq!(
            (micros(&json, "time"), micros(&json, "x"), micros(&json, "seq")),
            (Some(1_500_000), Some(42), None)
        );
        assert_eq!(number(&json, "worker"), None);
        assert_eq!(number(&json, "gone"), None);
        assert_eq!(unquoted(value(&json, "text").expect("it is there")), "a \"seq\":3 \\ ?[1m ?é");
        for broken in ["", "x", "\"", "\"\\", "\"\\u00"] {
            assert_eq!(unquoted(broken), "", "{broken}");
        }
    }
}
