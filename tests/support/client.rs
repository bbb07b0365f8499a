//! An HTTP client for requests of any kind, valid or not, and the responses.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::unistd::Pid;

use super::DEADLINE;

/// A client that sends what it is told, right or wrong.
pub struct Client<S> {
    stream: BufReader<S>,
}

impl<S: Read + Write> Client<S> {
    pub fn new(stream: S) -> Client<S> {
        Client { stream: BufReader::new(stream) }
    }

    /// The bare stream. Nothing may have been read ahead of it.
    pub fn into_stream(self) -> S {
        assert!(self.stream.buffer().is_empty());
        self.stream.into_inner()
    }

    pub fn stream(&self) -> &S {
        self.stream.get_ref()
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).expect("the server takes it");
    }

    /// Reads one response, as the answer to a GET.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer(false).expect("a whole response")
    }

    /// Reads one response without a body.
    #[track_caller]
    pub fn answer_to_head(&mut self) -> Answer {
        self.try_answer(true).expect("a whole response")
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.answer()
    }

    /// The same for a server that may be gone by now.
    pub fn try_get(&mut self, target: &str) -> std::io::Result<Answer> {
        self.stream.get_mut().write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
        self.try_answer(false)
    }

    pub fn try_answer(&mut self, is_head: bool) -> std::io::Result<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if self.stream.read_until(b'\n', &mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = String::from_utf8(head).map_err(std::io::Error::other)?;
        let (line, fields) = head.split_once("\r\n").expect("it has a line");
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("it has a status");
        let fields = fields.lines().filter_map(|line| line.split_once(": "));
        let fields: BTreeMap<_, _> =
            fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let len = fields.get("content-length").map_or(0, |len| len.parse().expect("a length"));
        let is_chunked = fields.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
        let body = match () {
            () if is_head => Vec::new(),
            () if is_chunked => self.chunks()?,
            () => self.exactly(len)?,
        };
        Ok(Answer { status, fields, body })
    }

    fn chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim_end(), 16).map_err(std::io::Error::other)?;
            body.extend(self.exactly(size)?);
            assert_eq!(self.exactly(2)?, b"\r\n");
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn exactly(&mut self, len: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads bytes that are not part of a response.
    #[track_caller]
    pub fn read(&mut self, bytes: &mut [u8]) {
        self.stream.read_exact(bytes).expect("so many bytes");
    }

    /// Reads until the server closes.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("a clean end");
        rest
    }

    /// Whether the server has closed and nothing else is to be read.
    #[track_caller]
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }
}

/// Connects to a Unix socket.
#[track_caller]
pub fn connect_unix(path: &Path) -> Client<UnixStream> {
    let stream = UnixStream::connect(path).expect("the socket is open");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    Client::new(stream)
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// The worker that gave it.
    #[track_caller]
    pub fn worker(&self) -> Pid {
        Pid::from_raw(self.field("x-pid").and_then(|pid| pid.parse().ok()).expect("the testbed says its pid"))
    }

    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}
