//! The sockets of one slot.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::sys::stat::fstat;
use socket2::SockRef;

use super::inspect::{inspect, restore, unrestored};
use super::recorded::Options;
use super::whole::Wanted;
use super::Reserved;
use crate::error::{Error, Result};

/// The sockets of one slot, in the order of the addresses: what a worker serves and the parent keeps.
///
/// One is missing where another pool, which has handed over the rest, had none, and a UDP one where the slot had been
/// scaled away.
#[derive(Debug, Default)]
pub(crate) struct SlotSockets {
    /// Listening.
    tcp: Vec<Option<TcpListener>>,
    udp: Vec<Option<UdpSocket>>,
    /// As they were when they came to the parent: whether it is of a UDP address, and which.
    options: BTreeMap<(bool, usize), Rc<Options>>,
}

impl SlotSockets {
    pub(crate) fn new(tcp: Vec<Option<OwnedFd>>, udp: Vec<Option<OwnedFd>>) -> SlotSockets {
        let tcp = tcp.into_iter().map(|fd| fd.map(TcpListener::from)).collect();
        let udp = udp.into_iter().map(|fd| fd.map(UdpSocket::from)).collect();
        SlotSockets { tcp, udp, options: BTreeMap::new() }.recorded()
    }

    /// Notes what options they have, which later holders may change.
    fn recorded(mut self) -> SlotSockets {
        let options = |socket: BorrowedFd<'_>| Rc::new(Options::of(socket));
        let tcp = self.tcp.iter().enumerate();
        let tcp = tcp.filter_map(|(index, socket)| Some(((false, index), options(socket.as_ref()?.as_fd()))));
        let udp = self.udp.iter().enumerate();
        let udp = udp.filter_map(|(index, socket)| Some(((true, index), options(socket.as_ref()?.as_fd()))));
        self.options = tcp.chain(udp).collect();
        self
    }

    /// What tells the listening ones from all others (stat(2)).
    pub(crate) fn inodes(&self) -> Vec<u64> {
        let found = self.tcp.iter().flatten().filter_map(|listener| fstat(listener).ok());
        found.map(|found| found.st_ino).collect()
    }

    /// What a worker has made, each with the number of its address among the TCP and then the UDP addresses. Runs in the
    /// parent, before any code of the application has run in the worker.
    pub(crate) fn made(made: Vec<(usize, OwnedFd)>, reserved: &[Reserved]) -> SlotSockets {
        let mut sockets = SlotSockets::default();
        sockets.add(made, reserved);
        sockets.recorded()
    }

    fn add(&mut self, made: Vec<(usize, OwnedFd)>, reserved: &[Reserved]) {
        self.tcp.resize_with(count(reserved, |it| matches!(it, Reserved::Tcp(_))), || None);
        self.udp.resize_with(count(reserved, |it| matches!(it, Reserved::Udp(_))), || None);
        let groups = self.tcp.len();
        for (address, socket) in made {
            if let Some(place) = self.tcp.get_mut(address) {
                *place = Some(socket.into());
            } else if let Some(place) = self.udp.get_mut(address - groups) {
                *place = Some(socket.into());
            }
        }
    }

    /// Takes all that is there of others, in place of what was here.
    pub(crate) fn merge(&mut self, others: SlotSockets) {
        fn merge<T>(ours: &mut Vec<Option<T>>, theirs: Vec<Option<T>>) {
            ours.resize_with(theirs.len().max(ours.len()), || None);
            for (place, socket) in ours.iter_mut().zip(theirs).filter(|(_, socket)| socket.is_some()) {
                *place = socket;
            }
        }
        merge(&mut self.tcp, others.tcp);
        merge(&mut self.udp, others.udp);
        self.options.extend(others.options);
    }

    /// Which addresses have no socket here.
    pub(crate) fn missing(&self, reserved: &[Reserved]) -> Vec<usize> {
        (0..own(reserved)).filter(|address| self.fd(*address).is_none()).collect()
    }

    /// Drops what may not be handed on, and says why: for each socket that was dropped, its address and what is wrong
    /// with it. If that is a TCP socket, all TCP sockets of the slot go, since they have the same place in the groups of
    /// their addresses. Runs in the parent.
    pub(crate) fn drop_flawed(&mut self, reserved: &[Reserved]) -> Vec<String> {
        self.drop_unless(reserved, |_, _, _| Ok(()))
    }

    /// As [`drop_flawed`](SlotSockets::drop_flawed), and has the others be as they were made: no process holds them that
    /// may want them otherwise.
    pub(crate) fn restore(&mut self, reserved: &[Reserved], backlog: u32) -> Vec<String> {
        self.drop_unless(reserved, |socket, options, is_tcp| restore(socket, options, is_tcp.then_some(backlog)))
    }

    fn drop_unless(
        &mut self,
        reserved: &[Reserved],
        restored: impl Fn(BorrowedFd<'_>, &Options, bool) -> io::Result<()>,
    ) -> Vec<String> {
        let mut flaws = Vec::new();
        let (options, none) = (&self.options, Options::default());
        let mut is_fit = |index: usize, socket: Option<BorrowedFd<'_>>, wanted, reserved: &Reserved| {
            let Some(socket) = socket else { return true };
            let is_tcp = matches!(wanted, Wanted::Tcp(_));
            let options = options.get(&(!is_tcp, index)).map_or(&none, Rc::as_ref);
            let flaw = inspect(socket, wanted).or_else(|| unrestored(restored(socket, options, is_tcp)));
            flaws.extend(flaw.iter().map(|flaw| format!("{reserved}: {flaw}")));
            flaw.is_none()
        };
        let (mut tcp, mut udp) = (self.tcp.iter().enumerate(), self.udp.iter_mut().enumerate());
        let mut tcp_is_fit = true;
        for reserved in reserved {
            match reserved {
                Reserved::Tcp(it) => {
                    let Some((index, socket)) = tcp.next() else { continue };
                    let socket = socket.as_ref().map(AsFd::as_fd);
                    tcp_is_fit &= is_fit(index, socket, Wanted::Tcp(it.address), reserved);
                }
                Reserved::Udp(it) => {
                    let Some((index, socket)) = udp.next() else { continue };
                    let held = socket.as_ref().map(AsFd::as_fd);
                    if !is_fit(index, held, Wanted::Udp(it.address), reserved) {
                        *socket = None;
                    }
                }
                Reserved::Unix(_) | Reserved::Given(_) => {}
            }
        }
        if !tcp_is_fit {
            self.leave_groups();
        }
        flaws
    }

    /// Has the kernel give these listeners no connections any more, whoever holds copies of them.
    pub(crate) fn leave_groups(&mut self) {
        for listener in self.tcp.iter_mut().filter_map(Option::take) {
            // It fails where it was shut down before.
            let _ = SockRef::from(&listener).shutdown(std::net::Shutdown::Read);
        }
    }

    /// The parent's own hold on UDP addresses ends where a slot has a socket. Runs in the parent.
    pub(crate) fn relieve(&self, reserved: &[Reserved]) {
        let udp = reserved.iter().filter_map(|reserved| match reserved {
            Reserved::Udp(udp) => Some(udp),
            _ => None,
        });
        udp.zip(&self.udp).filter(|(_, socket)| socket.is_some()).for_each(|(udp, _)| udp.let_go());
    }

    /// Makes a socket for every reserved address where there is none yet. Runs in the worker, at its slot's first start.
    pub(crate) fn complete(self, reserved: &[Reserved], backlog: u32) -> Result<SlotSockets> {
        let (mut tcp, mut udp) = (self.tcp.into_iter(), self.udp.into_iter());
        let mut sockets = SlotSockets::default();
        for reserved in reserved {
            let named = |source| {
                let address = reserved.to_string();
                Error::Bind { address: address.trim_start_matches("http://").to_owned(), source }
            };
            match reserved {
                Reserved::Tcp(address) => {
                    let socket = tcp.next().flatten().map_or_else(|| address.listen(backlog), Ok);
                    sockets.tcp.push(Some(socket.map_err(named)?));
                }
                Reserved::Udp(address) => {
                    let socket = udp.next().flatten().map_or_else(|| address.bind(), Ok);
                    sockets.udp.push(Some(socket.map_err(named)?));
                }
                Reserved::Unix(_) | Reserved::Given(_) => {}
            }
        }
        Ok(sockets)
    }

    /// Whether there is a socket for every reserved TCP and UDP address.
    pub(crate) fn is_complete(&self, reserved: &[Reserved]) -> bool {
        self.all().len() == own(reserved)
    }

    pub(crate) fn try_clone(&self) -> io::Result<SlotSockets> {
        let listener = |socket: &Option<TcpListener>| socket.as_ref().map(TcpListener::try_clone).transpose();
        let socket = |socket: &Option<UdpSocket>| socket.as_ref().map(UdpSocket::try_clone).transpose();
        let tcp = self.tcp.iter().map(listener).collect::<io::Result<_>>()?;
        let udp = self.udp.iter().map(socket).collect::<io::Result<_>>()?;
        Ok(SlotSockets { tcp, udp, options: self.options.clone() })
    }

    /// Every socket: those that listen, then those for UDP.
    pub(crate) fn all(&self) -> Vec<BorrowedFd<'_>> {
        self.fds().into_iter().chain(self.udp.iter().flatten().map(AsFd::as_fd)).collect()
    }

    /// How many TCP addresses there are.
    pub(crate) fn groups(&self) -> usize {
        self.tcp.len()
    }

    /// Those that listen, each with the number of its address among the TCP addresses.
    pub(crate) fn listening(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.tcp.iter().enumerate().filter_map(|(address, socket)| Some((address, socket.as_ref()?.as_fd())))
    }

    /// Those that listen.
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.tcp.iter().flatten().map(AsFd::as_fd).collect()
    }

    /// The one of an address, counted among the TCP addresses and then among the UDP addresses.
    pub(crate) fn fd(&self, address: usize) -> Option<BorrowedFd<'_>> {
        match address.checked_sub(self.tcp.len()) {
            None => self.tcp.get(address)?.as_ref().map(AsFd::as_fd),
            Some(address) => self.udp.get(address)?.as_ref().map(AsFd::as_fd),
        }
    }

    /// Closes what nobody would read: unlike a connection, a datagram that comes to a socket without a worker cannot be
    /// taken by another one.
    pub(crate) fn close_udp(&mut self) {
        self.udp.iter_mut().for_each(|socket| *socket = None);
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().flatten().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Where it takes datagrams.
    pub(crate) fn udp_addresses(&self) -> Vec<SocketAddr> {
        self.udp.iter().flatten().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    pub(crate) fn into_parts(self) -> (Vec<TcpListener>, Vec<UdpSocket>) {
        (self.tcp.into_iter().flatten().collect(), self.udp.into_iter().flatten().collect())
    }
}

fn count(reserved: &[Reserved], is_meant: fn(&Reserved) -> bool) -> usize {
    reserved.iter().filter(|reserved| is_meant(reserved)).count()
}

/// For how many addresses each slot has sockets of its own.
pub(crate) fn own(reserved: &[Reserved]) -> usize {
    count(reserved, |it| matches!(it, Reserved::Tcp(_) | Reserved::Udp(_)))
}
