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
use super::soundness::Expected;
use super::Reserved;
use crate::error::{Error, Result};

/// The sockets of a slot, in the order of the addresses. The worker serves them, and the parent keeps copies.
///
/// A socket may be missing: after an upgrade, if the old pool had none for the address; a UDP socket also while the
/// slot is scaled away.
#[derive(Debug, Default)]
pub(crate) struct SlotSockets {
    /// The listening sockets.
    tcp: Vec<Option<TcpListener>>,
    udp: Vec<Option<UdpSocket>>,
    /// The options of each socket when the parent got it, by whether it is a UDP socket and by the index of its
    /// address.
    options: BTreeMap<(bool, usize), Rc<Options>>,
}

impl SlotSockets {
    pub(crate) fn new(tcp: Vec<Option<OwnedFd>>, udp: Vec<Option<OwnedFd>>) -> SlotSockets {
        let tcp = tcp.into_iter().map(|fd| fd.map(TcpListener::from)).collect();
        let udp = udp.into_iter().map(|fd| fd.map(UdpSocket::from)).collect();
        SlotSockets { tcp, udp, options: BTreeMap::new() }.recorded()
    }

    /// Records the options of all sockets, which later holders may change.
    fn recorded(mut self) -> SlotSockets {
        let options = |socket: BorrowedFd<'_>| Rc::new(Options::of(socket));
        let tcp = self.tcp.iter().enumerate();
        let tcp = tcp.filter_map(|(index, socket)| Some(((false, index), options(socket.as_ref()?.as_fd()))));
        let udp = self.udp.iter().enumerate();
        let udp = udp.filter_map(|(index, socket)| Some(((true, index), options(socket.as_ref()?.as_fd()))));
        self.options = tcp.chain(udp).collect();
        self
    }

    /// The inodes of the listening sockets (stat(2)), which identify them.
    pub(crate) fn inodes(&self) -> Vec<u64> {
        let found = self.tcp.iter().flatten().filter_map(|listener| fstat(listener).ok());
        found.map(|found| found.st_ino).collect()
    }

    /// The sockets that a worker has made, each with the number of its address: TCP addresses first, then UDP. Runs in
    /// the parent, before any code of the application has run in the worker.
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

    /// Takes over all sockets of `others`, which replace those here.
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

    /// The addresses without a socket.
    pub(crate) fn missing(&self, reserved: &[Reserved]) -> Vec<usize> {
        (0..own(reserved)).filter(|address| self.fd(*address).is_none()).collect()
    }

    /// Drops the sockets that must not be passed on. Returns the address of each and what is wrong with it. If it is a
    /// TCP socket, drops all TCP sockets of the slot, since they have the same index in the groups of their addresses.
    /// Runs in the parent.
    pub(crate) fn drop_flawed(&mut self, reserved: &[Reserved]) -> Vec<String> {
        self.drop_unless(reserved, |_, _, _| Ok(()))
    }

    /// As [`drop_flawed`](SlotSockets::drop_flawed), and restores the others. Call this only if no process holds the
    /// sockets and needs their options.
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
        let mut is_fit = |index: usize, socket: Option<BorrowedFd<'_>>, expected, reserved: &Reserved| {
            let Some(socket) = socket else { return true };
            let is_tcp = matches!(expected, Expected::Tcp(_));
            let options = options.get(&(!is_tcp, index)).map_or(&none, Rc::as_ref);
            let flaw = inspect(socket, expected).or_else(|| unrestored(restored(socket, options, is_tcp)));
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
                    tcp_is_fit &= is_fit(index, socket, Expected::Tcp(it.address), reserved);
                }
                Reserved::Udp(it) => {
                    let Some((index, socket)) = udp.next() else { continue };
                    let held = socket.as_ref().map(AsFd::as_fd);
                    if !is_fit(index, held, Expected::Udp(it.address), reserved) {
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

    /// Makes the kernel give these listeners no more connections, even if other processes hold copies.
    pub(crate) fn leave_groups(&mut self) {
        for listener in self.tcp.iter_mut().filter_map(Option::take) {
            // Fails if the socket was shut down before.
            let _ = SockRef::from(&listener).shutdown(std::net::Shutdown::Read);
        }
    }

    /// Drops the parent's own hold on the UDP addresses for which the slot has a socket. Runs in the parent.
    pub(crate) fn relieve(&self, reserved: &[Reserved]) {
        let udp = reserved.iter().filter_map(|reserved| match reserved {
            Reserved::Udp(udp) => Some(udp),
            _ => None,
        });
        udp.zip(&self.udp).filter(|(_, socket)| socket.is_some()).for_each(|(udp, _)| udp.release());
    }

    /// Makes a socket for each reserved address that has none. Runs in the worker, at the first start of its slot.
    pub(crate) fn complete(self, reserved: &[Reserved], backlog: u32) -> Result<SlotSockets> {
        let (mut tcp, mut udp) = (self.tcp.into_iter(), self.udp.into_iter());
        let mut sockets = SlotSockets::default();
        for reserved in reserved {
            let named = |source| {
                let address = reserved.to_string();
                let address = address.trim_start_matches("http://").trim_start_matches("https://");
                Error::Bind { address: address.to_owned(), source }
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

    /// Whether there is a socket for each reserved TCP and UDP address.
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

    /// All sockets: listening ones first, then UDP.
    pub(crate) fn all(&self) -> Vec<BorrowedFd<'_>> {
        self.fds().into_iter().chain(self.udp.iter().flatten().map(AsFd::as_fd)).collect()
    }

    /// The number of TCP addresses.
    pub(crate) fn groups(&self) -> usize {
        self.tcp.len()
    }

    /// The listening sockets, each with the number of its TCP address.
    pub(crate) fn listening(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.tcp.iter().enumerate().filter_map(|(address, socket)| Some((address, socket.as_ref()?.as_fd())))
    }

    /// The listening sockets.
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.tcp.iter().flatten().map(AsFd::as_fd).collect()
    }

    /// The socket of an address, counting TCP addresses first, then UDP.
    pub(crate) fn fd(&self, address: usize) -> Option<BorrowedFd<'_>> {
        match address.checked_sub(self.tcp.len()) {
            None => self.tcp.get(address)?.as_ref().map(AsFd::as_fd),
            Some(address) => self.udp.get(address)?.as_ref().map(AsFd::as_fd),
        }
    }

    /// Closes the UDP sockets when nobody would read them. Unlike a connection, a datagram for a slot without a worker
    /// cannot be taken by another worker.
    pub(crate) fn close_udp(&mut self) {
        self.udp.iter_mut().for_each(|socket| *socket = None);
    }

    /// The addresses of the listening sockets.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().flatten().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// The addresses of the UDP sockets.
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

/// The number of addresses for which each slot has its own socket.
pub(crate) fn own(reserved: &[Reserved]) -> usize {
    count(reserved, |it| matches!(it, Reserved::Tcp(_) | Reserved::Udp(_)))
}
