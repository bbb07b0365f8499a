//! cargo run --example handover: a server of its own, whose clients keep their connections over restarts and upgrades.
//! `curl -s http://127.0.0.1:8000/ http://127.0.0.1:8000/` makes two requests on one connection; `kill -HUP` restarts.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use forkpool::{Pool, Worker};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

fn main() -> forkpool::Result<()> {
    Pool::bind("127.0.0.1:8000").env().run(serve)
}

/// A client, and what it has sent of its next request.
struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

fn serve(worker: &Worker) -> Result<(), Box<dyn std::error::Error>> {
    // Before the listeners are taken: their addresses say which connections belong to this pool.
    let mut taken_over = worker.take_over().expect("it is called once");
    let (shutdown, listener) = (worker.shutdown_signal()?, worker.take_listener()?);
    let (mut clients, mut next) = (BTreeMap::new(), 0_u64);
    worker.ready()?;
    loop {
        let mut sources = vec![shutdown.as_fd(), listener.as_fd(), taken_over.as_fd()];
        sources.extend(clients.values().map(|client: &Client| client.stream.as_fd()));
        let mut sources: Vec<_> = sources.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        poll(&mut sources, PollTimeout::NONE)?;
        let ready: Vec<bool> = sources.iter().map(|source| source.any() != Some(false)).collect();
        let keys: Vec<u64> = clients.keys().copied().collect();
        for (key, _) in keys.iter().zip(&ready[3..]).filter(|(_, is_ready)| **is_ready) {
            if clients.get_mut(key).is_some_and(|client| !answer(client, worker)) {
                clients.remove(key);
            }
        }
        while let Some(client) = accept(&listener)?.or_else(|| taken_over.accept().ok().map(Client::from)) {
            clients.insert(next, client);
            next += 1;
        }
        if ready[0] {
            break;
        }
    }
    // Between two requests, all of them: this server answers at once. At the end of the pool nobody takes them over.
    for client in clients.into_values() {
        let _ = worker.hand_over(client.stream, &client.unread);
    }
    Ok(())
}

fn accept(listener: &TcpListener) -> io::Result<Option<Client>> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(true)?;
            Ok(Some(Client { stream, unread: Vec::new() }))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

impl From<(TcpStream, Vec<u8>)> for Client {
    fn from((stream, unread): (TcpStream, Vec<u8>)) -> Client {
        Client { stream, unread }
    }
}

/// Answers what has arrived. Returns whether the client is still there. Requests here have no body.
fn answer(client: &mut Client, worker: &Worker) -> bool {
    let mut bytes = [0; 4096];
    match client.stream.read(&mut bytes) {
        Ok(0) => return false,
        Ok(len) => client.unread.extend_from_slice(&bytes[..len]),
        Err(error) => return error.kind() == ErrorKind::WouldBlock,
    }
    while let Some(end) = client.unread.windows(4).position(|end| end == b"\r\n\r\n") {
        client.unread.drain(..end + 4);
        let body = format!("worker {} generation {}\n", worker.id(), worker.generation());
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        // So little fits into the socket's buffer, unless the client does not read.
        if client.stream.write_all(response.as_bytes()).is_err() {
            return false;
        }
    }
    client.unread.len() < 65_536
}
