//! cargo run --release --example raw -- PORT [WORKERS]: the limit for any server. It answers whatever ends in an empty
//! line with the same bytes: no parser, no checks, no deadlines, no Date. Further workers are processes of their own,
//! with SO_REUSEPORT sockets, that nobody looks after.

use std::io::{self, ErrorKind, Read, Write};
use std::process::Command;

use memchr::memmem;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: raw\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!";

fn main() -> io::Result<()> {
    let number = |index| std::env::args().nth(index).and_then(|number| number.parse().ok());
    let (port, workers) = (number(1).unwrap_or(8000), number(2).unwrap_or(1));
    for _ in 1..workers {
        Command::new(std::env::current_exe()?).arg(port.to_string()).spawn()?;
    }
    let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    listener.set_reuse_address(true)?;
    listener.set_reuse_port(true)?;
    listener.set_nonblocking(true)?;
    // Accepted sockets inherit it (tcp(7)).
    listener.set_tcp_nodelay(true)?;
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    listener.listen(4096)?;
    let mut listener = TcpListener::from_std(listener.into());
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (mut connections, mut input) = (Slab::new(), vec![0; 64 * 1024]);
    let end = memmem::Finder::new(b"\r\n\r\n");
    let answers = ANSWER.repeat(input.len() / 16);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, &poll, &mut connections)?,
                Token(index) => {
                    if connections.get_mut(index).is_some_and(|stream| !answer(stream, &mut input, &end, &answers)) {
                        connections.remove(index);
                    }
                }
            }
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, connections: &mut Slab<TcpStream>) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let entry = connections.vacant_entry();
                poll.registry().register(&mut stream, Token(entry.key()), Interest::READABLE)?;
                entry.insert(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Takes requests to come whole, and answers to go whole: both are so on loopback. Returns whether it stays open.
fn answer(stream: &mut TcpStream, input: &mut [u8], end: &memmem::Finder<'_>, answers: &[u8]) -> bool {
    let Ok(len @ 1..) = stream.read(input) else { return false };
    let requests = end.find_iter(&input[..len]).count();
    let is_last = input[..len].ends_with(b"\r\nConnection: close\r\n\r\n");
    // No request is shorter than 16 bytes.
    stream.write_all(&answers[..requests * ANSWER.len()]).is_ok() && !is_last
}
