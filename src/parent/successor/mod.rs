//! Upgrade: starting a new binary with all sockets of this pool, and taking them over in the new one.
//!
//! The sockets stay open across execve(2), and a variable says what each descriptor is:
//!
//! ```text
//! FORKPOOL_UPGRADE = STREAM                    the stream on which the new parent says that it serves
//!                    RESERVED FD,-,... ADDRESS an address, and its slots' sockets in the order of the kernel's group;
//!                                              a hyphen for a slot that has none
//!                    RESERVED - ADDRESS        one that all workers share
//!                    - FD,FD,... ADDRESS       one for UDP
//!                    FD - admin:ADDRESS        the admin process's
//!                    - FD,FD,... handover:     the pair of each slot by which connections are passed on: its sending
//!                                              end, then its receiving one; hyphens for a slot without
//!                    FD - tickets:             the secrets of session tickets, a file in memory
//! ```

#[cfg(not(any(fuzzing, test)))]
mod variable;
#[cfg(any(fuzzing, test))]
pub(crate) mod variable;

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::fcntl::{fcntl, FcntlArg, FdFlag};

use crate::error;
use crate::shared::handover::Pair;
use crate::shared::listener::{Given, Reserved, SlotSockets};
use crate::shared::signals;
use crate::sys;

const VARIABLE: &str = "FORKPOOL_UPGRADE";

/// The message of the new parent that it serves.
const SERVING: u8 = b'S';

/// The same, if it takes connections over; followed by the number of slots that do, in two bytes, little-endian. Only
/// for an old pool that has passed pairs on.
const TAKING: u8 = b'T';

/// What the old pool hands over to this one.
#[derive(Debug)]
pub(crate) struct Inheritance {
    stream: UnixStream,
    addresses: Vec<Inherited>,
    /// For each TCP address of this pool, in order, the index of that address in the old pool.
    columns: Vec<Option<usize>>,
    /// The same for each UDP address.
    udp_columns: Vec<Option<usize>>,
}

#[derive(Debug)]
struct Inherited {
    address: String,
    reserved: Option<OwnedFd>,
    /// One for each slot that has it; empty if all workers share one.
    slots: Vec<Option<OwnedFd>>,
}

impl Inheritance {
    /// Takes what the old pool has handed over, if this process was started by an upgrade. To be called once.
    ///
    /// # Errors
    ///
    /// If the variable was not made by a pool, or the descriptors do not exist.
    pub(crate) fn take() -> io::Result<Option<Inheritance>> {
        let Some(text) = std::env::var_os(VARIABLE) else { return Ok(None) };
        // Processes that this one starts must not see it, nor a second pool in this process.
        sys::process::remove_variable(VARIABLE);
        Inheritance::parse(&text).map(Some)
    }

    fn parse(text: &OsStr) -> io::Result<Inheritance> {
        let invalid = || io::Error::from(ErrorKind::InvalidData);
        let said = text.to_str().and_then(variable::read).ok_or_else(invalid)?;
        // On failure, those that were already taken are closed.
        let adopt = |number: Option<RawFd>| number.map(sys::fds::inherited).transpose();
        let stream = sys::fds::inherited(said.stream)?.into();
        let mut addresses = Vec::new();
        for address in said.addresses {
            let slots = address.slots.into_iter().map(adopt).collect::<io::Result<_>>()?;
            addresses.push(Inherited { address: address.name, reserved: adopt(address.reserved)?, slots });
        }
        Ok(Inheritance { stream, addresses, columns: Vec::new(), udp_columns: Vec::new() })
    }

    /// The reserved socket of an address of this pool, if the old pool had it. To be called for each address, in order.
    pub(crate) fn reserved(&mut self, address: &str) -> Option<OwnedFd> {
        let escaped = address.escape_default().to_string();
        let index = self.addresses.iter().position(|it| it.reserved.is_some() && it.address == escaped);
        if !address.starts_with("unix:") {
            self.columns.push(index);
        }
        self.addresses[index?].reserved.take()
    }

    /// A copy of a socket of a UDP address of this pool, if the old pool had any. To be called for each address, in
    /// order.
    pub(crate) fn udp(&mut self, name: &str) -> Option<OwnedFd> {
        let escaped = name.escape_default().to_string();
        let is_it = |(index, it): (usize, &Inherited)| {
            let is_free = it.address == escaped && !self.udp_columns.contains(&Some(index));
            it.slots.iter().flatten().next()?.try_clone().ok().filter(|_| is_free).map(|socket| (index, socket))
        };
        let found = self.addresses.iter().enumerate().find_map(is_it);
        self.udp_columns.push(found.as_ref().map(|(index, _)| *index));
        found.map(|(_, socket)| socket)
    }

    /// The admin process's socket, if the old pool's had the same address.
    pub(crate) fn admin(&mut self, address: &str) -> Option<OwnedFd> {
        let marked = format!("{ADMIN}{}", address.escape_default());
        self.addresses.iter_mut().find(|it| it.address == marked)?.reserved.take()
    }

    /// The secrets of the old pool's session tickets.
    pub(crate) fn tickets(&mut self) -> Option<OwnedFd> {
        self.addresses.iter_mut().find(|it| it.address == TICKETS)?.reserved.take()
    }

    /// The sockets that were passed to the old pool, whatever this pool is configured to listen on.
    pub(crate) fn given(&mut self) -> error::Result<Vec<Reserved>> {
        let given = self.addresses.iter_mut().filter_map(|it| {
            let name = it.address.strip_prefix(GIVEN)?.to_owned();
            Some(Given::new(name, it.reserved.take()?).map(Reserved::Given))
        });
        given.collect()
    }

    /// The pairs of sockets by which connections are passed on, by slot.
    pub(crate) fn pairs(&mut self) -> Vec<Option<Pair>> {
        let Some(it) = self.addresses.iter_mut().find(|it| it.address == HANDOVER) else { return Vec::new() };
        let mut ends = std::mem::take(&mut it.slots).into_iter();
        let mut pairs = Vec::new();
        while let (Some(sender), Some(receiver)) = (ends.next(), ends.next()) {
            pairs.push(sender.zip(receiver).and_then(|(sender, receiver)| Pair::inherited(sender, receiver)));
        }
        pairs
    }

    /// The slots' sockets, as far as the old pool had them, and the channel on which to report that this pool serves.
    pub(crate) fn finish(self) -> (Vec<SlotSockets>, Predecessor) {
        let mut addresses: Vec<_> = self.addresses.into_iter().map(|it| it.slots.into_iter()).collect();
        let slots = self
            .columns
            .iter()
            .chain(&self.udp_columns)
            .flatten()
            .map(|index| addresses[*index].len())
            .max()
            .unwrap_or(0);
        let mut slot = || {
            let mut column = |index: &Option<usize>| addresses[(*index)?].next().flatten();
            let tcp = self.columns.iter().map(&mut column).collect();
            SlotSockets::new(tcp, self.udp_columns.iter().map(&mut column).collect())
        };
        ((0..slots).map(|_| slot()).collect(), Predecessor { stream: self.stream })
    }
}

/// Marks a socket passed by another program, in place of an address.
const GIVEN: &str = "given:";

/// Marks the admin process's socket.
const ADMIN: &str = "admin:";

/// Marks the pairs of the slots.
const HANDOVER: &str = "handover:";
/// Marks the secrets of session tickets.
const TICKETS: &str = "tickets:";

/// The channel to the old pool.
#[derive(Debug)]
pub(crate) struct Predecessor {
    stream: UnixStream,
}

impl Predecessor {
    /// Reports to the old pool that this one serves, and takes its connections over in this number of slots. If it has
    /// gone, that is fine.
    pub(crate) fn serve(&mut self, slots: usize) {
        let [low, high] = u16::try_from(slots).unwrap_or(u16::MAX).to_le_bytes();
        let message = [TAKING, low, high];
        let _ = self.stream.write_all(if slots == 0 { &[SERVING] } else { &message });
    }

    /// Ends when the old pool has released the sockets.
    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

/// What the new binary gets besides the sockets of addresses.
#[derive(Debug)]
pub(crate) struct HandedOver<'a> {
    /// The pairs of the slots, by which connections are passed on.
    pub(crate) pairs: &'a [Option<&'a Pair>],
    /// The secrets of session tickets.
    pub(crate) tickets: Option<OwnedFd>,
}

/// The new binary, as the old parent sees it.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(crate) pid: i32,
    stream: UnixStream,
}

impl Successor {
    /// Starts this program again, as it was started: with the same name, looked up again, and the same arguments.
    ///
    /// # Errors
    ///
    /// If it cannot be executed.
    pub(crate) fn spawn(
        addresses: &[String],
        reserved: &[Reserved],
        slots: &[&SlotSockets],
        HandedOver { pairs, tickets }: HandedOver<'_>,
        admin: Option<(&str, BorrowedFd<'_>)>,
    ) -> io::Result<Successor> {
        let (stream, theirs) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        let mut passed = vec![theirs.as_fd()];
        let mut text = format!("{}\n", theirs.as_raw_fd());
        let mut column = 0;
        let mut addresses = addresses.iter();
        for reserved in reserved {
            let fd = reserved.fd();
            passed.extend(fd);
            let (list, address) = match reserved {
                Reserved::Tcp(_) | Reserved::Udp(_) => {
                    let sockets: Vec<Option<BorrowedFd<'_>>> = slots.iter().map(|slot| slot.fd(column)).collect();
                    column += 1;
                    passed.extend(sockets.iter().flatten());
                    let list: Vec<String> = sockets.into_iter().map(number).collect();
                    let list = if list.is_empty() { "-".to_owned() } else { list.join(",") };
                    (list, if matches!(reserved, Reserved::Udp(_)) { None } else { addresses.next() })
                }
                Reserved::Unix(_) => ("-".to_owned(), addresses.next()),
                Reserved::Given(_) => ("-".to_owned(), None),
            };
            let address = match (reserved, address) {
                (Reserved::Given(given), _) => format!("{GIVEN}{}", given.name()),
                (Reserved::Udp(udp), _) => udp.name().escape_default().to_string(),
                (_, address) => address.map(|it| it.escape_default().to_string()).unwrap_or_default(),
            };
            text.push_str(&format!("{} {list} {address}\n", number(fd)));
        }
        if !pairs.is_empty() {
            let ends: Vec<_> = pairs.iter().map(|pair| pair.map(|it| [it.sender(), it.receiver()])).collect();
            passed.extend(ends.iter().flatten().flatten().copied());
            let list = ends.iter().flat_map(|ends| match ends {
                Some([sender, receiver]) => [number(Some(*sender)), number(Some(*receiver))],
                None => [number(None), number(None)],
            });
            text.push_str(&format!("- {} {HANDOVER}\n", list.collect::<Vec<_>>().join(",")));
        }
        if let Some((address, fd)) = admin {
            passed.push(fd);
            text.push_str(&format!("{} - {ADMIN}{}\n", fd.as_raw_fd(), address.escape_default()));
        }
        if let Some(tickets) = &tickets {
            passed.push(tickets.as_fd());
            text.push_str(&format!("{} - {TICKETS}\n", tickets.as_raw_fd()));
        }
        let mut arguments = std::env::args_os();
        let program = arguments.next().ok_or(ErrorKind::NotFound)?;
        let mut command = Command::new(program);
        command.args(arguments).env(VARIABLE, text);
        // They name this process; their information is passed on in another way.
        for variable in ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            command.env_remove(variable);
        }
        sys::signal::spawn_as_started(&mut command);
        keep_open(&passed, true)?;
        // The new binary unblocks these signals once it handles them.
        let held = signals::hold();
        let child = held.and_then(|_held| command.spawn());
        keep_open(&passed, false)?;
        let pid = i32::try_from(child?.id()).map_err(|_| ErrorKind::InvalidData)?;
        Ok(Successor { pid, stream })
    }

    /// Readable when the new parent has sent something, or has gone.
    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether the new parent has reported that it serves, and in how many slots it takes connections over.
    pub(crate) fn serves(&mut self) -> Option<usize> {
        let mut bytes = [0; 3];
        match (self.stream.read(&mut bytes), bytes) {
            (Ok(1), [SERVING, ..]) => Some(0),
            (Ok(3), [TAKING, low, high]) => Some(u16::from_le_bytes([low, high]).into()),
            _ => None,
        }
    }
}

/// How a descriptor is named to the new binary.
fn number(fd: Option<BorrowedFd<'_>>) -> String {
    fd.map_or_else(|| "-".to_owned(), |fd| fd.as_raw_fd().to_string())
}

/// Sets whether descriptors survive execve(2). The process has one thread, so nothing else is executed meanwhile.
fn keep_open(fds: &[BorrowedFd<'_>], open: bool) -> io::Result<()> {
    let flags = if open { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    fds.iter().try_for_each(|fd| Ok(fcntl(fd, FcntlArg::F_SETFD(flags)).map(drop)?))
}
