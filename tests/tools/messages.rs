//! cargo run --example messages, then curl 127.0.0.1:8000/broadcast?hello: workers tell the parent what they are asked
//! by HTTP, and the parent does it. `tests/messages.rs` talks to it.

mod logger;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process;
use std::thread;
use std::time::Duration;

use forkpool::{worker_id, Event, Handle, MessageError, Pool, Process, Request, Response, Socket, Worker};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> forkpool::Result<()> {
    logger::init();
    let mut post = Post::default();
    Pool::bind("127.0.0.1:8000")
        .env()
        .accept_descriptors(true)
        .on_event(move |event, pool| post.take(event, pool))
        .run(serve)
}

/// The parent's side.
#[derive(Default)]
struct Post {
    messages: u64,
    bytes: usize,
}

impl Post {
    fn take(&mut self, event: &Event<'_>, pool: &Handle<'_>) {
        match *event {
            Event::Message { process, message, fd, .. } => {
                self.messages += 1;
                self.bytes += message.len();
                let (order, text) = split(message);
                if let Some(fd) = fd {
                    // To the other worker.
                    report(pool.send_with(1 - process.worker, message, fd));
                } else if let Err(error) = self.obey(process, order, text, pool) {
                    say(&format!("refused {order}: {error}"));
                }
            }
            Event::Exited(exit) => say(&format!(
                "worker {} number {} exited, code {:?}, told {}",
                exit.process.worker,
                exit.process.unique_id,
                exit.code(),
                exit.was_requested
            )),
            _ => {}
        }
    }

    fn obey(&self, from: Process, order: &str, text: &str, pool: &Handle<'_>) -> Result<()> {
        match order {
            "say" => say(&format!("worker {} number {} says {text:?}", from.worker, from.unique_id)),
            "count" => say(&format!("counted {} messages, {} bytes", self.messages, self.bytes)),
            "role" => say(&format!("the parent is worker {:?}", worker_id())),
            "broadcast" => pool.broadcast(text.as_bytes()).into_iter().for_each(|(_, error)| report(Err(error))),
            "kill" => pool.kill(from, text.parse()?)?,
            "disconnect" => {
                (0..10).try_for_each(|n| pool.send(from, format!("before the end {n}").as_bytes()))?;
                pool.disconnect(from.worker);
            }
            "echo" => {
                for copy in [text, "", text] {
                    pool.send(from, copy.as_bytes())?;
                }
            }
            "fill" => {
                let sent = (0_u32..).take_while(|n| match pool.send(from.worker, format!("{n}").as_bytes()) {
                    Err(MessageError::Full) => false,
                    sent => sent.is_ok(),
                });
                say(&format!("filled with {}", sent.count()));
            }
            "to" => pool.send(text.parse::<usize>()?, b"hello")?,
            _ => {}
        }
        Ok(())
    }
}

/// A worker's side.
fn serve(worker: &Worker) -> Result<()> {
    let (id, number) = (worker.id(), worker.unique_id());
    let adopter = worker.adopter();
    worker.on_message_with(move |message, fd| match fd {
        Some(connection) if message == b"adopt" => report(adopter.adopt(TcpStream::from(connection))),
        Some(socket) => report(write!(UnixStream::from(socket), "from worker {id}")),
        None => say(&format!("worker {id} number {number} got {:?}", String::from_utf8_lossy(message))),
    });
    let environment =
        || std::env::var("FORKPOOL_WORKER_ID").and_then(|id| Ok((id, std::env::var("FORKPOOL_UNIQUE_ID")?)));
    say(&format!("worker {id} number {number} is {:?}, {:?}", worker_id(), environment()?));
    // Before it is ready.
    worker.send(format!("say here is {id}").as_bytes())?;
    let served =
        worker.serve(|request| answer(worker, request).unwrap_or_else(|error| Response::text(error.to_string())));
    say(&format!("worker {id} number {number} has served"));
    Ok(served?)
}

fn answer(worker: &Worker, request: &Request<'_>) -> Result<Response> {
    let text = request.query().unwrap_or_default().replace('+', " ");
    let order = request.path().trim_start_matches('/');
    match order {
        "many" => (0..text.parse::<u32>()?).try_for_each(|n| worker.send(format!("say {n}").as_bytes()))?,
        "exit" => {
            (0..100).try_for_each(|n| worker.send(format!("say {n}").as_bytes()))?;
            process::exit(7)
        }
        "large" => worker.send(&vec![b'x'; text.parse()?])?,
        "malformed" => _ = nix::unistd::write(worker.messages()?, b"garbage")?,
        "leave" => worker.disconnect(),
        // Until the parent does not read for so long that the queue is full.
        "flood" => {
            let sent = (0_u64..).take_while(|_| worker.send(b"flood").is_ok());
            return Ok(Response::text(sent.count().to_string()));
        }
        // For ever, on a thread of its own.
        "torrent" => {
            let sender = worker.sender();
            thread::spawn(move || loop {
                match sender.send(b"torrent") {
                    Err(MessageError::Gone) => break,
                    Err(_) => thread::yield_now(),
                    Ok(()) => {}
                }
            });
        }
        // While this waits nothing is read.
        "fill" => {
            worker.send(b"fill")?;
            while !Path::new(&text).exists() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        // The connection goes on with the other worker.
        "handover" => {
            let sender = worker.sender();
            return Ok(Response::upgrade("handover", move |connection| {
                if let (Socket::Tcp(stream), ..) = connection.into_parts() {
                    report(sender.send_with(b"adopt", stream));
                }
            }));
        }
        "socket" => {
            let (mut mine, theirs) = UnixStream::pair()?;
            worker.send_with(b"socket", OwnedFd::from(theirs))?;
            let mut said = String::new();
            mine.read_to_string(&mut said)?;
            return Ok(Response::text(said));
        }
        order => worker.send(format!("{order} {text}").as_bytes())?,
    }
    Ok(Response::text(format!("{}\n", worker.id())))
}

/// The order in a message, and what follows.
fn split(message: &[u8]) -> (&str, &str) {
    let message = std::str::from_utf8(message).unwrap_or_default();
    message.split_once(' ').unwrap_or((message, ""))
}

fn report<E: std::fmt::Display>(result: std::result::Result<(), E>) {
    if let Err(error) = result {
        say(&error.to_string());
    }
}

/// One write, so that lines of several processes do not mix.
fn say(line: &str) {
    // A closed stderr is no reason to end.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
