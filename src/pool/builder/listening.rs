//! Where the pool listens, and who gets what comes.

use super::Builder;
use crate::shared::config::Balance;

impl Builder {
    /// Permission bits of Unix sockets. Default `0o666`: every local user may connect, as to a port on 127.0.0.1,
    /// whatever user the proxy in front runs as. The umask does not apply; a directory of its own restricts further.
    pub fn unix_mode(self, mode: u32) -> Builder {
        self.put("unix-mode", |config| config.unix_mode = mode)
    }

    /// Connections that may wait in a worker's queue to be accepted. Default 1024; the kernel caps it at
    /// `net.core.somaxconn` (listen(2)).
    pub fn backlog(self, connections: u32) -> Builder {
        self.put("backlog", |config| config.backlog = connections)
    }

    /// Who gets a new TCP connection. Default [`Balance::Auto`]: the free worker with the fewest connections where the
    /// process may load eBPF (CAP_BPF and CAP_NET_ADMIN), else a random one of those that are free. The log says which,
    /// and why.
    pub fn balance(self, balance: Balance) -> Builder {
        self.put("balance", |config| config.balance = balance)
    }

    /// How many other workers take from a worker's queue what it leaves there, because it is busy or gone; 0 to 16.
    /// Default 3: each costs the kernel a callback for each new connection while all are busy, and with three, four
    /// workers have to be busy at once for a connection to wait.
    pub fn neighbours(self, count: usize) -> Builder {
        self.put("neighbours", |config| config.neighbours = count)
    }
}
