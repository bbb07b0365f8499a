//! What a server takes over as its own.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;

use crate::server::access_log::AccessLog;
use crate::server::http::{CommonFields, Request};
use crate::server::inbox::Inbox;
use crate::server::tls::Endpoint;
use crate::shared::handover::{Gate, Receiver};

/// What a server takes over as its own.
pub(crate) struct Resources {
    /// Readable when the server must finish; non-blocking.
    pub(crate) shutdown: UnixStream,
    /// This worker's own TCP listeners, and those that all workers share.
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) shared_listeners: Vec<TcpListener>,
    pub(crate) unix_listeners: Vec<UnixListener>,
    /// The connections that other processes pass to this slot; `None` for the admin process.
    pub(crate) handover: Option<Receiver>,
    /// The parent's messages and their hook, if one was set.
    pub(crate) inbox: Option<Inbox>,
    /// The fields of every response.
    pub(crate) common: CommonFields,
    /// Chooses the requests whose body is not collected.
    pub(crate) streams: Box<dyn FnMut(&Request<'_>) -> bool>,
    /// The access log, if there is one.
    pub(crate) log: Option<AccessLog>,
    /// What connections with TLS share, if there are any.
    pub(crate) tls: Option<Rc<Endpoint>>,
}

impl Resources {
    /// Admits connections to the listeners. Those with TLS stay where they are: only their process has their keys.
    pub(crate) fn gate(&self) -> Gate {
        let mut gate = Gate::default();
        for listener in self.listeners.iter().chain(&self.shared_listeners) {
            if self.tls.as_ref().zip(listener.local_addr().ok()).is_some_and(|(tls, address)| tls.is_for(address)) {
                continue;
            }
            gate.open(listener.as_fd());
        }
        self.unix_listeners.iter().for_each(|listener| gate.open(listener.as_fd()));
        gate
    }
}
