//! Where the pool listens, and who gets what comes.

use super::Builder;
use crate::shared::config::{Balance, ForwardedHeader};

impl Builder {
    /// Sets the permission bits of Unix sockets, regardless of the umask. Default `0o666`: every local user may
    /// connect, as to a port on 127.0.0.1. To restrict access further, put the socket into a directory of its own.
    pub fn unix_mode(self, mode: u32) -> Builder {
        self.put("unix-mode", |config| config.unix_mode = mode)
    }

    /// Sets the length of each worker's accept queue. Default 1024; the kernel caps it at `net.core.somaxconn`
    /// (listen(2)).
    pub fn backlog(self, connections: u32) -> Builder {
        self.put("backlog", |config| config.backlog = connections)
    }

    /// Sets how a new TCP connection is assigned to a worker. Default [`Balance::Auto`]: the free worker with the
    /// fewest connections if the process may load eBPF programs (CAP_BPF and CAP_NET_ADMIN), else a random free worker.
    /// The log says which, and why.
    pub fn balance(self, balance: Balance) -> Builder {
        self.put("balance", |config| config.balance = balance)
    }

    /// Sets how many other workers accept connections from a worker's queue while it is busy or gone; 0 to 16. Default
    /// 3: with three, four workers have to be busy at once for a connection to wait. Each neighbour costs the kernel a
    /// callback for every new connection while all are busy.
    pub fn neighbours(self, count: usize) -> Builder {
        self.put("neighbours", |config| config.neighbours = count)
    }

    /// Proxies that may say for whom they ask: networks as in `10.0.0.0/8`, addresses, and `unix` for whoever connects to a
    /// Unix socket, separated by commas or blanks. Default: none.
    ///
    /// A request of theirs has the [client](crate::Request::client) that X-Forwarded-For names, or Forwarded (RFC 7239): the
    /// last address that is none of these proxies' own. X-Forwarded-Proto tells its [scheme](crate::Request::scheme), and
    /// X-Forwarded-Host its [host](crate::Request::host). A proxy that is trusted has to set or remove these fields, as
    /// clients can send them too. The access log names the client.
    pub fn trusted_proxies(self, networks: &str) -> Builder {
        self.set("trusted-proxies", networks)
    }

    /// Where [trusted proxies](Builder::trusted_proxies) say for whom they ask. Default [`ForwardedHeader::Auto`]. Behind
    /// proxies that set Forwarded alone it has to be [`ForwardedHeader::Forwarded`].
    pub fn forwarded_header(self, header: ForwardedHeader) -> Builder {
        self.put("forwarded-header", |config| config.server.forwarded_header = header)
    }

    /// Whether every TCP connection begins with a header of HAProxy's PROXY protocol, version 1 or 2: the
    /// [client](crate::Request::client) is the one that it names. Default `false`.
    ///
    /// The header has to come within the [head timeout](Builder::head_timeout), and a connection without a valid one is
    /// closed. Where there are [trusted proxies](Builder::trusted_proxies), whoever is not listed is closed at once; Unix
    /// sockets take connections only by `unix`, and these begin with a header too. Connections that the application
    /// [hands over](crate::Adopter) begin with none.
    pub fn proxy_protocol(self, is_spoken: bool) -> Builder {
        self.put("proxy-protocol", |config| config.server.proxy_protocol = is_spoken)
    }
}
