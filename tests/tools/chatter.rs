//! cargo run --release --example chatter up (or down): how many messages of 64 bytes go each second from the workers to
//! the parent or the other way, and how much of a CPU the parent takes for them. `chatter up 5000` is 5000 a second for
//! each worker, in batches of 100, instead of as many as can be.
//!
//! On two busy CPUs, medians of five seconds (`FORKPOOL_WORKERS=4`, and 1 or 2):
//!
//! | | 1 worker | 2 workers | 4 workers | parent, 10 000/s in all | parent, 100 000/s in all |
//! |---|---:|---:|---:|---:|---:|
//! | up | 307 500/s | 514 000/s | 459 000/s | 1 % of a CPU | 10 % |
//! | down | 395 000/s | 362 000/s | 623 000/s | 1 % of a CPU | 9 % |
//!
//! The upward rates were measured while the parent read all that came. It spends at most a fiftieth of its time on the
//! messages of one worker now, which at the cost shown here is about 20 000 a second; a worker that sends more is told
//! that the queue is full.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use forkpool::{Event, Handle, MessageError, Pool, Worker};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

const MESSAGE: [u8; 64] = [b'x'; 64];

/// Messages that a worker asks for at a time: fewer than the kernel's queue takes.
const BATCH: u32 = 100;

const SECONDS: u32 = 5;

const A_SECOND: Duration = Duration::from_secs(1);

fn main() -> forkpool::Result<()> {
    env_logger::init();
    let goes_down = std::env::args().nth(1).is_some_and(|way| way == "down");
    let rate = std::env::args().nth(2).and_then(|rate| rate.parse().ok());
    let mut tally = Tally { messages: 0, since: Instant::now(), busy: 0, ticks: 0 };
    Pool::bind("127.0.0.1:0")
        .env()
        .tick(Duration::from_secs(1))
        .on_event(move |event, pool| match *event {
            Event::Message { process, .. } if goes_down => {
                tally.messages += (0..BATCH).filter(|_| pool.send(process, &MESSAGE).is_ok()).count();
            }
            Event::Message { .. } => tally.messages += 1,
            Event::Tick => tally.tick(pool),
            _ => {}
        })
        .run(|worker| if goes_down { listen(worker, rate) } else { talk(worker, rate) })
}

/// What the parent has done since it last said so.
struct Tally {
    messages: usize,
    since: Instant,
    busy: u64,
    ticks: u32,
}

impl Tally {
    fn tick(&mut self, pool: &Handle<'_>) {
        let (passed, busy) = (self.since.elapsed().as_secs_f64(), busy());
        let (rate, share) = (self.messages as f64 / passed, (busy - self.busy) as f64 / 1e7 / passed);
        println!("{rate:.0} messages/s, the parent takes {share:.0} % of a CPU");
        (self.messages, self.since, self.busy, self.ticks) = (0, Instant::now(), busy, self.ticks + 1);
        if self.ticks == SECONDS {
            pool.stop_now();
        }
    }
}

/// Nanoseconds that this process has been on a CPU.
fn busy() -> u64 {
    let schedule = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    schedule.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0)
}

/// Sends at a rate, or as fast as the parent reads.
fn talk(worker: &Worker, rate: Option<u32>) -> io::Result<()> {
    let (messages, mut shutdown) = (worker.messages()?, worker.shutdown_signal()?);
    let mut pace = Pace::new(rate);
    worker.ready()?;
    while shutdown.read(&mut [0]).is_err() {
        pace.wait(&shutdown)?;
        let sent = (0..BATCH).try_for_each(|_| worker.send(&MESSAGE));
        match sent {
            Ok(()) => {}
            Err(MessageError::Full) => wait(&messages, PollFlags::POLLOUT, A_SECOND)?,
            Err(_) => break,
        }
    }
    Ok(())
}

/// Asks for a batch, reads it, asks for the next one when that is due.
fn listen(worker: &Worker, rate: Option<u32>) -> io::Result<()> {
    let (messages, mut shutdown) = (worker.messages()?, worker.shutdown_signal()?);
    let mut pace = Pace::new(rate);
    worker.ready()?;
    while shutdown.read(&mut [0]).is_err() {
        pace.wait(&shutdown)?;
        worker.send(b"more").map_err(io::Error::other)?;
        let mut received = 0;
        while received < BATCH {
            match messages.try_recv() {
                Ok(_) => received += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait(&messages, PollFlags::POLLIN, A_SECOND)?,
                Err(_) => return Ok(()),
            }
        }
    }
    Ok(())
}

/// When the next batch is due.
struct Pace {
    due: Instant,
    period: Duration,
}

impl Pace {
    /// So many messages a second; without a rate every batch is due at once.
    fn new(rate: Option<u32>) -> Pace {
        let period = rate.filter(|rate| *rate > 0).map_or(Duration::ZERO, |rate| A_SECOND * BATCH / rate);
        Pace { due: Instant::now(), period }
    }

    /// Waits for that, or until the worker is to finish.
    fn wait(&mut self, shutdown: &impl AsFd) -> io::Result<()> {
        let left = self.due.saturating_duration_since(Instant::now());
        self.due += self.period;
        if left.is_zero() {
            return Ok(());
        }
        wait(shutdown, PollFlags::POLLIN, left)
    }
}

/// Until there is a message, or room for one, or the time has passed: for who is to finish, a second at most.
fn wait(messages: &impl AsFd, wanted: PollFlags, time: Duration) -> io::Result<()> {
    let timeout = PollTimeout::try_from(time.min(A_SECOND)).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(messages.as_fd(), wanted)], timeout) {
        Err(nix::errno::Errno::EINTR) | Ok(_) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
