//! PURE. What a worker may say to the parent, in which order and how often.
//!
//! The parent trusts none of it: a worker that says anything else, or says it too often, has broken the protocol, and
//! is killed and replaced. A record is a byte, some with a few more behind it. What each is legal in:
//!
//! ```text
//!            Listening          Ready             Executes               Program            Ready
//!   Born ──────────────► Bound ───────► Serving ──────────► Executing ──────────► Keeping ───────► Kept
//!                          └───────────────────────────────────┘ ▲ (another program, when one cannot be executed)
//!
//!   record      Born   Bound   Serving   Executing   Keeping   Kept   how often
//!   Listening   yes    ·       ·         ·           ·         ·      once
//!   Ready       ·      yes     ·         ·           yes       ·      once
//!   Awake       ·      yes     yes       ·           ·         ·      250 readings a second, and more after a pause
//!   Steer       ·      ·       yes       ·           ·         ·      the same
//!   Released    ·      yes     yes       ·           ·         ·      once for each order to release
//!   Due         ·      yes     yes       ·           ·         ·      once
//!   Leave       ·      yes     yes       ·           ·         ·      once
//!   Broken      ·      yes     yes       ·           ·         ·      once a second, and a few at a time
//!   Executes    ·      yes     yes       yes         ·         ·      a few times
//!   Program     ·      ·       ·         yes         ·         ·      once
//!   Stopped     ·      ·       ·         ·           yes       yes    twice a second together, and more after a pause
//!   Resumed     ·      ·       ·         ·           yes       yes    the same
//!   Failed      yes    yes     yes       yes         yes       yes    once; only its text follows
//! ```
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::shared::pace::{Pace, Rate};
use crate::time::Time;

/// Most bytes of the reason that a failing worker sends.
pub(super) const REASON_MAX: usize = 400;

/// Between two readings of the parent's with the same bell in it, on average: what the parent does each time must not take
/// it more than a percent or two of a processor. It rests for longer between two looks for stalls, and so does not hear
/// `Awake` as often from anybody who does as agreed.
///
/// A reading counts once, however often the bell is in it: after a pause of the parent's many have come.
const BELL: Rate = Rate::new(BELL_EACH, 256);
const BELL_EACH: Duration = Duration::from_millis(4);

/// How often a worker rings for steering: less at once than the parent allows, so that one that does as agreed never
/// breaks the protocol.
pub(super) const RINGING: Rate = Rate::new(BELL_EACH, 128);

/// How often listeners of one worker may break.
const BREAKS: Rate = Rate::new(Duration::from_secs(1), 16);

/// How often the parent may be told that a signal has stopped a program, or that it runs again; and how often it is: after
/// a pause of the parent's, what minutes have gathered comes at once.
const STOPS: Rate = Rate::new(Duration::from_millis(500), 256);
pub(crate) const STOPPING: Rate = Rate::new(Duration::from_secs(1), 8);

/// Programs that a worker may try to execute, one after the other.
const EXECUTIONS: u32 = 8;

pub(super) const LISTENING: u8 = b'L';
pub(super) const READY: u8 = b'R';
pub(super) const AWAKE: u8 = b'A';
pub(super) const STEER: u8 = b'S';
pub(super) const RELEASED: u8 = b'D';
pub(super) const DUE: u8 = b'M';
pub(super) const LEAVE: u8 = b'Q';
/// Followed by the number of the address, in two bytes, the lower one first.
pub(super) const BROKEN: u8 = b'B';
pub(super) const EXECUTES: u8 = b'X';
/// Followed by its pid, in four bytes, the lowest first.
pub(super) const PROGRAM: u8 = b'P';
pub(super) const STOPPED: u8 = b'Z';
pub(super) const RESUMED: u8 = b'C';
/// Followed by text, until the end.
pub(super) const FAILED: u8 = b'F';

/// What a worker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// It listens, holds nothing of the parent's any more, and has handed over copies of the sockets that it made.
    Listening,
    /// It serves.
    Ready,
    /// It has become busy while the parent was not watching for stalls.
    Awake,
    /// It asks the parent to look at who is to get new connections.
    Steer,
    /// It has let go of the sockets that it was first ordered to release.
    Released,
    /// It has served as many requests as it may.
    Due,
    /// It wants to be told to finish.
    Leave,
    /// A socket of its own slot fails: the one of this address, counted among the TCP and then the UDP addresses.
    Broken { address: usize },
    /// It is about to execute a program, which it keeps from then on.
    Executes,
    /// That program runs. Its pid is for people: a number that a worker says, and so nothing to signal.
    Program { pid: i32 },
    /// A signal has stopped the program.
    Stopped,
    /// The program runs again.
    Resumed,
}

/// How a worker has broken the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// There is no such record.
    Unknown(u8),
    /// The record has its time, and this is another.
    Untimely(&'static str),
    TooOften(&'static str),
    /// The pool has no such address.
    Address(usize),
    /// The text of a failure does not end.
    Endless,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Unknown(byte) => write!(f, "it sent 0x{byte:02x}, which means nothing"),
            Violation::Untimely(record) => write!(f, "it said \"{record}\" at the wrong time"),
            Violation::TooOften(record) => write!(f, "it said \"{record}\" too often"),
            Violation::Address(address) => write!(f, "it spoke of address {address}, which the pool does not have"),
            Violation::Endless => f.write_str("it gave a reason for its failure that does not end"),
        }
    }
}

/// Where a worker is in the protocol.
#[derive(Debug)]
pub(super) struct Protocol {
    state: State,
    /// The beginning of a record whose other bytes have not come.
    begun: Vec<u8>,
    /// How many addresses the pool has.
    addresses: usize,
    /// Orders to release that it has not answered.
    releases: usize,
    awake: Pace,
    steer: Pace,
    broken: Pace,
    stops: Pace,
    was_due: bool,
    has_left: bool,
    executions: u32,
    /// The worker's last words, once it has begun to say them.
    reason: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Born,
    Bound,
    Serving,
    Executing,
    /// A program runs that is not ready.
    Keeping,
    Kept,
    /// It has broken the protocol, and is not listened to any more.
    Broken,
}

impl Protocol {
    /// A worker of a pool that has this many TCP and UDP addresses.
    pub(super) fn new(addresses: usize) -> Protocol {
        Protocol {
            state: State::Born,
            begun: Vec::new(),
            addresses,
            releases: 0,
            awake: Pace::default(),
            steer: Pace::default(),
            broken: Pace::default(),
            stops: Pace::default(),
            was_due: false,
            has_left: false,
            executions: 0,
            reason: None,
        }
    }

    /// The worker has been ordered to let go of something, and will say when it has.
    pub(super) fn ordered_release(&mut self) {
        self.releases += 1;
    }

    /// Takes in what was read at once. Records before a violation count; nothing behind it does.
    pub(super) fn take(&mut self, bytes: &[u8], now: Time, records: &mut Vec<Record>) -> Result<(), Violation> {
        let mut rung = Rung::default();
        for byte in bytes {
            if self.state == State::Broken {
                return Ok(());
            }
            let taken = self.take_byte(*byte, now, &mut rung, records);
            if taken.is_err() {
                self.state = State::Broken;
                return taken;
            }
        }
        Ok(())
    }

    fn take_byte(&mut self, byte: u8, now: Time, rung: &mut Rung, records: &mut Vec<Record>) -> Result<(), Violation> {
        if let Some(reason) = &mut self.reason {
            reason.push(byte);
            return if reason.len() <= REASON_MAX { Ok(()) } else { Err(Violation::Endless) };
        }
        self.begun.push(byte);
        let record = match self.begun[..] {
            [LISTENING] => self.once_in(State::Born, State::Bound, "listening", Record::Listening)?,
            [READY] if self.state == State::Keeping => {
                self.once_in(State::Keeping, State::Kept, "ready", Record::Ready)?
            }
            [READY] => self.once_in(State::Bound, State::Serving, "ready", Record::Ready)?,
            [AWAKE] => {
                self.works("awake")?;
                ring(&mut self.awake, &mut rung.awake, now, "awake", Record::Awake)?
            }
            [STEER] if self.state == State::Serving => {
                ring(&mut self.steer, &mut rung.steer, now, "steer", Record::Steer)?
            }
            [STEER] => return Err(Violation::Untimely("steer")),
            [RELEASED] => {
                self.works("released")?;
                self.releases = self.releases.checked_sub(1).ok_or(Violation::TooOften("released"))?;
                Some(Record::Released)
            }
            [DUE] => {
                self.works("due")?;
                once(&mut self.was_due, "due")?;
                Some(Record::Due)
            }
            [LEAVE] => {
                self.works("leave")?;
                once(&mut self.has_left, "leave")?;
                Some(Record::Leave)
            }
            [BROKEN] | [BROKEN, _] => return Ok(()),
            [BROKEN, low, high] => Some(self.broken(usize::from(u16::from_le_bytes([low, high])), now)?),
            [EXECUTES] => {
                if self.state != State::Executing {
                    self.works("executes")?;
                }
                self.executions += 1;
                if self.executions > EXECUTIONS {
                    return Err(Violation::TooOften("executes"));
                }
                self.state = State::Executing;
                Some(Record::Executes)
            }
            [PROGRAM, ref pid @ ..] if pid.len() < 4 => return Ok(()),
            [PROGRAM, a, b, c, d] => {
                let program = Record::Program { pid: i32::from_le_bytes([a, b, c, d]) };
                self.once_in(State::Executing, State::Keeping, "program", program)?
            }
            [STOPPED] => Some(self.keeps("stopped", Record::Stopped, now)?),
            [RESUMED] => Some(self.keeps("resumed", Record::Resumed, now)?),
            [FAILED] => {
                self.reason = Some(Vec::new());
                None
            }
            _ => return Err(Violation::Unknown(byte)),
        };
        self.begun.clear();
        records.extend(record);
        Ok(())
    }

    fn broken(&mut self, address: usize, now: Time) -> Result<Record, Violation> {
        self.works("broken")?;
        if address >= self.addresses {
            return Err(Violation::Address(address));
        }
        self.broken.take(BREAKS, now).map_err(|_| Violation::TooOften("broken"))?;
        Ok(Record::Broken { address })
    }

    /// A record that leads from one state to the next.
    fn once_in(
        &mut self,
        state: State,
        next: State,
        name: &'static str,
        record: Record,
    ) -> Result<Option<Record>, Violation> {
        if self.state != state {
            return Err(Violation::Untimely(name));
        }
        self.state = next;
        Ok(Some(record))
    }

    /// Whether the worker has its sockets and runs the application's code.
    fn works(&self, name: &'static str) -> Result<(), Violation> {
        match self.state {
            State::Bound | State::Serving => Ok(()),
            _ => Err(Violation::Untimely(name)),
        }
    }

    /// Whether the worker keeps a program of which this may be said now.
    fn keeps(&mut self, name: &'static str, record: Record, now: Time) -> Result<Record, Violation> {
        if !matches!(self.state, State::Keeping | State::Kept) {
            return Err(Violation::Untimely(name));
        }
        self.stops.take(STOPS, now).map_err(|_| Violation::TooOften(name))?;
        Ok(record)
    }

    /// Why the worker gave up, in its own words, on one line.
    pub(super) fn reason(&self) -> Option<String> {
        let words = String::from_utf8_lossy(self.reason.as_ref()?);
        Some(words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }
}

fn once(was_said: &mut bool, name: &'static str) -> Result<(), Violation> {
    match std::mem::replace(was_said, true) {
        false => Ok(()),
        true => Err(Violation::TooOften(name)),
    }
}

/// Which of the records that mean no more when they are repeated were in this reading.
#[derive(Default)]
struct Rung {
    awake: bool,
    steer: bool,
}

/// Counts a bell, once in each reading.
fn ring(
    pace: &mut Pace,
    has_rung: &mut bool,
    now: Time,
    name: &'static str,
    record: Record,
) -> Result<Option<Record>, Violation> {
    if std::mem::replace(has_rung, true) {
        return Ok(None);
    }
    pace.take(BELL, now).map_err(|_| Violation::TooOften(name))?;
    Ok(Some(record))
}
