//! The sockets that user code can take from its worker.

use std::cell::RefCell;
use std::io;
#[cfg(feature = "tls")]
use std::net::SocketAddr;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::rc::Rc;

use crate::error::{Error, Result};
use crate::shared::channel::WorkerEnd;
use crate::shared::handover::Receiver;
use crate::shared::listener::{Reserved, Shared, SlotSockets};
use crate::worker::Worker;

/// What a worker listens on, as it comes from the parent.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    /// The slot's listening sockets, whose queued connections wait for this worker. The worker makes those that are
    /// missing, and sends copies to the parent.
    pub(crate) sockets: SlotSockets,
    pub(crate) reserved: Rc<Vec<Reserved>>,
    pub(crate) backlog: u32,
    /// The sockets that all workers share.
    pub(crate) shared: Vec<Shared>,
    /// The connections that other processes pass to the slot; `None` for the admin process.
    pub(crate) handover: Option<OwnedFd>,
}

impl Listening {
    /// Gets the slot's sockets. This happens before privileges are dropped and before user code runs, so that the queue
    /// accepts connections while that code starts.
    pub(super) fn begin(self, lifeline: &WorkerEnd) -> Result<Sockets> {
        let missing = self.sockets.missing(&self.reserved);
        let is_complete = missing.is_empty();
        let sockets = if is_complete { self.sockets } else { self.sockets.complete(&self.reserved, self.backlog)? };
        let made: Vec<_> = missing.into_iter().filter_map(|address| Some((address, sockets.fd(address)?))).collect();
        lifeline
            .listening(&made)
            .map_err(|source| Error::system("give the parent copies of the sockets with sendmsg(2)", source))?;
        let sockets = Sockets::new(sockets, self.shared, self.handover.map(Receiver::from));
        #[cfg(feature = "tls")]
        let sockets = Sockets { tls: self.reserved.iter().filter_map(Reserved::tls_address).collect(), ..sockets };
        Ok(sockets)
    }
}

/// The sockets that were not taken yet.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) own: RefCell<Vec<TcpListener>>,
    pub(super) shared: RefCell<Vec<TcpListener>>,
    pub(super) unix: RefCell<Vec<UnixListener>>,
    pub(super) udp: RefCell<Vec<UdpSocket>>,
    /// The connections that other processes pass to this slot.
    pub(super) handover: RefCell<Option<Receiver>>,
    /// The addresses on which connections begin with a handshake of TLS.
    #[cfg(feature = "tls")]
    pub(super) tls: Vec<SocketAddr>,
}

impl Sockets {
    fn new(sockets: SlotSockets, shared: Vec<Shared>, handover: Option<Receiver>) -> Sockets {
        let (own, udp) = sockets.into_parts();
        let (mut tcp, mut unix) = (Vec::new(), Vec::new());
        for shared in shared {
            match shared {
                Shared::Tcp(listener) => tcp.push(listener),
                Shared::Unix(listener) => unix.push(listener),
            }
        }
        Sockets {
            own: own.into(),
            shared: tcp.into(),
            unix: unix.into(),
            udp: udp.into(),
            handover: RefCell::new(handover),
            #[cfg(feature = "tls")]
            tls: Vec::new(),
        }
    }
}

impl Worker {
    /// Takes this worker's own listening socket for the first TCP address, non-blocking. A second call takes the socket
    /// of the next address.
    ///
    /// The socket is one of the SO_REUSEPORT sockets of its address (socket(7)). Close it when the worker is to finish,
    /// so that a stopping pool frees its port. Do not call `shutdown(2)` on it, since the replacement of this worker
    /// uses the same socket. Sockets passed by a service manager (sd_listen_fds(3)) come after the worker's own and are
    /// shared by all workers.
    ///
    /// # Errors
    ///
    /// When none is left: the pool listens on Unix sockets only, or all have been taken.
    pub fn take_listener(&self) -> io::Result<TcpListener> {
        let own = &mut *self.sockets.own.borrow_mut();
        let shared = &mut *self.sockets.shared.borrow_mut();
        let listeners = if own.is_empty() { shared } else { own };
        if listeners.is_empty() {
            let text = "the worker has no TCP listener left to take (see Worker::take_unix_listeners)";
            return Err(io::Error::other(text));
        }
        Ok(listeners.remove(0))
    }

    /// Takes the listening sockets of all TCP addresses, as [`take_listener`](Worker::take_listener) does, in the order
    /// of the addresses. Empty on a second call.
    pub fn take_listeners(&self) -> Vec<TcpListener> {
        let mut listeners = self.sockets.own.take();
        listeners.append(&mut self.sockets.shared.borrow_mut());
        listeners
    }

    /// Takes the Unix sockets, non-blocking and shared by all workers of the pool, in the order of the addresses. Empty
    /// on a second call.
    pub fn take_unix_listeners(&self) -> Vec<UnixListener> {
        self.sockets.unix.take()
    }

    /// Takes this worker's own UDP sockets, non-blocking, in the order of the calls of
    /// [`bind_udp`](crate::Builder::bind_udp). Empty on a second call.
    ///
    /// During a restart a worker shares them with its replacement, so a read may find nothing although the socket was
    /// readable (`WouldBlock`). A worker that is to finish stops reading; its replacement reads the datagrams that
    /// wait.
    pub fn take_udp_sockets(&self) -> Vec<UdpSocket> {
        self.sockets.udp.take()
    }

    /// Takes the next of the sockets of [`take_udp_sockets`](Worker::take_udp_sockets).
    ///
    /// # Errors
    ///
    /// When none is left: the pool has no UDP address, or all have been taken.
    pub fn take_udp_socket(&self) -> io::Result<UdpSocket> {
        let sockets = &mut *self.sockets.udp.borrow_mut();
        if sockets.is_empty() {
            return Err(io::Error::other("the worker has no UDP socket left to take (see Builder::bind_udp)"));
        }
        Ok(sockets.remove(0))
    }
}
