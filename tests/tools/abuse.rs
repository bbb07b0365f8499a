//! cargo build --release --examples && cargo run --release --example abuse: what clients that misbehave cost one
//! worker of the testbed beside it, in memory and in the time that a well-behaved client waits meanwhile.

mod pool;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::sys::signal::Signal;
use pool::{testbed, Pool, Result};

/// Connections that are idle, or slow.
const MANY: usize = 10_000;

fn main() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    println!("| clients | worker's PSS before, KiB | meanwhile, KiB | a normal request meanwhile: p50, p99, max |");
    println!("|---|---:|---:|---|");
    measure("none", |_| Ok(Vec::new()), |_| Ok(()))?;
    measure(&format!("{MANY} idle, after one request each"), idle, |_| Ok(()))?;
    measure(&format!("{MANY} that send a byte a second"), many, dribble)?;
    measure("one that pipelines 50 MB and never reads", one, pipeline)
}

/// Opens connections, lets them misbehave, and looks at the worker while a normal client makes its requests.
fn measure(
    name: &str,
    open: impl FnOnce(u16) -> Result<Vec<TcpStream>>,
    misbehave: impl FnOnce(&mut [TcpStream]) -> Result<()>,
) -> Result<()> {
    let testbed = Pool::start(testbed(1)?.env("FORKPOOL_BACKLOG", "4096"))?;
    let port = testbed.address()?.port();
    ask(&mut TcpStream::connect(("127.0.0.1", port))?)?;
    let worker = fs::read_to_string(format!("/proc/{0}/task/{0}/children", testbed.pid()))?.trim().to_owned();
    let before = memory(&worker)?;
    let mut connections = open(port)?;
    let (is_over, mut waits) = (AtomicBool::new(false), Vec::new());
    thread::scope(|scope| -> Result<()> {
        let normal = scope.spawn(|| requests(port, &is_over));
        misbehave(&mut connections)?;
        thread::sleep(Duration::from_millis(500));
        is_over.store(true, Ordering::Relaxed);
        waits = normal.join().map_err(|_| "the normal client panicked")?.map_err(|error| error.to_string())?;
        Ok(())
    })?;
    let meanwhile = memory(&worker)?;
    waits.sort();
    let micros = |index: usize| waits[index.min(waits.len() - 1)].as_micros();
    let (p50, p99, max) = (micros(waits.len() / 2), micros(waits.len() * 99 / 100), micros(waits.len() - 1));
    println!("| {name} | {before} | {meanwhile} | {p50} µs, {p99} µs, {max} µs of {} |", waits.len());
    drop(connections);
    testbed.stop(Signal::SIGINT)?;
    Ok(())
}

fn memory(pid: &str) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).ok_or("a line of it")?;
    Ok(line.split_whitespace().nth(1).ok_or("a number")?.parse()?)
}

fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut answer = [0; 512];
    let mut len = 0;
    while !answer[..len].ends_with(b"Hello, World!") {
        match stream.read(&mut answer[len..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => len += count,
        }
    }
    Ok(())
}

/// A normal client: one request after the other on one connection.
fn requests(port: u16, is_over: &AtomicBool) -> std::io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut waits = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        ask(&mut stream)?;
        waits.push(begun.elapsed());
        thread::sleep(Duration::from_millis(1));
    }
    Ok(waits)
}

fn many(port: u16) -> Result<Vec<TcpStream>> {
    (0..MANY).map(|_| Ok(TcpStream::connect(("127.0.0.1", port))?)).collect()
}

fn one(port: u16) -> Result<Vec<TcpStream>> {
    Ok(vec![TcpStream::connect(("127.0.0.1", port))?])
}

fn idle(port: u16) -> Result<Vec<TcpStream>> {
    let mut connections = many(port)?;
    connections.iter_mut().try_for_each(ask)?;
    Ok(connections)
}

/// A byte of a head a second, for a few seconds.
fn dribble(connections: &mut [TcpStream]) -> Result<()> {
    for byte in b"GET / H" {
        let second = Instant::now() + Duration::from_secs(1);
        for stream in &mut *connections {
            stream.write_all(&[*byte])?;
        }
        thread::sleep(second.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn pipeline(connections: &mut [TcpStream]) -> Result<()> {
    let requests = b"GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    let stream = &mut connections[0];
    stream.set_nonblocking(true)?;
    let (mut sent, end) = (0, Instant::now() + Duration::from_secs(2));
    while sent < 50_000_000 && Instant::now() < end {
        match stream.write(&requests[sent % requests.len()..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error.into()),
        }
    }
    eprintln!("({:.1} MB of 50 were taken before the server stopped reading)", sent as f64 / 1e6);
    Ok(())
}
