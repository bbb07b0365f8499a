//! PURE. Settings whose values are names.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::shared::tls::{TlsClientAuth, TlsVersion};

/// A value with a name.
pub(super) trait Choose: Copy + PartialEq + Sized + 'static {
    /// The setting that takes these values.
    const SETTING: &'static str;
    /// All values and their names, in the order in which they are shown.
    const NAMES: &'static [(&'static str, Self)];

    fn named(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            match names.split_last() {
                Some((last, others)) => format!("must be {} or {last}", others.join(", ")),
                None => String::new(),
            }
        })
    }

    fn name(self) -> &'static str;
}

/// Implements parsing and formatting by name.
macro_rules! choose {
    ($type:ident, $setting:literal, $($name:literal => $variant:ident),+) => {
        impl Choose for $type {
            const SETTING: &'static str = $setting;
            const NAMES: &'static [(&'static str, $type)] = &[$(($name, $type::$variant)),+];

            fn name(self) -> &'static str {
                match self {
                    $($type::$variant => $name),+
                }
            }
        }

        #[doc = concat!("Reads a value of the setting `", $setting, "`.")]
        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<$type> {
                $type::named(text).map_err(|problem| Error::config($type::SETTING, problem))
            }
        }

        #[doc = concat!("Writes it as a value of the setting `", $setting, "`.")]
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

choose!(Adopt, "adopt", "auto" => Auto, "off" => Off, "require" => Require);
choose!(Balance, "balance", "auto" => Auto, "hash" => Hash, "random" => Random,
    "least-connections" => LeastConnections, "cpu" => Cpu, "client" => Client);
choose!(ForwardedHeader, "forwarded-header", "auto" => Auto, "x-forwarded-for" => XForwardedFor,
    "forwarded" => Forwarded);
choose!(Symlinks, "symlinks", "none" => None, "inside" => Inside, "anywhere" => Anywhere);
choose!(OnPanic, "on-panic", "answer" => Answer, "exit" => Exit);
choose!(OnStall, "on-stall", "kill" => Kill, "abort" => Abort);
choose!(Rebalance, "rebalance", "auto" => Auto, "off" => Off);
choose!(Sandbox, "sandbox", "auto" => Auto, "off" => Off, "strict" => Strict);
choose!(TlsClientAuth, "tls-client-auth", "no" => No, "optional" => Optional, "require" => Require);
choose!(TlsVersion, "tls-min", "1.2" => Tls12, "1.3" => Tls13);
choose!(StopSignal, "stop-signal", "TERM" => Term, "QUIT" => Quit, "INT" => Int, "HUP" => Hup, "USR1" => Usr1,
    "USR2" => Usr2, "WINCH" => Winch);

/// Whether a program that binds one of the pool's addresses itself gets the pool's socket for it
/// ([`Builder::adopt`](crate::Builder::adopt)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Adopt {
    /// Yes, where the kernel supports it. The log says where it does not.
    Auto,
    /// No: programs take the sockets by their numbers.
    #[default]
    Off,
    /// Yes: where the kernel does not support it, no program is run.
    Require,
}

/// Whether workers pass kept connections to each other, so that all have about as many and no worker is busy while
/// others are idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rebalance {
    /// After a worker has become ready, if the fullest worker has clearly more than the others; and if a worker is busy
    /// most of the time while another is not.
    #[default]
    Auto,
    /// A connection only moves when its worker leaves.
    Off,
}

/// How a new TCP connection is assigned to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Balance {
    /// [`LeastConnections`](Balance::LeastConnections) where the process may load eBPF, else
    /// [`Random`](Balance::Random).
    Auto,
    /// The kernel's own choice, by a hash of both addresses, whether that worker is free or not.
    Hash,
    /// A random free worker.
    Random,
    /// The free worker with the fewest connections, by eBPF; needs CAP_BPF and CAP_NET_ADMIN.
    ///
    /// Where each worker gets more than a thousand new connections a second, one that is awake may have up to four more
    /// than an idle one, which would have to be woken.
    LeastConnections,
    /// The worker on the CPU that received the connection. Pins workers.
    Cpu,
    /// The same worker for the same client address.
    Client,
}

/// In which header fields [trusted proxies](crate::Builder::trusted_proxies) name their clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ForwardedHeader {
    /// In X-Forwarded-For if the request has it, else in Forwarded.
    Auto,
    /// Only in X-Forwarded-For, -Proto and -Host.
    XForwardedFor,
    /// Only in Forwarded (RFC 7239).
    Forwarded,
}

/// What a panic in a handler ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnPanic {
    /// The connection, after a response of 500.
    Answer,
    /// The worker, as an uncaught exception does in Node. The panic is the reason given for the exit.
    Exit,
}

/// How a hung worker is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnStall {
    /// By SIGKILL.
    Kill,
    /// By SIGABRT first, so that it logs a backtrace and may dump core (core(5)), then by SIGKILL.
    Abort,
}

/// Which symbolic links [`Files`](crate::Files) follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Symlinks {
    /// None at all.
    None,
    /// Relative links that stay inside the directory.
    Inside,
    /// All links: anyone who can write to the directory decides which files are served.
    Anywhere,
}

/// How a worker is confined once it is ready.
///
/// A confined worker can only use what it has open. Refused system calls fail with `EPERM`, or with `EACCES` for files.
/// Executing a program, or accessing another process, ends the worker by SIGSYS.
///
/// It **can**
///
/// - accept connections, read and write them and shut down their writing side, and set the options that servers set on
///   them: `SO_LINGER`, `SO_KEEPALIVE`, timeouts, and from tcp(7) those for keep-alive, `TCP_NODELAY` and
///   `TCP_QUICKACK`;
/// - use its open files as their mode allows: read and write at any offset, truncate, allocate, lock and sync;
/// - open for reading what [`Worker::allow_files`](crate::Worker::allow_files) has allowed, its own executable,
///   `/dev/null`, `/dev/zero`, `/dev/urandom`, `/dev/random` and the time zones; open `/dev/null` for writing;
/// - start threads, make pipes, eventfds, timers and epoll instances, allocate memory, and ask for time and randomness.
///
/// It **cannot**
///
/// - open, create, rename or remove other files;
/// - create or connect sockets: open what talks to a database, resolves names, or needs a socket pair (as tokio's
///   signal driver does) before the worker is [`ready`](crate::Worker::ready);
/// - harm a listening socket, which its replacement inherits: attach or detach programs, leave the SO_REUSEPORT group,
///   or shut down the reading side of any socket. What the kernel cannot refuse, the parent repairs before it passes
///   the socket on;
/// - make a descriptor blocking, since the sandbox cannot tell which one is a listener's. `set_nonblocking` of the
///   standard library fails for both values, since it uses ioctl(2); fcntl(2) can set `O_NONBLOCK`. Connections of
///   [`incoming`](crate::Worker::incoming) are blocking, those of the built-in server and of tokio are not;
/// - break what it shares with the parent: shut down or copy standard streams that are sockets, make open files bypass
///   the cache (`O_DIRECT`), or replace the sockets that lead to the parent, for which close_range(2) is refused, too;
/// - start processes, map new code, switch its user, or signal any process but itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sandbox {
    /// Not at all.
    Off,
    /// As far as this kernel supports it. The log says what it does not support.
    Auto,
    /// Completely: a worker that cannot be confined does not start.
    Strict,
}

/// What asks a program to finish what it has and exit: signal(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopSignal {
    /// SIGTERM, as most programs expect it.
    #[default]
    Term,
    /// SIGQUIT, by which nginx, php-fpm and unicorn finish their requests.
    Quit,
    /// SIGINT.
    Int,
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGWINCH, by which Apache's httpd finishes its requests.
    Winch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_as_it_is_written() {
        fn all<C: Choose + FromStr<Err = Error> + fmt::Display + fmt::Debug>(problem: &str) {
            for (name, choice) in C::NAMES {
                assert_eq!((choice.to_string().as_str(), name.parse::<C>().ok()), (*name, Some(*choice)));
            }
            let wrong = "".parse::<C>().expect_err("no choice").to_string();
            assert_eq!(wrong, format!("{}: must be {problem}", C::SETTING));
        }
        all::<Adopt>("auto, off or require");
        all::<Balance>("auto, hash, random, least-connections, cpu or client");
        all::<ForwardedHeader>("auto, x-forwarded-for or forwarded");
        all::<Symlinks>("none, inside or anywhere");
        all::<OnPanic>("answer or exit");
        all::<OnStall>("kill or abort");
        all::<Rebalance>("auto or off");
        all::<Sandbox>("auto, off or strict");
        all::<StopSignal>("TERM, QUIT, INT, HUP, USR1, USR2 or WINCH");
    }
}
