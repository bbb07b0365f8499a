//! cargo build --release --examples && cargo run --release --example measure: how long a start and a replacement
//! take, and what a worker weighs. Measures the testbed beside it, with one worker.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// Starts and replacements measured.
const ROUNDS: usize = 200;

/// Pools whose workers are killed in turn, so that each has been stable again when its turn comes back: what is
/// measured is a first failure, not a crash loop's backoff.
const POOLS: usize = 12;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut starts = Vec::new();
    for _ in 0..ROUNDS {
        // A free port, asked for before the clock runs: the program is told where to listen, as in production.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let begun = Instant::now();
        let mut pool = Pool::spawn(port)?;
        while pool.ask().is_err() {
            thread::sleep(Duration::from_micros(50));
        }
        starts.push(begun.elapsed());
        pool.stop()?;
    }
    report("start to first answer", &mut starts);

    let mut pools = (0..POOLS).map(|_| Pool::spawn_anywhere()).collect::<Result<Vec<_>>>()?;
    println!("memory of a worker: {} KiB PSS, {} KiB of them private", pools[0].memory("Pss")?, pools[0].private()?);
    let mut replacements = Vec::new();
    for round in 0..ROUNDS {
        let pool = &mut pools[round % POOLS];
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
    pools.iter_mut().try_for_each(Pool::stop)
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let millis = |index: usize| times[index.min(times.len() - 1)].as_secs_f64() * 1e3;
    let (median, p99) = (millis(times.len() / 2), millis(times.len() * 99 / 100));
    println!("{what}: median {median:.2} ms, p99 {p99:.2} ms of {}", times.len());
}

struct Pool {
    parent: Child,
    port: u16,
}

impl Pool {
    fn spawn(port: u16) -> Result<Pool> {
        let mut testbed = Pool::testbed(port)?;
        let parent = testbed.stderr(Stdio::null()).spawn()?;
        Ok(Pool { parent, port })
    }

    /// On a free port, and ready.
    fn spawn_anywhere() -> Result<Pool> {
        let mut parent = Pool::testbed(0)?.stderr(Stdio::piped()).spawn()?;
        let mut log = BufReader::new(parent.stderr.take().ok_or("stderr is piped")?);
        let port = loop {
            let mut line = String::new();
            if log.read_line(&mut line)? == 0 {
                return Err("the testbed did not start".into());
            }
            let address = line.split_once("listening on http://").and_then(|(_, rest)| rest.split(' ').next());
            if let Some(port) = address.and_then(|address| address.rsplit(':').next()) {
                break port.parse()?;
            }
        };
        // Its further lines are read by nobody, and must not stop it.
        thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Ok(Pool { parent, port })
    }

    fn testbed(port: u16) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?.with_file_name("testbed"));
        command.env("FORKPOOL_LISTEN", format!("127.0.0.1:{port}")).env("FORKPOOL_WORKERS", "1");
        Ok(command)
    }

    /// Makes a request on a new connection; returns the pid of the worker that answered.
    fn ask(&self) -> Result<i32> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
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

    fn stop(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.parent.id().try_into()?), Signal::SIGINT)?;
        self.parent.wait()?;
        Ok(())
    }
}
