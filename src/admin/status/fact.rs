//! PURE. The changes in a pool, and their encoding for the admin process: numbers as eight bytes, texts after their
//! length.

use super::{Event, Level, Pool, Process, Slot, State, WorkerState};
use crate::shared::config::Config;

/// A change. Applying the same fact twice has no effect, except for events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Pool(Pool),
    Process(Process),
    /// The process has gone; the slot now has these counters.
    Gone(i32, usize, Slot),
    Event(Event),
    /// The inodes of a slot's listening sockets.
    Sockets(usize, Vec<u64>),
    /// Nothing follows: the pool ends, or a new pool takes over the admin address.
    End,
}

/// The maximum length of a text, in bytes.
const TEXT_MAX: usize = 2048;

impl Fact {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder(Vec::new());
        match self {
            Fact::Pool(pool) => {
                out.number(0).number(place(&State::ALL, &pool.state)).number(number(pool.pid));
                out.number(pool.started).number(pool.wanted as u64).number(pool.serving as u64);
                out.number(pool.listening.len() as u64);
                for address in &pool.listening {
                    out.text(address);
                }
                out.text(&pool.because).text(&pool.balance).optional(pool.restart_aborted.as_deref());
                out.number(pool.lost).number(pool.max_held).number(pool.certificates.len() as u64);
                for (file, until) in &pool.certificates {
                    out.text(file).number(*until);
                }
            }
            Fact::Gone(pid, id, slot) => {
                out.number(1).number(number(*pid)).number(*id as u64);
                for count in slot.restarts {
                    out.number(count);
                }
                out.optional(slot.last_exit.as_deref()).number(slot.cpu).number(slot.has_programs.into());
            }
            Fact::Process(it) => {
                out.number(2).number(number(it.pid)).number(it.slot as u64).number(it.row as u64);
                out.number(it.generation).number(place(&WorkerState::ALL, &it.state)).number(it.since);
                out.number(it.is_program.into());
            }
            Fact::Event(event) => {
                out.number(3).number(event.seq).number(event.time).number(place(&Level::ALL, &event.level));
                out.text(&event.kind).maybe(event.worker.map(|slot| slot as u64)).maybe(event.generation);
                out.maybe(event.pid.map(number)).optional(event.reason.as_deref()).text(&event.text);
            }
            Fact::End => _ = out.number(4),
            Fact::Sockets(slot, inodes) => {
                out.number(5).number(*slot as u64).number(inodes.len() as u64);
                inodes.iter().for_each(|inode| _ = out.number(*inode));
            }
        }
        out.0
    }

    /// Returns `None` if the bytes are no fact.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Fact> {
        let mut bytes = Decoder(bytes);
        let fact = match bytes.number()? {
            0 => Fact::Pool(Pool {
                state: bytes.one_of(&State::ALL)?,
                pid: bytes.pid()?,
                started: bytes.number()?,
                // The status shows as many slots as are wanted.
                wanted: bytes.size().filter(|wanted| *wanted <= Config::WORKERS_MAX)?,
                serving: bytes.size()?,
                listening: (0..bytes.number()?).map(|_| bytes.text()).collect::<Option<_>>()?,
                because: bytes.text()?,
                balance: bytes.text()?,
                restart_aborted: bytes.optional()?,
                lost: bytes.number()?,
                max_held: bytes.number()?,
                certificates: (0..bytes.number()?)
                    .map(|_| Some((bytes.text()?, bytes.number()?)))
                    .collect::<Option<_>>()?,
            }),
            1 => {
                let (pid, id, mut slot) = (bytes.pid()?, bytes.size()?, Slot::default());
                for count in &mut slot.restarts {
                    *count = bytes.number()?;
                }
                slot.last_exit = bytes.optional()?;
                slot.cpu = bytes.number()?;
                slot.has_programs = bytes.number()? != 0;
                Fact::Gone(pid, id, slot)
            }
            2 => Fact::Process(Process {
                pid: bytes.pid()?,
                slot: bytes.size()?,
                row: bytes.size()?,
                generation: bytes.number()?,
                state: bytes.one_of(&WorkerState::ALL)?,
                since: bytes.number()?,
                is_program: bytes.number()? != 0,
            }),
            3 => Fact::Event(Event {
                seq: bytes.number()?,
                time: bytes.number()?,
                level: bytes.one_of(&Level::ALL)?,
                kind: bytes.text()?,
                worker: bytes.maybe()?.map(usize::try_from).transpose().ok()?,
                generation: bytes.maybe()?,
                pid: bytes.maybe()?.map(i32::try_from).transpose().ok()?,
                reason: bytes.optional()?,
                text: bytes.text()?,
            }),
            4 => Fact::End,
            5 => {
                let (slot, len) = (bytes.size()?, bytes.number()?);
                Fact::Sockets(slot, (0..len).map(|_| bytes.number()).collect::<Option<_>>()?)
            }
            _ => return None,
        };
        bytes.0.is_empty().then_some(fact)
    }
}

fn number(pid: i32) -> u64 {
    u64::try_from(pid).unwrap_or(0)
}

fn place<T: PartialEq>(all: &[T], it: &T) -> u64 {
    all.iter().position(|other| other == it).unwrap_or(0) as u64
}

struct Encoder(Vec<u8>);

impl Encoder {
    fn number(&mut self, number: u64) -> &mut Encoder {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Encoder {
        let text = beginning(text, TEXT_MAX);
        self.number(text.len() as u64).0.extend_from_slice(text.as_bytes());
        self
    }

    fn maybe(&mut self, number: Option<u64>) -> &mut Encoder {
        self.number(u64::from(number.is_some())).number(number.unwrap_or_default())
    }

    fn optional(&mut self, text: Option<&str>) -> &mut Encoder {
        self.number(u64::from(text.is_some())).text(text.unwrap_or_default())
    }
}

/// Returns the longest beginning of a text that has at most so many bytes, cut between characters.
pub(super) fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

struct Decoder<'b>(&'b [u8]);

impl Decoder<'_> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn size(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    fn pid(&mut self) -> Option<i32> {
        i32::try_from(self.number()?).ok()
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        all.get(self.size()?).copied()
    }

    fn text(&mut self) -> Option<String> {
        let len = self.size()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn maybe(&mut self) -> Option<Option<u64>> {
        let (is_some, number) = (self.number()?, self.number()?);
        Some((is_some != 0).then_some(number))
    }

    fn optional(&mut self) -> Option<Option<String>> {
        let (is_some, text) = (self.number()?, self.text()?);
        Some((is_some != 0).then_some(text))
    }
}
