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

use crate::scoreboard::{Row, Scoreboard};
use crate::sys;
use crate::time::Time;

pub(crate) use self::classic::{program, Instruction, Key};
pub(crate) use self::plan::{plan, Seats, Standing, SEATS_MAX};

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
pub(crate) fn steer(board: &Scoreboard, who: usize, now: Time, listeners: &[BorrowedFd<'_>]) -> io::Result<()> {
    if board.steers() && !listeners.is_empty() && look(board, now) != board.steered() && board.lock_steering(who, now) {
        // Under the lock, so that what is attached last is what is noted last.
        let allowed = look(board, now);
        let result = attach(&allowed, listeners);
        board.unlock_steering(who, result.is_ok().then_some(&allowed));
        return result;
    }
    Ok(())
}

/// Steers as if `without` did not exist, whatever the scoreboard says: for the moment in which the indexes change.
pub(crate) fn steer_around(
    board: &Scoreboard,
    now: Time,
    without: [usize; 2],
    listeners: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut allowed = look(board, now);
    without.iter().for_each(|seat| allowed.remove(*seat));
    match allowed.is_empty() || !board.steers() {
        true => Ok(()),
        false => attach(&allowed, listeners),
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

fn attach(allowed: &Seats, listeners: &[BorrowedFd<'_>]) -> io::Result<()> {
    let program = program(allowed, Key::Random);
    listeners.iter().try_for_each(|listener| sys::filter::attach(*listener, &program))
}
