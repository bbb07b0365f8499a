//! An ordinary embedder whose handler turns against its pool: `GET /attack?WHAT` does one of [`Attacker::attack`]'s
//! things.
//!
//! It knows nothing of the inside of the library. It takes what any process can find of itself: its mappings, its
//! descriptors, and the pids that it is told. What it wants to send, it makes before it is ready, as code that was
//! broken into later could have found it; so the sandbox is no excuse. Every flood ends by itself.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

#[macro_use]
#[path = "../say.rs"]
mod say;

mod descriptors;
mod listeners;
mod memory;
mod passing;
mod program;
mod shared;

use std::error::Error;
use std::time::{Duration, Instant};
use std::{env, iter, process, thread};

use descriptors::Descriptors;
use forkpool::{Event, Pool, Request, Response, Worker};
use memory::Memory;

/// For so long a thread goes on with what it does "for ever", unless its process is killed before.
const FOR_EVER: Duration = Duration::from_secs(10);

fn main() -> forkpool::Result<()> {
    if env::args().nth(1).as_deref() == Some("program") {
        program::run();
        return Ok(());
    }
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    if env::var_os("HOSTILE_FEW_FILES").is_some() {
        let limit = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    }
    let mut pool = Pool::bind("127.0.0.1:8000").env();
    if let Some(hook) = env::var_os("HOSTILE_HOOK") {
        // An application that takes messages, and perhaps whatever comes with them.
        pool = pool.accept_descriptors(hook == "take").on_event(|event, _| {
            if let Event::Message { message, fd, .. } = event {
                std::hint::black_box(message);
                if fd.is_some() {
                    eprintln!("took a descriptor");
                }
            }
        });
    }
    pool.run(serve)
}

fn serve(worker: &Worker) -> Result<(), Box<dyn Error>> {
    worker.add_header("X-Pid", &process::id().to_string())?;
    worker.add_header("X-Slot", &worker.id().to_string())?;
    let attacker = Attacker::gather();
    if let Some(letters) = env::var("HOSTILE_SAYS").ok().filter(|_| worker.id() < 2) {
        // As soon as it may say anything, and again in each worker that follows.
        worker.ready()?;
        // A variable cannot hold the number of the address that fails, which is the first.
        let address: &[u8] = if letters == "B" { &[0, 0] } else { &[] };
        attacker.descriptors.report(&[letters.as_bytes(), address].concat());
    }
    if env::var_os("HOSTILE_LEAVES").is_some() && worker.id() < 2 {
        worker.ready()?;
        Memory::gather().fill(&mut || 1);
        process::exit(0);
    }
    worker.serve(move |request| attacker.answer(request))?;
    Ok(())
}

/// What a worker turns against its pool.
struct Attacker {
    memory: Memory,
    descriptors: Descriptors,
}

impl Attacker {
    fn gather() -> Attacker {
        // First, before it has memory of its own.
        let memory = Memory::gather();
        Attacker { memory, descriptors: Descriptors::gather() }
    }

    fn answer(&self, request: &Request<'_>) -> Response {
        match request.path() {
            "/attack" => Response::text(format!("{}\n", self.attack(request.query().unwrap_or_default()))),
            // More than a client's socket takes that does not read.
            "/big" => Response::text("x".repeat(16 << 20)),
            // More than a client takes that has little room, and no more than fits on the way.
            "/some" => Response::text("x".repeat(64 << 10)),
            _ => Response::text(format!("{}\n", process::id())),
        }
    }

    fn attack(&self, what: &str) -> String {
        let (what, argument) = what.split_once(':').unwrap_or((what, ""));
        match what {
            "memory-ones" => self.memory.fill(&mut || u64::MAX),
            "memory-large" => self.memory.fill(&mut || 1 << 40),
            "memory-small" => self.memory.fill(&mut || 1),
            "memory-random" => self.memory.fill(&mut random()),
            "memory-beyond" => self.memory.reach_beyond(),
            "memory-for-ever" => self.memory.fill_for_ever(),
            "junk" => self.descriptors.junk(),
            "letters" => self.descriptors.letters(),
            "flood" => self.descriptors.flood(),
            "descriptors" => self.descriptors.pass_everything(),
            "lingering" => self.descriptors.pass_clients(b"xLm"),
            "linger" => self.descriptors.pass_clients(b"m"),
            "linger-and-live" => self.descriptors.pass_clients_and_live(argument.parse().unwrap_or(0)),
            "too-many" => self.descriptors.pass_too_many(),
            "pass-on" => self.descriptors.pass_on(),
            "close-all" => self.descriptors.close_all(),
            "shut-down" => listeners::shut_down(),
            "block" => listeners::block(),
            "linger-later" => listeners::linger(),
            "program" => listeners::program(),
            "options" => listeners::options(),
            "every-option" => listeners::every_option(),
            "change-options" => listeners::change_options(argument, ""),
            "change-option" => listeners::change_options("", argument),
            "accept" => listeners::accept_and_drop(),
            "inherited" => shared::inherited(),
            "keep" => shared::keep(),
            "replace" => shared::replace(),
            "low-numbers" => shared::low_numbers(),
            "flags" => shared::flags(),
            "leases" => shared::leases(),
            "mute" => shared::mute(),
            "orders" => shared::take_orders(),
            "child" => shared::leave_a_child(|| self.descriptors.flood()),
            "exec" => shared::become_another(),
            "signal" => signal(argument),
            "everything" => self.everything(argument),
            _ => format!("there is no attack {what:?}"),
        }
    }

    /// All of it, one after the other, each worker beginning somewhere else; descriptors are closed last.
    fn everything(&self, pids: &str) -> String {
        let mut order = [
            "options",
            "program",
            "block",
            "linger-later",
            "lingering",
            "memory-random",
            "memory-small",
            "shut-down",
            "accept",
            "memory-large",
            "descriptors",
            "letters",
            "junk",
            "flood",
            "memory-for-ever",
        ];
        let first = forkpool::worker_id().unwrap_or(0) * 5 % order.len();
        order.rotate_left(first);
        let done = order.into_iter().chain(["close-all"]).map(|what| self.attack(what));
        iter::once(signal(pids)).chain(done).collect::<Vec<_>>().join("; ")
    }
}

/// Sends signals to the processes that it is told: all of its pool.
fn signal(pids: &str) -> String {
    let pids = pids.split(',').filter_map(|pid| pid.parse().ok());
    let pids: Vec<i32> = pids.filter(|pid| *pid > 1 && *pid != process::id() as i32).collect();
    let mut sent = 0;
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGTTOU, libc::SIGSTOP, libc::SIGTERM, libc::SIGKILL] {
        for pid in &pids {
            sent += usize::from(unsafe { libc::kill(*pid, signal) } == 0);
        }
    }
    format!("{sent} signals to {} processes", pids.len())
}

/// Does something again and again in a thread of its own, until it is no use any more or the time is up.
fn again_and_again(mut what: impl FnMut() -> bool + Send + 'static) {
    let end = Instant::now() + FOR_EVER;
    thread::spawn(move || while Instant::now() < end && what() {});
}

/// xorshift64: numbers of all sizes.
fn random() -> impl FnMut() -> u64 + Send + 'static {
    let mut state = u64::from(process::id()) | 1 << 40;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> (state % 64)
    }
}
