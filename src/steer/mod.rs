//! Steering: which slot the kernel gives a new connection to.
//!
//! SO_REUSEPORT alone picks by hash and is blind: it goes on to give a busy worker, or a slot without one, its share.
//! The parent says in shared memory which process serves each seat of the group, every worker says in its row since
//! when it is busy, and whoever sees that this asks for another choice than the kernel has been told re-attaches the
//! program: the parent when a process comes or goes, a worker at most once a millisecond. No timer and
//! no wake-up: an idle pool has nothing to steer.

mod classic;
mod ebpf;
mod plan;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use log::{info, warn};

use crate::config::Balance;
use crate::scoreboard::{Row, Scoreboard};
use crate::sys;
use crate::sys::bpf::Memory;
use crate::time::Time;

pub(crate) use self::classic::{program, Instruction, Key};
pub(crate) use self::ebpf::{Ebpf, Layout};
pub(crate) use self::plan::{plan, Seats, Standing, SEATS_MAX};

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
    /// What the scoreboard says to whoever attaches programs.
    pub(crate) program: u64,
    /// Who picks the worker, in words.
    pub(crate) method: &'static str,
    /// The kernel's own count of connections decides.
    pub(crate) ebpf: Option<Ebpf>,
}

/// Makes the scoreboard for so many processes, in memory that the kernel sees if it is to decide, and says in the log
/// who picks the worker for a new connection.
pub(crate) fn choose(balance: Balance, processes: usize, addresses: usize) -> io::Result<(Scoreboard, Steering)> {
    let classic = |program, method| Ok((Scoreboard::new(processes)?, Steering { program, method, ebpf: None }));
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
        Balance::Auto | Balance::LeastConnections => match load(processes, addresses) {
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

fn load(processes: usize, addresses: usize) -> io::Result<(Scoreboard, Ebpf)> {
    let memory = Memory::new(Scoreboard::len(processes))?;
    let ebpf = Ebpf::load(&Scoreboard::layout(processes), &memory, addresses)?;
    Ok((Scoreboard::in_memory(processes, &memory)?, ebpf))
}

/// Busy for this long with one turn of the loop is stalled, for a new connection; times are cut to milliseconds, so this
/// is more than one.
const STALLED: Duration = Duration::from_millis(2);

/// Whether a worker is busy with something long.
pub(crate) fn is_stalled(row: Row<'_>, now: Time) -> bool {
    row.busy_since().is_some_and(|since| now.since(since) >= STALLED)
}

/// Brings the kernel's choice up to date with the scoreboard, in each group: `listeners` has a socket of each. `who` is
/// the row of the process that runs this, 0 for the parent.
///
/// # Errors
///
/// What the kernel says to the program. The groups keep what they had.
pub(crate) fn steer(
    board: &Scoreboard,
    cpus: &[usize],
    who: usize,
    now: Time,
    listeners: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let is_due = board.steers() != NOTHING && !listeners.is_empty();
    if is_due && look(board, now) != board.steered() && board.lock_steering(who, now) {
        // Under the lock, so that what is attached last is what is noted last.
        let allowed = look(board, now);
        let result = attach(board, cpus, &allowed, listeners);
        board.unlock_steering(who, result.is_ok().then_some(&allowed));
        return result;
    }
    Ok(())
}

/// Steers as if two seats did not exist, whatever the scoreboard says: for the moment in which the indexes change.
pub(crate) fn steer_around(
    board: &Scoreboard,
    cpus: &[usize],
    now: Time,
    without: [usize; 2],
    listeners: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut allowed = look(board, now);
    without.iter().for_each(|seat| allowed.remove(*seat));
    match allowed.is_empty() || board.steers() == NOTHING {
        true => Ok(()),
        false => attach(board, cpus, &allowed, listeners),
    }
}

/// What the kernel should be told.
fn look(board: &Scoreboard, now: Time) -> Seats {
    plan(board.seats().map(|row| match row {
        0 => Standing::Vacant,
        row => {
            let row = board.row(row);
            match () {
                () if row.is_full() => Standing::Full,
                () if is_stalled(row, now) => Standing::Stalled,
                () => Standing::Free,
            }
        }
    }))
}

fn attach(board: &Scoreboard, cpus: &[usize], allowed: &Seats, listeners: &[BorrowedFd<'_>]) -> io::Result<()> {
    // A slot's CPU follows from its number, see `Seed`.
    let slots = || board.slots().map(|slot| cpus.get(slot % cpus.len().max(1)).copied().unwrap_or(0));
    let on: Vec<usize> = if board.steers() == CPU { slots().collect() } else { Vec::new() };
    let key = match board.steers() {
        CPU => Key::Cpu(&on),
        CLIENT => Key::Client { seats: board.slots().count() },
        _ => Key::Random,
    };
    let program = program(allowed, key);
    listeners.iter().try_for_each(|listener| sys::filter::attach(*listener, &program))
}
