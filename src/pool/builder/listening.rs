//! Addresses, balancing and proxies.

use super::Builder;
use crate::shared::config::{Balance, ForwardedHeader};

impl Builder {
    /// Sets the permission bits of Unix sockets, regardless of the umask. Default `0o666`: every local user may
    /// connect, as to a port on 127.0.0.1. To restrict access further, put the socket into a directory of its own.
    pub fn unix_mode(self, mode: u32) -> Builder {
        self.put("unix-mode", |config| config.listening.unix_mode = mode)
    }

    /// Sets the length of each worker's accept queue. Default 1024; the kernel caps it at `net.core.somaxconn`
    /// (listen(2)).
    pub fn backlog(self, connections: u32) -> Builder {
        self.put("backlog", |config| config.listening.backlog = connections)
    }

    /// Sets how a new TCP connection is assigned to a worker. Default [`Balance::Auto`]: the free worker with the
    /// fewest connections if the process may load eBPF programs (CAP_BPF and CAP_NET_ADMIN), else a random free worker.
    /// The log says which, and why.
    pub fn balance(self, balance: Balance) -> Builder {
        self.put("balance", |config| config.workers.balance = balance)
    }

    /// Sets how many other workers accept connections from a worker's queue while it is busy or gone; 0 to 16. Default
    /// 3: with three, four workers have to be busy at once for a connection to wait. Each neighbour costs the kernel a
    /// callback for every new connection while all are busy.
    pub fn neighbours(self, count: usize) -> Builder {
        self.put("neighbours", |config| config.workers.neighbours = count)
    }

    /// Sets the proxies that may name the client of a request: networks such as `10.0.0.0/8`, addresses, and `unix` for
    /// every peer on a Unix socket, separated by commas or blanks. Default: none.
    ///
    /// The [client](crate::Request::client) of their requests is the last address in X-Forwarded-For, or in Forwarded
    /// (RFC 7239), that is not one of these proxies. X-Forwarded-Proto gives the [scheme](crate::Request::scheme), and
    /// X-Forwarded-Host the [host](crate::Request::host). A trusted proxy must set or remove these fields, since
    /// clients can send them too. The access log shows the client.
    pub fn trusted_proxies(self, networks: &str) -> Builder {
        self.set("trusted-proxies", networks)
    }

    /// Sets in which fields [trusted proxies](Builder::trusted_proxies) name the client. Default
    /// [`ForwardedHeader::Auto`]. Behind proxies that only set Forwarded, use [`ForwardedHeader::Forwarded`].
    pub fn forwarded_header(self, header: ForwardedHeader) -> Builder {
        self.put("forwarded-header", |config| config.server.forwarded_header = header)
    }

    /// Sets whether every TCP connection begins with a header of HAProxy's PROXY protocol, version 1 or 2, which names
    /// the [client](crate::Request::client). Default `false`.
    ///
    /// The header must arrive within the [head timeout](Builder::head_timeout); a connection without a valid header is
    /// closed. If there are [trusted proxies](Builder::trusted_proxies), connections from other peers are closed at
    /// once. Unix sockets accept connections only if `unix` is trusted, and these must begin with a header, too.
    /// Connections that the application [hands over](crate::Adopter) have no header.
    pub fn proxy_protocol(self, is_spoken: bool) -> Builder {
        self.put("proxy-protocol", |config| config.server.proxy_protocol = is_spoken)
    }
}
