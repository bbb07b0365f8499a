//! Steering: to which slot the kernel gives a new connection.
//!
//! SO_REUSEPORT alone chooses by hash and is blind: it keeps giving connections to a busy worker, or to a slot without
//! one. The parent writes to shared memory which process serves each seat of the group, and what the kernel was told.
//! Each worker writes to its row since when it is busy. If a worker notices, in a turn of its loop and at most once a
//! millisecond, that this calls for another choice, it asks the parent to steer. The parent checks for itself and
//! attaches the program. Only the parent does that, so a worker cannot decide where other workers' connections go.
//! There is no timer and no wake-up: an idle pool has nothing to steer.

mod classic;
mod ebpf;
mod plan;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use log::{info, warn};

use crate::shared::config::Balance;
use crate::shared::scoreboard::{Memories, ParentBoard, Row, Scoreboard};
use crate::shared::seats::Seats;
use crate::sys;
use crate::time::Time;

pub(crate) use self::classic::{program, Key};
pub(crate) use self::ebpf::Ebpf;
pub(crate) use self::plan::{plan, Condition};

/// No program: the kernel chooses by hash, or by eBPF, which needs no updates.
pub(crate) const NOTHING: u64 = 0;
pub(crate) const RANDOM: u64 = 1;
const CPU: u64 = 2;
const CLIENT: u64 = 3;

/// The description of [`RANDOM`].
pub(crate) const AT_RANDOM: &str = "random, among the free workers";

/// How new connections are steered.
#[derive(Debug)]
pub(crate) struct Steering {
    /// Which classic program is attached.
    pub(crate) program: u64,
    /// How the worker is chosen, in words.
    pub(crate) method: &'static str,
    /// Exists if the kernel chooses by the number of connections.
    pub(crate) ebpf: Option<Ebpf>,
}

/// Makes the scoreboard and logs how workers are chosen. It has room for `processes`, or only for `counted` ones if the
/// kernel chooses, since its memory is then taken at once.
pub(crate) fn choose(
    balance: Balance,
    processes: usize,
    counted: usize,
    addresses: usize,
) -> io::Result<(ParentBoard, Steering)> {
    let classic = |program, method| Ok((ParentBoard::new(processes)?, Steering { program, method, ebpf: None }));
    match balance {
        // There is one socket for all workers.
        _ if addresses == 0 => classic(NOTHING, "one socket for all workers"),
        Balance::Hash => {
            info!("balance: by the kernel's hash");
            classic(NOTHING, "by the kernel's hash")
        }
        Balance::Random => {
            info!("balance: {AT_RANDOM}");
            classic(RANDOM, AT_RANDOM)
        }
        Balance::Cpu => {
            info!("balance: by the CPU that received the connection");
            classic(CPU, "by the CPU that received the connection")
        }
        Balance::Client => {
            info!("balance: by the client's address");
            classic(CLIENT, "by the client's address")
        }
        Balance::Auto | Balance::LeastConnections => match load(counted, addresses) {
            Ok((board, ebpf)) => {
                let method = "least connections, among the free workers";
                info!("balance: {method}");
                Ok((board, Steering { program: NOTHING, method, ebpf: Some(ebpf) }))
            }
            // A missing privilege is not worth a warning unless it was asked for.
            Err(error) if balance == Balance::Auto && error.kind() == io::ErrorKind::PermissionDenied => {
                info!("balance: {AT_RANDOM}; least connections: {error}");
                classic(RANDOM, AT_RANDOM)
            }
            Err(error) => {
                warn!("balance: {AT_RANDOM}; least connections failed: {error}");
                classic(RANDOM, AT_RANDOM)
            }
        },
    }
}

fn load(processes: usize, addresses: usize) -> io::Result<(ParentBoard, Ebpf)> {
    let memories = Memories::new(processes)?;
    let ebpf = Ebpf::load(&Scoreboard::layout(processes), &memories, addresses)?;
    Ok((ParentBoard::in_memory(&memories)?, ebpf))
}

/// A worker that has been busy with one turn of its loop for this long counts as stalled for new connections. Times are
/// truncated to milliseconds, so this means more than one.
const STALLED: Duration = Duration::from_millis(2);

/// Whether a worker is busy with something long.
pub(crate) fn is_stalled(row: Row<'_>, now: Time) -> bool {
    is_busy_for(row, STALLED, now)
}

/// Whether a worker has been busy with one turn of its loop for at least this long.
pub(crate) fn is_busy_for(row: Row<'_>, least: Duration, now: Time) -> bool {
    row.busy_since().is_some_and(|since| now.since(since) >= least)
}

/// Whether a client always gets the same worker while that exists, busy or not.
pub(crate) fn is_sticky(board: &Scoreboard) -> bool {
    board.program() == CLIENT
}

/// Whether the kernel should be told something else.
pub(crate) fn is_outdated(board: &Scoreboard, now: Time) -> bool {
    board.program() != NOTHING && look(board, now) != board.steered()
}

/// Which seats the kernel should be told.
pub(crate) fn look(board: &Scoreboard, now: Time) -> Seats {
    plan(board.seats().map(|row| match row {
        0 => Condition::Vacant,
        row => {
            let row = board.row(row);
            match () {
                () if row.is_full() => Condition::Full,
                // If a client always gets the same worker, it waits for that worker.
                () if !is_sticky(board) && is_stalled(row, now) => Condition::Stalled,
                () => Condition::Free,
            }
        }
    }))
}

/// Tells the kernel to choose among these seats, in each group. `listeners` has a socket of each group, `slots` are the
/// slots on the seats, and `cpus` are the CPUs to which the slots are pinned.
///
/// # Errors
///
/// The kernel's error. The groups keep their previous program.
pub(crate) fn attach(
    which: u64,
    slots: &[usize],
    cpus: &[usize],
    allowed: &Seats,
    listeners: &[BorrowedFd<'_>],
) -> io::Result<()> {
    // A slot's CPU follows from its number; see `Seed`.
    let cpu_of = |slot: &usize| cpus.get(slot % cpus.len().max(1)).copied().unwrap_or(0);
    let on: Vec<usize> = if which == CPU { slots.iter().map(cpu_of).collect() } else { Vec::new() };
    let key = match which {
        CPU => Key::Cpu(&on),
        CLIENT => Key::Client { seats: slots.len() },
        _ => Key::Random,
    };
    let program = program(allowed, key);
    listeners.iter().try_for_each(|listener| sys::filter::attach(*listener, &program))
}
