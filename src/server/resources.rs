//! What a server takes over, to be its own.

use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::server::access_log::AccessLog;
use crate::server::http::{Common, Request};
use crate::server::inbox::Inbox;

/// What a server takes over, to be its own.
pub(crate) struct Resources {
    /// Readable when the server is to finish; non-blocking.
    pub(crate) shutdown: UnixStream,
    /// The TCP listeners that are this worker's own, and those that all workers share.
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) shared_listeners: Vec<TcpListener>,
    pub(crate) unix_listeners: Vec<UnixListener>,
    /// The parent's messages and who gets them, if anybody does.
    pub(crate) inbox: Option<Inbox>,
    /// The fields of every answer.
    pub(crate) common: Common,
    /// What chooses the requests whose body is not collected.
    pub(crate) streams: Box<dyn FnMut(&Request<'_>) -> bool>,
    /// What each answer is logged to, if it is to be.
    pub(crate) log: Option<AccessLog>,
}
