//! Programs that bind one of the pool's addresses themselves get the pool's socket for it ([`Adopt`]).
//!
//! Its input: the calls of bind(2) and listen(2) by a program and all processes that it has started, through
//! seccomp_unotify(2). Its output: replies, and copies of the slot's sockets. It does not know the parent, which is not
//! involved.
//!
//! # Files
//!
//! - `answer.rs` (PURE): the reply to each call, based on facts
//!
//! # Decisions
//!
//! - **The pool's socket replaces the program's own**, at its number, while bind(2) waits; then bind(2) returns 0. So
//!   this works for any program, whatever its language, and needs no privilege. The socket is the slot's, whose queue
//!   exists before the program runs and after it has died. Options that the program has set on its own socket before
//!   are lost.
//! - **listen(2) on the slot's socket returns 0 without effect**, since the program's backlog would shorten the queue
//!   for good.
//! - **Facts come from the program's memory and /proc**, which may be wrong or block the keeper. A program can only
//!   deceive itself: the kernel reads the address again if the call goes on, and at most the program gets what it was
//!   passed anyway. A program that blocks its keeper only delays itself.
//! - **An IPv4 program gets no IPv6 socket**: it would truncate the addresses of its clients, and admit clients that it
//!   means to exclude. An IPv6 program understands both. So `forkpool exec` takes `:8000` for IPv4.
//! - **Unix sockets are not given.** Many programs remove the path before they bind it, most of them when they close
//!   it. That would cut the pool off from its clients, since no call puts a socket at a path again. The log says what
//!   to do instead, if the path is long enough for the call to be seen.
//! - **A reply only needs the listener and the sockets**, so it also works across upgrades, for as long as the keeper
//!   exists. After that, a process that was left behind gets ENOSYS.

mod answer;

use std::fs;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

use log::{debug, info, log, warn, Level};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{getsockopt, sendmsg, sockopt, ControlMessage, MsgFlags, UnixAddr};
use nix::sys::uio::{process_vm_readv, RemoteIoVec};
use nix::unistd::Pid;
use socket2::SockRef;

use self::answer::{Answers, Finding, Reply, SocketFacts, ADDRESS_MAX};
use super::procfs::{self, OpenFile};
use crate::error::Error;
use crate::shared::channel::remark::{Kind, Remark};
use crate::shared::config::Adopt;
use crate::sys::fds;
use crate::sys::notification::{self, Answer, Call, Listener, Waiting};

/// The first descriptor at which programs inherit sockets.
const FIRST_PASSED: usize = crate::sys::process::FIRST_PASSED as usize;

/// The maximum number of calls that are answered in one turn, so that signals and the lifeline have theirs.
const CALLS_PER_TURN: usize = 64;

/// In the child that becomes the program: makes its calls wait, and gives the keeper what it needs to answer them.
pub(super) fn begin(adopt: Adopt, keeper: &UnixStream) -> io::Result<()> {
    if adopt == Adopt::Off {
        return Ok(());
    }
    let (fd, error) = match notification::intercept() {
        Ok(listener) => (Some(listener), 0),
        Err(error) => (None, error.raw_os_error().unwrap_or(libc::ENOSYS)),
    };
    let fds: Vec<_> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let (bytes, rights) = (error.to_ne_bytes(), [ControlMessage::ScmRights(&fds)]);
    let rights = if fds.is_empty() { &[][..] } else { &rights };
    sendmsg::<UnixAddr>(keeper.as_raw_fd(), &[IoSlice::new(&bytes)], rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// What hears of the addresses that a program binds, if it may bind them; or why nothing does.
pub(super) type ListenerOffer = io::Result<Option<Listener>>;

/// In the keeper: takes what [`begin`] gives. The inner error says why there is nothing.
pub(super) fn receive_listener(adopt: Adopt, mut program: &UnixStream) -> io::Result<ListenerOffer> {
    if adopt == Adopt::Off {
        return Ok(Ok(None));
    }
    let mut wait = [PollFd::new(program.as_fd(), PollFlags::POLLIN)];
    while poll(&mut wait, PollTimeout::NONE) == Err(Errno::EINTR) {}
    let mut said = [0; 4];
    let mut received = fds::receive(program.as_fd(), &mut said)?;
    program.read_exact(&mut said[received.len..])?;
    Ok(match (i32::from_ne_bytes(said), received.fds.pop()) {
        (0, Some(listener)) => Listener::new(listener).map(Some),
        (0, None) => Err(ErrorKind::NotFound.into()),
        (error, _) => Err(io::Error::from_raw_os_error(error)),
    })
}

/// Before the first worker: whether what `--adopt require` asks for is possible.
///
/// # Errors
///
/// If calls cannot be answered here.
pub(crate) fn check(adopt: Adopt) -> Result<(), Error> {
    if adopt != Adopt::Require {
        return Ok(());
    }
    notification::attempt().map_err(|error| refused(&error))
}

/// The error of a program that requires what is not possible here.
pub(super) fn refused(error: &io::Error) -> Error {
    let remedy = "leave out --adopt require, and make the program take its socket from descriptor 3";
    let source = io::Error::other(format!("{}; {remedy}", explain(error)));
    Error::system("give programs that bind an address the pool's socket (--adopt require)", source)
}

/// Why calls cannot be answered, in words.
fn explain(error: &io::Error) -> String {
    let cause = match error.raw_os_error() {
        Some(libc::EBUSY) => {
            "another process already answers its calls, as under WSL2 with mirrored networking or in a container"
        }
        Some(libc::EPERM | libc::EACCES) => "it is forbidden here, as by a container's profile",
        _ => "the kernel does not support it; Linux 5.9 does",
    };
    format!("seccomp(2) gives no notification: {error} ({cause})")
}

/// Answers a program's calls, with the pool's sockets.
#[derive(Debug)]
pub(super) struct Adoption {
    listener: Listener,
    answers: Answers,
    /// Where the pool's Unix sockets are.
    paths: Vec<Vec<u8>>,
    /// Whether another program may accept from the sockets.
    is_shared: bool,
    /// The log level of what is usual, since the programs of all slots are alike.
    level: Level,
    remarks: Vec<Remark>,
    /// Why it did not get a socket that it may have needed.
    refusal: Option<Remark>,
    /// Whether no process is left that may call.
    is_over: bool,
}

/// The facts about a call.
#[derive(Debug)]
enum CallFacts {
    Bind {
        asked: SocketAddr,
        facts: SocketFacts,
        number: u32,
        flags: (bool, bool),
    },
    Listen {
        inode: u64,
    },
    /// The path of a Unix socket.
    Path(Vec<u8>),
    /// It does not concern the pool.
    Nothing,
    Hidden,
}

/// The slot, how many times it was started, and whether another program may accept from its sockets.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotFacts {
    pub(super) slot: usize,
    pub(super) generation: u64,
    pub(super) is_shared: bool,
}

impl Adoption {
    /// From what [`receive_listener`] has returned. Logs what is offered, or why nothing is.
    pub(super) fn after(offer: ListenerOffer, sockets: &[OwnedFd], station: SlotFacts) -> Option<Adoption> {
        match offer {
            Ok(listener) => listener.map(|listener| Adoption::new(listener, sockets, station)),
            Err(error) => {
                if station.slot == 0 && station.generation == 1 {
                    warn!("programs must take their sockets from descriptor 3 on: {}", explain(&error));
                }
                None
            }
        }
    }

    fn new(listener: Listener, sockets: &[OwnedFd], station: SlotFacts) -> Adoption {
        // TCP sockets come first.
        let offered: Vec<SocketAddr> = sockets.iter().map_while(address).collect();
        let (is_first_slot, is_first) = (station.slot == 0, station.generation == 1);
        if is_first_slot && is_first {
            for address in &offered {
                info!("programs that bind {} get the pool's socket", shown(*address));
            }
        }
        let level = if is_first_slot && is_first { Level::Info } else { Level::Debug };
        Adoption {
            listener,
            answers: Answers::new(offered),
            paths: sockets.iter().filter_map(path).collect(),
            is_shared: station.is_shared,
            level,
            remarks: Vec::new(),
            refusal: None,
            is_over: false,
        }
    }

    /// The descriptor to wait for, as long as a process is left that may call.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_over).then(|| self.listener.as_fd())
    }

    /// Answers the calls that wait. `sockets` are the pool's, as far as they are still here.
    pub(super) fn attend(&mut self, sockets: &[OwnedFd], inodes: &[u64], tag: &str) {
        if !self.is_over {
            self.is_over = !self.answer_calls(sockets, inodes, tag);
        }
    }

    /// Returns whether any process is left that may call.
    fn answer_calls(&mut self, sockets: &[OwnedFd], inodes: &[u64], tag: &str) -> bool {
        for _ in 0..CALLS_PER_TURN {
            let mut wait = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            let found = poll(&mut wait, PollTimeout::ZERO).ok().and(wait[0].revents()).unwrap_or(PollFlags::empty());
            if !found.contains(PollFlags::POLLIN) {
                return !found.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
            }
            match self.listener.next() {
                Ok(Some(waiting)) => self.answer(&waiting, sockets, inodes, tag),
                Ok(None) => {}
                Err(error) => {
                    warn!("{tag}: cannot answer its calls of bind(2) any more: {error}");
                    return false;
                }
            }
        }
        true
    }

    fn answer(&mut self, waiting: &Waiting, sockets: &[OwnedFd], inodes: &[u64], tag: &str) {
        let known = know(waiting, inodes);
        // It may have been killed, and its pid reused.
        if !self.listener.is_waiting(waiting) {
            return;
        }
        let (reply, note) = match &known {
            CallFacts::Bind { asked, facts, .. } => self.answers.bind(*asked, *facts),
            CallFacts::Listen { inode } => {
                let own = inodes.iter().position(|own| own == inode).and_then(|index| sockets.get(index));
                let listens = |socket: &OwnedFd| getsockopt(socket, sockopt::AcceptConn) == Ok(true);
                self.answers.listen(*inode, own.is_some_and(listens))
            }
            CallFacts::Hidden => self.answers.hidden(),
            CallFacts::Path(path) if self.paths.contains(path) => self.answers.path(),
            CallFacts::Path(_) => (Reply::GoOn, None),
            CallFacts::Nothing => (Reply::GoOn, None),
        };
        let answer = match (reply, &known) {
            (Reply::Give(index), CallFacts::Bind { number, flags, .. }) => {
                match sockets.get(index).map(|socket| self.give(waiting, socket, *number, *flags)) {
                    Some(Ok(())) => Answer::Done,
                    Some(Err(error)) => {
                        debug!("{tag} got no socket: {error}");
                        Answer::GoOn
                    }
                    // It is to finish.
                    None => Answer::GoOn,
                }
            }
            (Reply::Done, _) => Answer::Done,
            _ => Answer::GoOn,
        };
        if let Err(error) = self.listener.answer(waiting, answer) {
            debug!("{tag} got no answer: {error}");
        }
        if let Some(note) = note {
            self.tell(note, tag);
        }
    }

    fn give(&mut self, waiting: &Waiting, socket: &OwnedFd, number: u32, flags: (bool, bool)) -> io::Result<()> {
        let (wants, cloexec) = flags;
        if let Some(nonblocking) = answer::nonblocking(wants, self.is_shared) {
            fds::set_nonblocking(socket, nonblocking)?;
        }
        self.listener.put(waiting, socket.as_fd(), number, cloexec)?;
        self.is_shared = true;
        Ok(())
    }

    /// The descriptor by which processes have inherited a socket without using it, since they have bound its address.
    pub(super) fn unused(&self, index: usize) -> Option<u64> {
        self.answers.is_unused(index).then(|| FIRST_PASSED as u64 + index as u64)
    }

    /// The program waits for connections.
    pub(super) fn ready(&mut self, tag: &str) {
        if let Some(note) = self.answers.ready() {
            self.tell(note, tag);
        }
    }

    fn tell(&mut self, note: Finding, tag: &str) {
        let level = self.level;
        let (kind, asked, own) = match note {
            Finding::Given { asked, given } => {
                return log!(level, "{tag} binds {asked} and gets the pool's socket, {given}");
            }
            Finding::ByNumber => return log!(level, "{tag} takes the pool's sockets by their numbers"),
            Finding::Wider { asked, given } => (Kind::Wider, Some(asked), Some(given)),
            Finding::IsIpv6 { asked, given } => (Kind::IsIpv6, Some(asked), Some(given)),
            Finding::Unclaimed { at } => (Kind::Unclaimed, None, Some(at)),
            Finding::Elsewhere { at, own } => (Kind::Elsewhere, Some(at), own),
            Finding::Hidden => (Kind::Hidden, None, None),
            Finding::WatchedTooEarly { asked } => (Kind::WatchedTooEarly, Some(asked), None),
            Finding::Path => (Kind::Path, None, None),
        };
        let remark = Remark { kind, asked, own };
        if let Kind::IsIpv6 | Kind::Hidden | Kind::WatchedTooEarly | Kind::Path = kind {
            self.refusal = Some(remark);
        }
        self.remarks.push(remark);
    }

    /// What is remarkable about the calls since the last time.
    pub(super) fn take_remarks(&mut self) -> Vec<Remark> {
        std::mem::take(&mut self.remarks)
    }

    /// What is known about the addresses that the program has bound, if it has ended or was ended before it served.
    pub(super) fn why_not(&self, has_exited: bool) -> Option<String> {
        if let Some(refusal) = self.refusal.filter(|_| has_exited) {
            return Some(format!("it {refusal}"));
        }
        let (at, listens) = self.answers.elsewhere()?;
        // If listen(2) was called, it may have failed.
        let text = match has_exited {
            true => {
                format!("it wanted {at}, which is not the pool's, so only one worker can have it; add --listen {at}")
            }
            false if listens => {
                format!("it listens on {at} and was not seen to wait for connections on the pool's socket")
            }
            false => return None,
        };
        Some(text)
    }
}

/// An address, with its family if that is not clear.
fn shown(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            format!("{v4} (IPv4; --listen [::]:{} instead takes IPv6, too)", v4.port())
        }
        SocketAddr::V4(v4) => format!("{v4} (IPv4)"),
        SocketAddr::V6(v6) => format!("{v6} (IPv6)"),
    }
}

fn address(socket: &OwnedFd) -> Option<SocketAddr> {
    SockRef::from(socket).local_addr().ok()?.as_socket()
}

fn path(socket: &OwnedFd) -> Option<Vec<u8>> {
    Some(SockRef::from(socket).local_addr().ok()?.as_pathname()?.as_os_str().as_bytes().to_vec())
}

/// Reads the facts about a call from its process's memory and /proc. Either may block the keeper.
fn know(waiting: &Waiting, inodes: &[u64]) -> CallFacts {
    let thread = waiting.thread;
    let call = match waiting.call {
        Call::Multiplexed { call, list } => {
            let mut bytes = [0; notification::LIST];
            match read(thread, list, &mut bytes) {
                Ok(len) if len == bytes.len() => notification::multiplexed(call, &bytes),
                Err(Errno::EPERM) => return CallFacts::Hidden,
                Ok(_) | Err(_) => return CallFacts::Nothing,
            }
        }
        call => call,
    };
    match call {
        Call::Bind { socket, address, len } => {
            let mut bytes = [0; ADDRESS_MAX];
            let len = usize::try_from(len).unwrap_or(ADDRESS_MAX).min(ADDRESS_MAX);
            let asked = match read(thread, address, &mut bytes[..len]) {
                Ok(len) => match answer::path(&bytes[..len]) {
                    Some(path) => return CallFacts::Path(path.to_vec()),
                    None => answer::address(&bytes[..len]),
                },
                Err(Errno::EPERM) => return CallFacts::Hidden,
                Err(_) => None,
            };
            let Some(asked) = asked.filter(|asked| asked.port() != 0) else { return CallFacts::Nothing };
            bind(thread, socket, asked, inodes).unwrap_or(CallFacts::Nothing)
        }
        Call::Listen { socket } => match inode(thread, socket) {
            Some(inode) => CallFacts::Listen { inode },
            None => CallFacts::Nothing,
        },
        Call::Multiplexed { .. } | Call::Other => CallFacts::Nothing,
    }
}

fn bind(thread: i32, number: u32, asked: SocketAddr, inodes: &[u64]) -> Option<CallFacts> {
    let inode = inode(thread, number)?;
    let protocol = notification::protocol(&format!("/proc/{thread}/fd/{number}"))?;
    let fdinfo = fs::read_to_string(format!("/proc/{thread}/fdinfo/{number}")).ok()?;
    let flags = answer::flags(&fdinfo)?;
    // A socket that it binds again is the pool's, and may be watched.
    let is_watched = !inodes.contains(&inode) && is_watched(thread, inode);
    let inherits = usize::try_from(number).ok()?.checked_sub(FIRST_PASSED);
    let facts = SocketFacts { is_tcp: answer::is_tcp(&protocol), inode, inherits, is_watched };
    Some(CallFacts::Bind { asked, facts, number, flags })
}

/// The inode of a socket; `None` for anything else.
fn inode(thread: i32, number: u32) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{thread}/fd/{number}")).ok()?;
    match procfs::open(&link.to_string_lossy()) {
        OpenFile::Socket(inode) => Some(inode),
        OpenFile::Epoll | OpenFile::Ring | OpenFile::Other => None,
    }
}

/// Whether an epoll instance of the process watches a socket.
fn is_watched(thread: i32, inode: u64) -> bool {
    let links = fs::read_dir(format!("/proc/{thread}/fd")).into_iter().flatten().flatten();
    let is_epoll = |link: &fs::DirEntry| {
        fs::read_link(link.path()).is_ok_and(|target| procfs::open(&target.to_string_lossy()) == OpenFile::Epoll)
    };
    let watches = |link: fs::DirEntry| {
        let fdinfo = format!("/proc/{thread}/fdinfo/{}", link.file_name().to_string_lossy());
        fs::read_to_string(fdinfo).is_ok_and(|fdinfo| procfs::watched(&fdinfo).any(|(_, watched)| watched == inode))
    };
    links.filter(is_epoll).any(watches)
}

/// Reads memory of a process, as far as it exists.
fn read(thread: i32, address: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
    let base = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
    let remote = [RemoteIoVec { base, len: bytes.len() }];
    process_vm_readv(Pid::from_raw(thread), &mut [IoSliceMut::new(bytes)], &remote)
}
