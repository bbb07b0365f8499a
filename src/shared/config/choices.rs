//! PURE. What can be chosen by name.
#![forbid(unsafe_code)]

/// Who picks the worker for a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Balance {
    /// The least connections where that is allowed, else random.
    Auto,
    /// The kernel, blindly.
    Hash,
    Random,
    LeastConnections,
    Cpu,
    Client,
}

/// How the lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The common log format of NCSA httpd: `remote - - [time] "request line" status bytes`.
    Common,
    /// The same, then the fields Referer and User-Agent.
    Combined,
    /// An object (RFC 8259) in each line.
    Json,
}

/// The symbolic links that [`Files`](crate::Files) follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symlinks {
    /// None at all.
    None,
    /// Those that are relative and lead to something in the directory.
    Inside,
    /// All of them: whoever can write to the directory decides what is served.
    Anywhere,
}

/// What is served of a directory, and how.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) symlinks: Symlinks,
    pub(crate) dotfiles: bool,
    pub(crate) precompressed: bool,
    pub(crate) listing: bool,
    /// Pages of an application that runs in the browser are all `/index.html`.
    pub(crate) single_page: bool,
    pub(crate) cache_control: Option<String>,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            symlinks: Symlinks::Inside,
            dotfiles: false,
            precompressed: true,
            listing: false,
            single_page: false,
            cache_control: None,
        }
    }
}

/// How much a worker gives up once it is ready.
///
/// A confined worker serves what it has open and nothing else. System calls that are refused fail with `EPERM`, or with
/// `EACCES` where a file is concerned; executing a program, or reaching into another process, ends the worker by SIGSYS.
///
/// It **can**
///
/// - accept, read, write, and shut down the writing side of connections, and set what servers set on them: `SO_LINGER`,
///   `SO_KEEPALIVE`, time-outs, and the options of tcp(7) for keep-alive, `TCP_NODELAY` and `TCP_QUICKACK`;
/// - do with files that it has open what their mode allows: read, write at any offset, truncate, allocate, lock, and
///   sync to disk;
/// - open for reading what [`Worker::allow_files`](crate::Worker::allow_files) has allowed, its own executable,
///   `/dev/null`, `/dev/zero`, `/dev/urandom`, `/dev/random` and the time zones; open `/dev/null` for writing;
/// - start threads, make pipes, eventfds, timers and epoll instances, allocate memory, and ask for time and randomness.
///
/// It **cannot**
///
/// - open, create, rename or remove other files;
/// - make sockets or connect them: what speaks to a database, resolves names, or needs a socket pair (as tokio's signal
///   driver does) is opened before the worker is [`ready`](crate::Worker::ready);
/// - harm a listening socket, which its successor inherits: attach or detach programs, leave the SO_REUSEPORT group, or
///   shut down any socket's reading side. What the kernel cannot refuse the parent repairs when it hands the socket on;
/// - make a descriptor blocking: it cannot tell a listener's. `set_nonblocking` of the standard library fails either
///   way, since it uses ioctl(2); fcntl(2) can set `O_NONBLOCK`. Connections of
///   [`incoming`](crate::Worker::incoming) are blocking, and those of the built-in server and of tokio are not;
/// - break what it shares with the parent: shut down or copy standard streams that are sockets, have files that are open
///   bypass the cache (`O_DIRECT`), or put something else in the place of its sockets towards the parent; close_range(2)
///   is refused for their sake;
/// - start processes, map new code, change its user, or signal anybody but itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sandbox {
    /// Nothing.
    Off,
    /// What this kernel can enforce; what it cannot is said in the log.
    Auto,
    /// All of it: a worker that cannot be confined does not start.
    Strict,
}
