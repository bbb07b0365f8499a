//! cargo run --release --example million -- 127.0.0.1:8000 --connections 10000: opens connections, makes a request on
//! each, holds them idle until a line comes on standard input, and makes another request on each. `scripts/million`
//! starts several, and measures the memory.

use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::resource::{getrlimit, setrlimit, Resource};
use socket2::{Domain, Socket, Type};

const USAGE: &str = "\
usage: million ADDR [--connections N] [--first N]

Opens N connections (default 10000) from 127.0.1.0 and the addresses that follow, 50 000 from each, beginning with the
place FIRST (default 0), so that several clients have different ones. The server is that of the example plaintext.
";

/// Ports of one source address, from the first that needs no privilege and that servers seldom use.
const PORTS: usize = 50_000;
const FIRST_PORT: usize = 12_000;

/// So many requests are under way at once.
const BATCH: usize = 256;

/// A server that does not answer for so long does not answer.
const CLIENT_TURN_MAX: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).map(|options| run(&options)) {
        None => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
        Some(Ok(0)) => ExitCode::SUCCESS,
        Some(Ok(_)) => ExitCode::FAILURE,
        Some(Err(error)) => {
            eprintln!("million: {error}");
            ExitCode::from(3)
        }
    }
}

struct Options {
    address: SocketAddr,
    connections: usize,
    first: usize,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
        let mut options = Options { address: arguments.next()?.parse().ok()?, connections: 10_000, first: 0 };
        while let Some(argument) = arguments.next() {
            let number = arguments.next()?.parse().ok()?;
            match argument.as_str() {
                "--connections" => options.connections = number,
                "--first" => options.first = number,
                _ => return None,
            }
        }
        // As many source addresses as there are in 127.0.0.0/16.
        (options.first + options.connections <= 60_000 * PORTS).then_some(options)
    }
}

/// Returns how many errors there were.
fn run(options: &Options) -> io::Result<usize> {
    let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
    let begun = Instant::now();
    let mut lanes = Vec::with_capacity(options.connections);
    let (mut failed, mut wrong) = (0, 0);
    let end = options.first + options.connections;
    for batch in (options.first..end).step_by(BATCH).map(|place| place..end.min(place + BATCH)) {
        let asked = lanes.len();
        for place in batch {
            match connect(options.address, place) {
                Ok(stream) => lanes.push(stream),
                Err(error) => {
                    failed += 1;
                    if failed == 1 {
                        eprintln!("million: connection {place}: {error}");
                    }
                }
            }
        }
        // At once: a server does not wait for ever for the first request, as it does for the next.
        wrong += ask(&mut lanes[asked..], options.address);
    }
    println!("open={} failed={failed} wrong={wrong} ms={}", lanes.len(), begun.elapsed().as_millis());
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let begun = Instant::now();
    let unanswered = ask(&mut lanes, options.address);
    println!("answered={} unanswered={unanswered} ms={}", lanes.len() - unanswered, begun.elapsed().as_millis());
    Ok(failed + wrong + unanswered)
}

fn connect(address: SocketAddr, place: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let last = u16::try_from(256 + place / PORTS).map_err(io::Error::other)?;
    let [third, fourth] = last.to_be_bytes();
    let port = u16::try_from(FIRST_PORT + place % PORTS).map_err(io::Error::other)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, third, fourth), port)).into())?;
    socket.set_read_timeout(Some(CLIENT_TURN_MAX))?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

/// Makes a request on each; returns how many were not answered with 200.
fn ask(lanes: &mut [TcpStream], address: SocketAddr) -> usize {
    let request = format!("GET /plaintext HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let mut unanswered = 0;
    for batch in lanes.chunks_mut(BATCH) {
        let sent: Vec<bool> = batch.iter_mut().map(|lane| lane.write_all(request.as_bytes()).is_ok()).collect();
        unanswered +=
            batch.iter_mut().zip(sent).filter_map(|(lane, sent)| (!sent || !is_answered(lane)).then_some(())).count();
    }
    unanswered
}

/// Whether a whole answer comes: all are in one packet.
fn is_answered(lane: &mut TcpStream) -> bool {
    let mut buffer = [0; 1024];
    let Ok(len) = lane.read(&mut buffer) else { return false };
    buffer[..len].starts_with(b"HTTP/1.1 200 ") && buffer[..len].ends_with(b"Hello, World!")
}
