//! What a server takes over as its own.

use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::server::access_log::AccessLog;
use crate::server::http::{Common, Request};
use crate::server::inbox::Inbox;
use crate::shared::handover::Receiver;

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
    pub(crate) common: Common,
    /// Chooses the requests whose body is not collected.
    pub(crate) streams: Box<dyn FnMut(&Request<'_>) -> bool>,
    /// The access log, if there is one.
    pub(crate) log: Option<AccessLog>,
}
