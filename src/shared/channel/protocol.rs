//! PURE. What a worker may report to the parent, in which order and how often.
//!
//! The parent trusts no worker. A worker that sends anything else, or sends it too often, has broken the protocol, and
//! is killed and replaced. A record is one byte, which in some cases a few more follow. The states in which each is
//! legal:
//!
//! ```text
//!            Listening          Ready             Executes               Program            Ready
//!   Born ──────────────► Bound ───────► Serving ──────────► Executing ──────────► Keeping ───────► Kept
//!                          └───────────────────────────────────┘ ▲ (another program, when one cannot be executed)
//!
//!   record      Born   Bound   Serving   Executing   Keeping   Kept   how often
//!   Listening   yes    ·       ·         ·           ·         ·      once
//!   Ready       ·      yes     ·         ·           yes       ·      once
//!   Awake       ·      yes     yes       ·           ·         ·      250 reads a second, and more after a pause
//!   Steer       ·      ·       yes       ·           ·         ·      the same
//!   Overflow    ·      ·       yes       ·           ·         ·      the same
//!   Released    ·      yes     yes       ·           ·         ·      once for each order to release
//!   Due         ·      yes     yes       ·           ·         ·      once
//!   Leave       ·      yes     yes       ·           ·         ·      once
//!   Broken      ·      yes     yes       ·           ·         ·      once a second, and a few at a time
//!   Executes    ·      yes     yes       yes         ·         ·      up to 8 times
//!   Program     ·      ·       ·         yes         ·         ·      once
//!   Accepts     ·      ·       ·         ·           yes       ·      once
//!   Answered    ·      ·       ·         ·           yes       ·      up to 8 times
//!   Remark      ·      ·       ·         ·           yes       yes    up to 8 times
//!   Stopped     ·      ·       ·         ·           yes       yes    twice a second together, and more after a pause
//!   Resumed     ·      ·       ·         ·           yes       yes    the same
//!   Failed      yes    yes     yes       yes         yes       yes    once; only its text follows
//! ```
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use super::remark::{self, Remark};
use crate::shared::pace::{Pace, Rate};
use crate::time::Time;

/// The maximum length of the reason that a failing worker sends, in bytes.
pub(super) const REASON_MAX: usize = 400;

/// How often the parent may find the same wake-up (`Awake`, `Steer` or `Overflow`) in a read. Handling a wake-up must
/// not take the parent more than a percent or two of a processor. The parent looks for stalls less often than this, so
/// a correct worker sends `Awake` less often.
///
/// A wake-up counts once per read, however often it is in it: while the parent pauses, many may accumulate.
const WAKE_UPS: Rate = Rate::new(WAKE_UP_EACH, 256);
const WAKE_UP_EACH: Duration = Duration::from_millis(4);

/// How often a worker sends `Steer` or `Overflow`. It saves up less than the parent allows, so a correct worker never
/// breaks the protocol.
pub(super) const REQUESTS: Rate = Rate::new(WAKE_UP_EACH, 128);

/// How often a worker may report a broken listener.
const BREAKS: Rate = Rate::new(Duration::from_secs(1), 16);

/// How often a keeper may report that a signal has stopped its program, or that it runs again; and how often it does.
/// After a pause the parent reads the reports of minutes at once.
const STOPS: Rate = Rate::new(Duration::from_millis(500), 256);
pub(crate) const STOPPING: Rate = Rate::new(Duration::from_secs(1), 8);

/// How often a keeper may say what its program has answered, and what it has noticed; and how often it does.
pub(crate) const REMARKS: u32 = 8;

/// How many programs a worker may try to execute, one after the other.
const EXECUTIONS: u32 = 8;

pub(super) const LISTENING: u8 = b'L';
pub(super) const READY: u8 = b'R';
pub(super) const AWAKE: u8 = b'A';
pub(super) const STEER: u8 = b'S';
pub(super) const OVERFLOW: u8 = b'O';
pub(super) const RELEASED: u8 = b'D';
pub(super) const DUE: u8 = b'M';
pub(super) const LEAVE: u8 = b'Q';
/// Followed by the number of the address, in two bytes, little-endian.
pub(super) const BROKEN: u8 = b'B';
pub(super) const EXECUTES: u8 = b'X';
/// Followed by the pid, in four bytes, little-endian.
pub(super) const PROGRAM: u8 = b'P';
pub(super) const ACCEPTS: u8 = b'W';
/// Followed by the status, in two bytes, little-endian.
pub(super) const ANSWERED: u8 = b'H';
/// Followed by the remark.
pub(super) const REMARK: u8 = b'N';
pub(super) const STOPPED: u8 = b'Z';
pub(super) const RESUMED: u8 = b'C';
/// Followed by text to the end of the stream.
pub(super) const FAILED: u8 = b'F';

/// A report of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// It listens, has closed what it inherited from the parent, and has passed copies of the sockets that it made.
    Listening,
    /// It serves.
    Ready,
    /// It has become busy while the parent was not looking for stalls.
    Awake,
    /// It asks the parent to check the steering.
    Steer,
    /// A connection waits in a queue that other workers accept from as well, and this one has no room for it.
    Overflow,
    /// It has let go of the sockets in the oldest order to release.
    Released,
    /// It has served as many requests as it may.
    Due,
    /// It asks to be told to finish.
    Leave,
    /// A socket of its own slot fails, by the number of its address: TCP addresses first, then UDP.
    Broken { address: usize },
    /// It is about to execute a program, whose keeper it becomes.
    Executes,
    /// The program runs. The pid comes from an untrusted worker, so it is shown to people and never signalled.
    Program { pid: i32 },
    /// That program waits for connections. The keeper will send it a request that asks whether it is ready.
    Accepts,
    /// The program has answered that request with this status, and so is not ready.
    Answered { status: u16 },
    /// What the keeper has noticed about the addresses that the program binds.
    Remark(Remark),
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
    /// The record is not legal in this state.
    Untimely(&'static str),
    TooOften(&'static str),
    /// The pool has no such address.
    Address(usize),
    /// The text of a failure is too long.
    Endless,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Unknown(byte) => write!(f, "it sent 0x{byte:02x}, which means nothing"),
            Violation::Untimely(record) => write!(f, "it sent \"{record}\" at the wrong time"),
            Violation::TooOften(record) => write!(f, "it sent \"{record}\" too often"),
            Violation::Address(address) => write!(f, "it named address {address}, which the pool does not have"),
            Violation::Endless => f.write_str("it gave a reason for its failure that is too long"),
        }
    }
}

/// The state of a worker in the protocol.
#[derive(Debug)]
pub(super) struct Protocol {
    state: State,
    /// The bytes of an incomplete record.
    partial: Vec<u8>,
    /// The number of addresses of the pool.
    addresses: usize,
    /// The number of orders to release that are still unanswered.
    releases: usize,
    wake_up_paces: WakeUpPaces,
    broken: Pace,
    was_due: bool,
    has_left: bool,
    executions: u32,
    keeper: KeeperUse,
    /// The reason that the worker gives for its failure, once it has begun to send it.
    reason: Option<Vec<u8>>,
}

/// How often each wake-up has come.
#[derive(Debug, Default)]
struct WakeUpPaces {
    awake: Pace,
    steer: Pace,
    overflow: Pace,
}

/// How often a keeper has sent each of its own records, for whatever program: another execution allows no more.
#[derive(Debug, Default)]
struct KeeperUse {
    accepts: bool,
    answers: u32,
    remarks: u32,
    stops: Pace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Born,
    Bound,
    Serving,
    Executing,
    /// A program runs and is not ready yet.
    Keeping,
    Kept,
    /// The worker has broken the protocol; the rest of its reports is ignored.
    Broken,
}

impl Protocol {
    /// The start of the protocol, in a pool with this number of TCP and UDP addresses.
    pub(super) fn new(addresses: usize) -> Protocol {
        Protocol {
            state: State::Born,
            partial: Vec::new(),
            addresses,
            releases: 0,
            wake_up_paces: WakeUpPaces::default(),
            broken: Pace::default(),
            was_due: false,
            has_left: false,
            executions: 0,
            keeper: KeeperUse::default(),
            reason: None,
        }
    }

    /// The worker was ordered to let go of sockets, and will report when it has.
    pub(super) fn ordered_release(&mut self) {
        self.releases += 1;
    }

    /// Decodes the bytes of one read. Records before a violation count; those after it do not.
    pub(super) fn take(&mut self, bytes: &[u8], now: Time, records: &mut Vec<Record>) -> Result<(), Violation> {
        let mut woken = WakeUps::default();
        for byte in bytes {
            if self.state == State::Broken {
                return Ok(());
            }
            let taken = self.take_byte(*byte, now, &mut woken, records);
            if taken.is_err() {
                self.state = State::Broken;
                return taken;
            }
        }
        Ok(())
    }

    fn take_byte(
        &mut self,
        byte: u8,
        now: Time,
        woken: &mut WakeUps,
        records: &mut Vec<Record>,
    ) -> Result<(), Violation> {
        if let Some(reason) = &mut self.reason {
            reason.push(byte);
            return if reason.len() <= REASON_MAX { Ok(()) } else { Err(Violation::Endless) };
        }
        self.partial.push(byte);
        if self.partial.len() <= following(self.partial[0]) {
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.partial);
        records.extend(self.decode(&bytes, now, woken)?);
        bytes.clear();
        self.partial = bytes;
        Ok(())
    }

    /// Decodes a whole record.
    fn decode(&mut self, bytes: &[u8], now: Time, woken: &mut WakeUps) -> Result<Option<Record>, Violation> {
        let record = match *bytes {
            [LISTENING] => self.once_in(State::Born, State::Bound, "listening", Record::Listening)?,
            [READY] if self.state != State::Keeping => {
                self.once_in(State::Bound, State::Serving, "ready", Record::Ready)?
            }
            [AWAKE] => {
                self.works("awake")?;
                return wake_up(&mut self.wake_up_paces.awake, &mut woken.awake, now, "awake", Record::Awake);
            }
            [STEER] if self.state == State::Serving => {
                return wake_up(&mut self.wake_up_paces.steer, &mut woken.steer, now, "steer", Record::Steer);
            }
            [STEER] => return Err(Violation::Untimely("steer")),
            [OVERFLOW] if self.state == State::Serving => {
                return wake_up(
                    &mut self.wake_up_paces.overflow,
                    &mut woken.overflow,
                    now,
                    "overflow",
                    Record::Overflow,
                );
            }
            [OVERFLOW] => return Err(Violation::Untimely("overflow")),
            [RELEASED] => {
                self.works("released")?;
                self.releases = self.releases.checked_sub(1).ok_or(Violation::TooOften("released"))?;
                Record::Released
            }
            [DUE] => {
                self.works("due")?;
                once(&mut self.was_due, "due")?;
                Record::Due
            }
            [LEAVE] => {
                self.works("leave")?;
                once(&mut self.has_left, "leave")?;
                Record::Leave
            }
            [BROKEN, low, high] => self.broken(usize::from(u16::from_le_bytes([low, high])), now)?,
            [EXECUTES] => {
                if self.state != State::Executing {
                    self.works("executes")?;
                }
                count(&mut self.executions, EXECUTIONS, "executes")?;
                self.state = State::Executing;
                Record::Executes
            }
            [FAILED] => {
                self.reason = Some(Vec::new());
                return Ok(None);
            }
            _ => self.decode_keepers(bytes, now)?,
        };
        Ok(Some(record))
    }

    /// Decodes a whole record about a program.
    fn decode_keepers(&mut self, bytes: &[u8], now: Time) -> Result<Record, Violation> {
        match *bytes {
            [PROGRAM, a, b, c, d] => {
                let program = Record::Program { pid: i32::from_le_bytes([a, b, c, d]) };
                self.once_in(State::Executing, State::Keeping, "program", program)
            }
            [READY] => self.once_in(State::Keeping, State::Kept, "ready", Record::Ready),
            [ACCEPTS] if self.state == State::Keeping => {
                once(&mut self.keeper.accepts, "accepts")?;
                Ok(Record::Accepts)
            }
            [ACCEPTS] => Err(Violation::Untimely("accepts")),
            [ANSWERED, low, high] if self.state == State::Keeping => {
                count(&mut self.keeper.answers, REMARKS, "answered")?;
                Ok(Record::Answered { status: u16::from_le_bytes([low, high]) })
            }
            [ANSWERED, ..] => Err(Violation::Untimely("answered")),
            [REMARK, ref remark @ ..] if matches!(self.state, State::Keeping | State::Kept) => {
                count(&mut self.keeper.remarks, REMARKS, "remark")?;
                let decoded = remark.first_chunk().and_then(Remark::decode);
                decoded.map(Record::Remark).ok_or(Violation::Unknown(REMARK))
            }
            [REMARK, ..] => Err(Violation::Untimely("remark")),
            [STOPPED] => self.keeps("stopped", Record::Stopped, now),
            [RESUMED] => self.keeps("resumed", Record::Resumed, now),
            [byte, ..] => Err(Violation::Unknown(byte)),
            [] => Err(Violation::Unknown(0)),
        }
    }

    fn broken(&mut self, address: usize, now: Time) -> Result<Record, Violation> {
        self.works("broken")?;
        if address >= self.addresses {
            return Err(Violation::Address(address));
        }
        self.broken.take(BREAKS, now).map_err(|_| Violation::TooOften("broken"))?;
        Ok(Record::Broken { address })
    }

    /// A record that is legal in one state and leads to the next.
    fn once_in(&mut self, state: State, next: State, name: &'static str, record: Record) -> Result<Record, Violation> {
        if self.state != state {
            return Err(Violation::Untimely(name));
        }
        self.state = next;
        Ok(record)
    }

    /// Whether the worker has its sockets and runs the application's code.
    fn works(&self, name: &'static str) -> Result<(), Violation> {
        match self.state {
            State::Bound | State::Serving => Ok(()),
            _ => Err(Violation::Untimely(name)),
        }
    }

    /// A record about a running program, if it is legal now.
    fn keeps(&mut self, name: &'static str, record: Record, now: Time) -> Result<Record, Violation> {
        if !matches!(self.state, State::Keeping | State::Kept) {
            return Err(Violation::Untimely(name));
        }
        self.keeper.stops.take(STOPS, now).map_err(|_| Violation::TooOften(name))?;
        Ok(record)
    }

    /// Returns why the worker failed, in its own words, on one line.
    pub(super) fn reason(&self) -> Option<String> {
        let words = String::from_utf8_lossy(self.reason.as_ref()?);
        Some(words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }
}

/// How many bytes follow the first one of a record.
fn following(kind: u8) -> usize {
    match kind {
        BROKEN | ANSWERED => 2,
        PROGRAM => 4,
        REMARK => remark::LEN,
        _ => 0,
    }
}

fn once(was_said: &mut bool, name: &'static str) -> Result<(), Violation> {
    match std::mem::replace(was_said, true) {
        false => Ok(()),
        true => Err(Violation::TooOften(name)),
    }
}

/// Counts a record that is legal a few times.
fn count(times: &mut u32, most: u32, name: &'static str) -> Result<(), Violation> {
    *times += 1;
    if *times <= most {
        Ok(())
    } else {
        Err(Violation::TooOften(name))
    }
}

/// The wake-ups that were already in this read.
#[derive(Default)]
struct WakeUps {
    awake: bool,
    steer: bool,
    overflow: bool,
}

/// Counts a wake-up, once per read.
fn wake_up(
    pace: &mut Pace,
    was_woken: &mut bool,
    now: Time,
    name: &'static str,
    record: Record,
) -> Result<Option<Record>, Violation> {
    if std::mem::replace(was_woken, true) {
        return Ok(None);
    }
    pace.take(WAKE_UPS, now).map_err(|_| Violation::TooOften(name))?;
    Ok(Some(record))
}
