//! cargo build --release --examples && cargo run --release --example measure: how long a start and a replacement
//! take, and what a worker weighs. Measures the testbed beside it, with one worker.

mod pool;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use pool::{testbed, Pool, Result};

/// Starts and replacements measured.
const ROUNDS: usize = 200;

/// Pools whose workers are killed in turn, so that each has been stable again when its turn comes back: what is
/// measured is a first failure, not a crash loop's backoff.
const POOLS: usize = 12;

fn main() -> Result<()> {
    let mut starts = Vec::new();
    for _ in 0..ROUNDS {
        // A free port, asked for before the clock runs: the program is told where to listen, as in production.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let begun = Instant::now();
        let testbed = Testbed::spawn(address)?;
        while testbed.ask().is_err() {
            thread::sleep(Duration::from_micros(50));
        }
        starts.push(begun.elapsed());
        testbed.pool.stop(Signal::SIGINT)?;
    }
    report("start to first answer", &mut starts);

    let pools = (0..POOLS).map(|_| Testbed::start()).collect::<Result<Vec<_>>>()?;
    println!("memory of a worker: {} KiB PSS, {} KiB of them private", pools[0].memory("Pss")?, pools[0].private()?);
    let mut replacements = Vec::new();
    for round in 0..ROUNDS {
        let pool = &pools[round % POOLS];
        let worker = pool.ask()?;
        thread::sleep(Duration::from_millis(1200) / POOLS as u32);
        let begun = Instant::now();
        kill(Pid::from_raw(worker), Signal::SIGKILL)?;
        // The connection waits in the slot's queue, which outlives the worker; one that the dying worker took is made
        // again.
        while pool.ask().is_ok_and(|answered| answered == worker) || pool.ask().is_err() {}
        replacements.push(begun.elapsed());
    }
    report("SIGKILL of the worker to first answer of its replacement", &mut replacements);
    for testbed in pools {
        testbed.pool.stop(Signal::SIGINT)?;
    }
    Ok(())
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let millis = |index: usize| times[index.min(times.len() - 1)].as_secs_f64() * 1e3;
    let (median, p99) = (millis(times.len() / 2), millis(times.len() * 99 / 100));
    println!("{what}: median {median:.2} ms, p99 {p99:.2} ms of {}", times.len());
}

/// The testbed with one worker.
struct Testbed {
    pool: Pool,
    address: SocketAddr,
}

impl Testbed {
    /// On a free port, and ready.
    fn start() -> Result<Testbed> {
        let pool = Pool::start(&mut testbed(1)?)?;
        Ok(Testbed { address: pool.address()?, pool })
    }

    fn spawn(address: SocketAddr) -> Result<Testbed> {
        let pool = Pool::spawn(testbed(1)?.env("FORKPOOL_LISTEN", address.to_string()))?;
        Ok(Testbed { pool, address })
    }

    /// Makes a request on a new connection; returns the pid of the worker that answered.
    fn ask(&self) -> Result<i32> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(b"GET /pid HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.rsplit("\r\n\r\n").next().ok_or("a body")?.parse()?)
    }

    fn memory(&self, what: &str) -> Result<u64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.ask()?))?;
        let line = rollup.lines().find(|line| line.starts_with(&format!("{what}:"))).ok_or("a line of it")?;
        Ok(line.split_whitespace().nth(1).ok_or("a number")?.parse()?)
    }

    fn private(&self) -> Result<u64> {
        Ok(self.memory("Private_Clean")? + self.memory("Private_Dirty")?)
    }
}
