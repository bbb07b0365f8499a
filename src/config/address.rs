//! PURE. An address to listen on, as written in a flag, a variable or a call.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `:PORT`: every interface, IPv6 and IPv4 (only IPv4 where the kernel has no IPv6).
    Any(u16),
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}
