//! cargo run --release --example chatter up (or down): how many messages of 64 bytes go each second from the workers to
//! the parent or the other way, and how much of a CPU the parent takes for them.

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

fn main() -> forkpool::Result<()> {
    env_logger::init();
    let goes_down = std::env::args().nth(1).is_some_and(|way| way == "down");
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
        .run(|worker| if goes_down { listen(worker) } else { talk(worker) })
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

/// Sends as fast as the parent reads.
fn talk(worker: &Worker) -> io::Result<()> {
    let (messages, mut shutdown) = (worker.messages()?, worker.shutdown()?);
    worker.ready()?;
    while shutdown.read(&mut [0]).is_err() {
        let sent = (0..BATCH).try_for_each(|_| worker.send(&MESSAGE));
        match sent {
            Ok(()) => {}
            Err(MessageError::Full) => wait(&messages, PollFlags::POLLOUT)?,
            Err(_) => break,
        }
    }
    Ok(())
}

/// Asks for a batch, reads it, asks for the next one.
fn listen(worker: &Worker) -> io::Result<()> {
    let (messages, mut shutdown) = (worker.messages()?, worker.shutdown()?);
    worker.ready()?;
    while shutdown.read(&mut [0]).is_err() {
        worker.send(b"more").map_err(io::Error::other)?;
        let mut received = 0;
        while received < BATCH {
            match messages.try_recv() {
                Ok(_) => received += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait(&messages, PollFlags::POLLIN)?,
                Err(_) => return Ok(()),
            }
        }
    }
    Ok(())
}

/// Until there is a message, or room for one; a second at most, for who is to finish.
fn wait(messages: &impl AsFd, wanted: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(messages.as_fd(), wanted)], PollTimeout::from(1000_u16)) {
        Err(nix::errno::Errno::EINTR) | Ok(_) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
