//! Steering: which slot the kernel gives a new connection to.
//!
//! SO_REUSEPORT alone picks by hash and is blind: it goes on to give a busy worker, or a slot without one, its share.
//! The parent says in shared memory which process serves each seat of the group and what the kernel has been told; every
//! worker says in its row since when it is busy. A worker that sees, at its turn and at most once a millisecond, that this
//! asks for another choice rings the parent, which looks for itself and attaches the program. Nobody else does, so that a
//! worker has no say in where the others' connections go. No timer and no wake-up: an idle pool has nothing to steer.

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
pub(crate) use self::plan::{plan, Standing};

/// No program: the kernel picks by hash, or by eBPF, which needs no telling.
pub(crate) const NOTHING: u64 = 0;
pub(crate) const RANDOM: u64 = 1;
const CPU: u64 = 2;
const CLIENT: u64 = 3;

/// Who picks the worker by [`RANDOM`].
pub(crate) const AT_RANDOM: &str = "random, among the workers that are free";

/// How new connections are steered.
#[derive(Debug)]
pub(crate) struct Steering {
    /// Which classic program is attached.
    pub(crate) program: u64,
    /// Who picks the worker, in words.
    pub(crate) method: &'static str,
    /// The kernel's own count of connections decides.
    pub(crate) ebpf: Option<Ebpf>,
}

/// Makes the scoreboard for so many `processes`, or only so many as are to be `counted` if the kernel is to decide, whose
/// memory is taken at once; and says in the log who picks the worker for a new connection.
pub(crate) fn choose(
    balance: Balance,
    processes: usize,
    counted: usize,
    addresses: usize,
) -> io::Result<(ParentBoard, Steering)> {
    let classic = |program, method| Ok((ParentBoard::new(processes)?, Steering { program, method, ebpf: None }));
    match balance {
        // There is one socket for all.
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
                let method = "least connections, among the workers that are free";
                info!("balance: {method}");
                Ok((board, Steering { program: NOTHING, method, ebpf: Some(ebpf) }))
            }
            // What needs a privilege is not expected to be there, unless it was asked for.
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

/// Busy for this long with one turn of the loop is stalled, for a new connection; times are cut to milliseconds, so this
/// is more than one.
const STALLED: Duration = Duration::from_millis(2);

/// Whether a worker is busy with something long.
pub(crate) fn is_stalled(row: Row<'_>, now: Time) -> bool {
    row.busy_since().is_some_and(|since| now.since(since) >= STALLED)
}

/// Whether the same client always gets the same worker, as long as there is that one, busy or not.
pub(crate) fn is_sticky(board: &Scoreboard) -> bool {
    board.program() == CLIENT
}

/// Whether the kernel should be told something else than it has been.
pub(crate) fn is_outdated(board: &Scoreboard, now: Time) -> bool {
    board.program() != NOTHING && look(board, now) != board.steered()
}

/// What the kernel should be told.
pub(crate) fn look(board: &Scoreboard, now: Time) -> Seats {
    plan(board.seats().map(|row| match row {
        0 => Standing::Vacant,
        row => {
            let row = board.row(row);
            match () {
                () if row.is_full() => Standing::Full,
                // Whose clients are always the same, it is waited for.
                () if !is_sticky(board) && is_stalled(row, now) => Standing::Stalled,
                () => Standing::Free,
            }
        }
    }))
}

/// Tells the kernel to choose among these seats, in each group: `listeners` has a socket of each. `slots` are those on the
/// seats, `cpus` the CPUs that the slots are pinned to.
///
/// # Errors
///
/// What the kernel says to the program. The groups keep what they had.
pub(crate) fn attach(
    which: u64,
    slots: &[usize],
    cpus: &[usize],
    allowed: &Seats,
    listeners: &[BorrowedFd<'_>],
) -> io::Result<()> {
    // A slot's CPU follows from its number, see `Seed`.
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
