//! The configuration of the built-in HTTP server.

use std::net::SocketAddr;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

use super::{ForwardedHeader, Limits, OnPanic, Proxies};
#[cfg(feature = "tls")]
use crate::shared::tls::Keyring;

/// A timeout of zero is off.
#[derive(Clone, Debug)]
pub(crate) struct ServerConfig {
    /// The codec's limits.
    pub(crate) limits: Limits,
    pub(crate) capacity: Capacity,
    pub(crate) timeouts: Timeouts,
    /// Whether a client that closes its sending side still waits for its response.
    pub(crate) half_close: bool,
    pub(crate) on_panic: OnPanic,
    /// Whether the parent's log names the request in which a worker hangs or dies.
    pub(crate) name_requests: bool,
    /// How long the application may take for a response before that is logged. Zero is no limit.
    pub(crate) slow_request: Duration,
    /// The proxies that may name the client of a request, and the header fields in which they do.
    pub(crate) proxies: Proxies,
    pub(crate) forwarded_header: ForwardedHeader,
    /// Whether TCP connections begin with a header of the PROXY protocol.
    pub(crate) proxy_protocol: bool,
    /// What the server needs for TLS, if it speaks that.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<Keyring>>,
    /// The port of HTTPS to which requests without TLS are redirected.
    pub(crate) https_port: Option<u16>,
}

/// How much clients may have in progress.
#[derive(Clone, Debug)]
pub(crate) struct Capacity {
    /// The number of pipelined requests of one connection that are answered before other connections are served.
    pub(crate) max_pipelined: usize,
    /// The maximum number of open connections per worker. At the limit idle connections are closed, and new ones are
    /// directed to other workers. Zero is no limit.
    pub(crate) max_connections: usize,
    /// At the limit, also close connections with incomplete requests or unread responses.
    pub(crate) evicts_unfinished: bool,
    /// The maximum number of handshakes of TLS in progress per worker.
    pub(crate) max_handshakes: usize,
    /// The bytes of unread responses to buffer per client. Beyond it, no more requests of that client are read.
    pub(crate) max_output: usize,
    /// The bytes that a worker may hold for requests and responses in progress. Zero is no limit.
    pub(crate) max_held: usize,
}

/// How long clients, and the application, may take. Zero is no limit.
#[derive(Clone, Debug)]
pub(crate) struct Timeouts {
    /// For a request's head.
    pub(crate) head: Duration,
    /// For a pause within a request's body.
    pub(crate) body: Duration,
    /// The bytes per second of a body that a client must send, on average over `body`. Zero is no minimum.
    pub(crate) min_rate: usize,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// The time over which a worker that drains closes idle connections.
    pub(crate) drain_spread: Duration,
    /// For a client that should read a response.
    pub(crate) write: Duration,
    /// For the application's deferred response.
    pub(crate) answer: Duration,
    /// After how much silence the kernel probes whether a TCP client is still there.
    pub(crate) tcp_keepalive: Duration,
}

impl ServerConfig {
    /// Whether the client of a request may be somebody other than the peer of the connection.
    pub(crate) fn has_proxies(&self) -> bool {
        self.proxy_protocol || !self.proxies.is_empty()
    }

    /// Whether this peer may connect at all. A peer on a Unix socket has no address.
    pub(crate) fn admits(&self, peer: Option<SocketAddr>) -> bool {
        !self.proxy_protocol || self.proxies.is_empty() || self.proxies.trust(peer.map(|peer| peer.ip()))
    }

    /// Whether a connection begins with a header of the PROXY protocol. On Unix sockets, only if `unix` is trusted.
    pub(crate) fn begins_with_header(&self, peer: Option<SocketAddr>) -> bool {
        self.proxy_protocol && (peer.is_some() || !self.proxies.is_empty())
    }

    /// Whether a panic in a handler ends the worker, and not only the connection.
    pub(crate) fn exits_on_panic(&self) -> bool {
        self.on_panic == OnPanic::Exit
    }
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            limits: Limits {
                target: 8 << 10,
                head: 16 << 10,
                fields: 100,
                body: 1 << 20,
                requests: 0,
                utf8_query: true,
            },
            capacity: Capacity {
                max_pipelined: 64,
                max_connections: 0,
                evicts_unfinished: false,
                max_handshakes: 1000,
                max_output: 256 << 10,
                max_held: 64 << 20,
            },
            timeouts: Timeouts {
                head: Duration::from_secs(10),
                body: Duration::from_secs(60),
                min_rate: 500,
                idle: Duration::from_secs(75),
                drain_spread: Duration::from_millis(800),
                write: Duration::from_secs(360),
                answer: Duration::from_secs(300),
                tcp_keepalive: Duration::from_secs(60),
            },
            half_close: false,
            on_panic: OnPanic::Answer,
            name_requests: true,
            slow_request: Duration::ZERO,
            proxies: Proxies::default(),
            forwarded_header: ForwardedHeader::Auto,
            proxy_protocol: false,
            #[cfg(feature = "tls")]
            tls: None,
            https_port: None,
        }
    }
}
