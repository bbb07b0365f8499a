//! How a program says what its pool is to be.

use std::error::Error as StdError;
use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::parent::event::{Event, Exit};
use crate::parent::handle::{Handle, Hook, Hooks, OnExit};
use crate::parent::supervisor::Respawn;
use crate::pool::run::run;
use crate::server::answer::response::Response;
use crate::server::files::Files;
use crate::server::http::Request;
use crate::shared::config::Sandbox;
use crate::shared::config::Symlinks;
use crate::shared::config::{settings, Address, Config, Readiness, Setting};
use crate::worker::Worker;

/// A pool of worker processes. It is made by [`Pool::bind`] and lives inside [`Builder::serve`] or [`Builder::run`].
#[derive(Debug)]
pub enum Pool {}

impl Pool {
    /// Begins a pool that listens on `address`; see [`Builder::bind`] for its forms.
    pub fn bind(address: impl Display) -> Builder {
        Pool::nowhere().bind(address)
    }

    /// Begins a pool that takes datagrams on `address`, and listens for connections only where it is told to; see
    /// [`Builder::bind_udp`].
    pub fn bind_udp(address: impl Display) -> Builder {
        Pool::nowhere().bind_udp(address)
    }

    fn nowhere() -> Builder {
        let config = Config { addresses: Vec::new(), ..Config::default() };
        Builder { config, mistakes: Vec::new(), hooks: Hooks::default(), tick: None }
    }
}

/// What a pool is to be. Methods replace what was said before, but for [`bind`](Builder::bind),
/// [`bind_udp`](Builder::bind_udp) and [`admin_host`](Builder::admin_host), which add.
///
/// A value that makes no sense is reported by [`serve`](Builder::serve), [`run`](Builder::run) and
/// [`check`](Builder::check), unless a later call replaces it. Every time-out can be [`Duration::ZERO`], which is
/// never, and otherwise is 1 ms to 24 h.
#[derive(Debug)]
#[must_use = "a builder starts nothing before `serve` or `run`"]
pub struct Builder {
    config: Config,
    mistakes: Vec<Mistake>,
    hooks: Hooks,
    tick: Option<Duration>,
}

/// Something said that cannot be understood, kept for the end of the chain.
#[derive(Debug)]
struct Mistake {
    /// The setting's name: what is said about it later takes the mistake back.
    name: String,
    /// As the user wrote it.
    written: String,
    problem: String,
}

impl Builder {
    /// Listens on `address` too: `127.0.0.1:8000`, `[::1]:8000`, `:8000` (every interface, IPv6 and IPv4),
    /// `localhost:8000` (127.0.0.1), `unix:/run/app.sock`. Port 0 is a free port, one for all workers. Host names are
    /// not looked up.
    pub fn bind(mut self, address: impl Display) -> Builder {
        let address = address.to_string();
        match address.parse::<Address>() {
            Ok(address) => self.config.addresses.push(address),
            Err(problem) => self.mistaken("listen", quoted("listen", &address), problem),
        }
        self
    }

    /// Takes datagrams on `address` too, which has a form of [`bind`](Builder::bind), except for Unix sockets: each
    /// worker gets a UDP socket of its own by [`Worker::udp_sockets`]. The port has nothing to do with a TCP port of
    /// the same number.
    ///
    /// The kernel spreads datagrams over the workers by a hash of both addresses, so those of one client's socket go to
    /// one worker; [`balance`](Builder::balance) does not change that. What waits for a worker that dies or is replaced
    /// waits for its replacement, as far as the kernel's buffer reaches (`net.core.rmem_default`). Unlike with
    /// connections, nobody else takes what waits for a slot without a worker, and what is sent to a worker that is
    /// scaled away may be lost until its socket is closed.
    pub fn bind_udp(mut self, address: impl Display) -> Builder {
        let address = address.to_string();
        match address.parse::<Address>() {
            Ok(Address::Unix(_)) => {
                self.mistaken("bind_udp", quoted("bind_udp", &address), "is no UDP address; give an IP address".into());
            }
            Ok(address) => self.config.udp.push(address),
            Err(problem) => self.mistaken("bind_udp", quoted("bind_udp", &address), problem),
        }
        self
    }

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

    /// Who gets a new TCP connection, as in the setting `balance`: `auto`, `hash`, `random`, `least-connections`, `cpu`
    /// or `client`. Default `auto`: the free worker with the fewest connections where the process may load eBPF (CAP_BPF and
    /// CAP_NET_ADMIN), else a random one of those that are free. The log says which, and why.
    pub fn balance(self, method: &str) -> Builder {
        self.set("balance", method)
    }

    /// Whether each worker stays on one of the CPUs that affinity (sched_setaffinity(2)) leaves. Default `false`.
    pub fn pin(self, pin: bool) -> Builder {
        self.put("pin", |config| config.pin = pin)
    }

    /// How many other workers take from a worker's queue what it leaves there, because it is busy or gone; 0 to 16.
    /// Default 3: each costs the kernel a callback for each new connection while all are busy, and with three, four
    /// workers have to be busy at once for a connection to wait.
    pub fn neighbours(self, count: usize) -> Builder {
        self.put("neighbours", |config| config.neighbours = count)
    }

    /// Worker processes, 1 to 1024. Default: one for each CPU that affinity (sched_getaffinity(2)) and the cgroup's CPU
    /// quota leave, which is also said by `set("workers", "auto")`.
    pub fn workers(self, count: usize) -> Builder {
        self.put("workers", |config| config.workers = Some(count))
    }

    /// How long a worker told to stop may finish its requests before it is killed. Default 25 s: Kubernetes kills
    /// everything 30 s after its SIGTERM, and the parent wants to see the end of its workers and say so.
    pub fn drain_timeout(self, timeout: Duration) -> Builder {
        self.put("drain-timeout", |config| config.drain_timeout = timeout)
    }

    /// How long a worker may take from its fork until it is ready, before it is replaced. Default 60 s, as some load
    /// much data.
    pub fn boot_timeout(self, timeout: Duration) -> Builder {
        self.put("boot-timeout", |config| config.boot_timeout = timeout)
    }

    /// How long a worker may be busy with one request before it counts as hung and is replaced. Default 60 s; at least
    /// 100 ms. It watches workers that run [`Worker::serve`].
    pub fn stall_timeout(self, timeout: Duration) -> Builder {
        self.put("stall-timeout", |config| config.stall_timeout = timeout)
    }

    /// Whether a handler that panics ends its worker, as an uncaught exception does in Node, instead of answering 500
    /// and closing the connection. Default `false`: a worker has many clients, and most panics concern one. (The
    /// setting is `on-panic`, `answer` or `exit`.)
    pub fn exit_on_panic(self, exit: bool) -> Builder {
        self.put("on-panic", |config| config.server.exit_on_panic = exit)
    }

    /// Whether a worker that hangs is sent SIGABRT before SIGKILL, so that it logs where it stands and may dump core
    /// (core(5)). Default `false`. (The setting is `on-stall`, `kill` or `abort`.)
    ///
    /// The log gets an address for each frame, as `PATH+0xOFFSET`, since naming functions takes memory, and the handler may
    /// have been interrupted while it was getting some. `addr2line -Cfpie PATH 0xOFFSET ...` (binutils) names them, where the
    /// program has not been stripped.
    pub fn abort_on_stall(self, abort: bool) -> Builder {
        self.put("on-stall", |config| config.abort_stalled = abort)
    }

    /// Workers that a rolling restart replaces at a time. Default 1: the least memory, and the least that a bad new
    /// version can break. The new ones start while the old ones serve.
    pub fn surge(self, workers: usize) -> Builder {
        self.put("surge", |config| config.surge = workers)
    }

    /// How long to go on serving after SIGTERM or SIGQUIT, as not ready any more, before the drain begins, so that
    /// balancers look elsewhere first. Default: not at all.
    pub fn lame_duck(self, delay: Duration) -> Builder {
        self.put("lame-duck", |config| config.lame_duck = delay)
    }

    /// Workers of one slot in a row that end the pool with [`Error::GaveUp`] if they fail and have never served, after the
    /// others have drained. Default 0, never: the others serve, and the slot is tried again every few seconds. A worker
    /// that has served does not count, so that no client can end the pool by what it sends.
    pub fn give_up(self, failures: u32) -> Builder {
        self.put("give-up", |config| config.give_up = failures)
    }

    /// Requests after which a worker is replaced, or up to a tenth fewer, so that not all are due at once. Default 0,
    /// no limit. The replacement starts first, and one worker is replaced at a time, in each slot at most about once a
    /// second. It counts what [`Worker::serve`] serves.
    pub fn max_requests(self, requests: u64) -> Builder {
        self.put("max-requests", |config| config.max_requests = requests)
    }

    /// Time after which a worker is replaced as by [`max_requests`](Builder::max_requests), or up to a tenth less.
    /// Default: no limit.
    pub fn max_age(self, age: Duration) -> Builder {
        self.put("max-age", |config| config.max_age = age)
    }

    /// Bytes of resident memory, shared ones included, beyond which a worker is replaced as by
    /// [`max_requests`](Builder::max_requests). Default 0, no limit; otherwise the parent looks once a second.
    pub fn max_rss(self, bytes: usize) -> Builder {
        self.put("max-rss", |config| config.max_rss = bytes)
    }

    /// Address of a process for status, metrics, health and control: as of [`bind`](Builder::bind), but one, and nobody
    /// else's. Default: none. It is beside the workers, and answers while all of them are busy or dead: `/` for people,
    /// `/status.json`, `/status.txt`, `/metrics` for Prometheus, `/healthz`, `/readyz`, `/events`, and by POST `/restart`,
    /// `/scale?workers=N`, `/stop`, `/upgrade`, `/log?level=LEVEL`.
    ///
    /// A Unix socket is for the user alone who runs the pool (mode 0600). Over TCP everybody who can connect can read,
    /// and nobody can control the pool without an [`admin_token_file`](Builder::admin_token_file). There is no TLS, so
    /// keep a TCP address to a private network.
    pub fn admin(self, address: impl Display) -> Builder {
        self.set("admin", &address.to_string())
    }

    /// Host name, without a port, by which [`admin`](Builder::admin) may be asked over TCP too. Default: none, only IP
    /// addresses and `localhost`; other names are refused with 421, since a web page could have its own name resolved to
    /// this host (DNS rebinding). `/metrics`, `/healthz` and `/readyz` answer to any name.
    pub fn admin_host(self, name: impl Into<String>) -> Builder {
        self.put("admin-host", |config| config.admin_hosts.push(name.into()))
    }

    /// File with one word, which a client of [`admin`](Builder::admin) over TCP sends to control the pool, as
    /// `Authorization: Bearer TOKEN`. Default: none. It is read once, and may not be accessible to every user.
    pub fn admin_token_file(self, path: impl Into<PathBuf>) -> Builder {
        self.put("admin-token-file", |config| config.admin_token_file = Some(path.into()))
    }

    /// User that workers become once they listen, by name or number; only root can. Default: nobody else.
    ///
    /// In a worker the variables HOME, USER and LOGNAME are that user's.
    pub fn user(self, user: impl Into<String>) -> Builder {
        self.put("user", |config| config.user = Some(user.into()))
    }

    /// Group that workers become, by name or number; only root can. Default: the user's own.
    pub fn group(self, group: impl Into<String>) -> Builder {
        self.put("group", |config| config.group = Some(group.into()))
    }

    /// What workers give up once they are [ready](crate::Worker::ready). Default [`Sandbox::Off`]: only you know what
    /// your handler needs. The binary confines its own workers ([`Sandbox::Auto`]).
    ///
    /// A worker that [becomes a program](crate::Worker::exec) gives up nothing but new privileges (prctl(2),
    /// `PR_SET_NO_NEW_PRIVS`): set-user-ID programs such as sudo do not work in it.
    pub fn sandbox(self, sandbox: Sandbox) -> Builder {
        self.put("sandbox", |config| config.sandbox = sandbox)
    }

    /// File for the parent's process id, written once the addresses are bound and removed at the end; mode 0644. On a full
    /// disk the pool starts without it, says so, and tries again every five seconds. Default: none.
    pub fn pid_file(self, path: impl Into<PathBuf>) -> Builder {
        self.put("pid-file", |config| config.pid_file = Some(path.into()))
    }

    /// Bytes of the longest request target; beyond it 414. Default 8 KiB: RFC 9112 section 3 asks for at least 8000
    /// bytes.
    pub fn max_target(self, bytes: usize) -> Builder {
        self.put("max-target", |config| config.server.limits.target = bytes)
    }

    /// Bytes of the longest request head, from the method to the empty line; beyond it 431. Default 16 KiB: twice what
    /// common browsers and proxies send at most, and little enough to be held for each slow client.
    pub fn max_head(self, bytes: usize) -> Builder {
        self.put("max-head", |config| config.server.limits.head = bytes)
    }

    /// Most header fields of a request, 1 to 128; beyond it 431. Default 100: what Apache allows,
    /// several times what browsers send.
    pub fn max_fields(self, count: usize) -> Builder {
        self.put("max-fields", |config| config.server.limits.fields = count)
    }

    /// Bytes of the longest request body, which is held in memory; beyond it 413. Default 1 MiB; zero refuses bodies.
    pub fn max_body(self, bytes: usize) -> Builder {
        self.put("max-body", |config| config.server.limits.body = bytes)
    }

    /// Requests on one connection before it is closed, so that clients spread anew. Default 0, no limit: a
    /// kept connection is the cheapest.
    pub fn max_requests_per_connection(self, count: u64) -> Builder {
        self.put("max-requests-per-connection", |config| config.server.limits.requests = count)
    }

    /// Requests of one connection that are answered in a row before the others have their turn. Default
    /// 64: a few milliseconds' work for most handlers, and enough for one send to carry many answers.
    pub fn max_pipelined(self, count: usize) -> Builder {
        self.put("max-pipelined", |config| config.server.max_pipelined = count)
    }

    /// Open connections per worker. At the limit, the connection that has been idle longest is closed for a new one;
    /// those with a request in progress stay, and new ones wait when there are no others. Default 0, as many as
    /// descriptors allow: when those run out, the same holds.
    pub fn max_connections(self, count: usize) -> Builder {
        self.put("max-connections", |config| config.server.max_connections = count)
    }

    /// Bytes of answers held for a client that does not read them, before it is not read from either.
    /// Default 256 KiB: more than a round trip's worth to most clients, and bounded for those who only send.
    pub fn max_output(self, bytes: usize) -> Builder {
        self.put("max-output", |config| config.server.max_output = bytes)
    }

    /// Bytes that each worker holds for its clients: of heads and bodies that have not come whole, and of answers that
    /// were not taken. Default 64 MiB: far beyond what honest clients need, and a bound for what others take. At least
    /// [`max_body`](Builder::max_body); 0 is no limit.
    ///
    /// At the limit a request of which a part would have to be held gets 503, bodies that are coming are not read
    /// further, and requests that come whole are served as ever. When that has lasted for 5 s, the slowest clients get
    /// 408, those that take no answer are reset, and if nobody is slow, the oldest of those that wait get 503.
    pub fn max_held(self, bytes: usize) -> Builder {
        self.put("max-held", |config| config.server.max_held = bytes)
    }

    /// How long a client may take to send a whole request head. Default 10 s: several retransmissions on a bad line.
    pub fn head_timeout(self, timeout: Duration) -> Builder {
        self.put("head-timeout", |config| config.server.head_timeout = timeout)
    }

    /// How long a client may pause while it sends a body. Default 30 s: a bad line's silence; an upload may take as
    /// long as it goes on.
    pub fn body_timeout(self, timeout: Duration) -> Builder {
        self.put("body-timeout", |config| config.server.body_timeout = timeout)
    }

    /// Bytes of a body that a client must send a second, over any span of [`body_timeout`](Builder::body_timeout); a
    /// slower one gets 408. Default 500, as with Apache: slower than any line, and a byte now and then does not
    /// hold a place and memory for good. 0 is no minimum. Time in which the worker does not read does not count.
    ///
    /// The same holds for what a client takes of an answer that waits for it, over any span of
    /// [`write_timeout`](Builder::write_timeout); a slower one is reset.
    ///
    /// A head has no rate, since [`head_timeout`](Builder::head_timeout) bounds the whole of it.
    pub fn min_rate(self, bytes: usize) -> Builder {
        self.put("min-rate", |config| config.server.min_rate = bytes)
    }

    /// How long a connection may be idle between requests. Default 75 s: longer than the 60 s of common proxies, so
    /// that they close first.
    pub fn idle_timeout(self, timeout: Duration) -> Builder {
        self.put("idle-timeout", |config| config.server.idle_timeout = timeout)
    }

    /// How long a client may take nothing of an answer that waits for it, be it in the kernel. Default 30 s, as for a body.
    pub fn write_timeout(self, timeout: Duration) -> Builder {
        self.put("write-timeout", |config| config.server.write_timeout = timeout)
    }

    /// Directory whose files [`files`](Builder::files) serves. Default: none.
    pub fn root(self, directory: impl Into<PathBuf>) -> Builder {
        self.put("root", |config| config.root = Some(directory.into()))
    }

    /// As [`Files::listing`]. Default `false`.
    pub fn listing(self, list: bool) -> Builder {
        self.put("listing", |config| config.files.listing = list)
    }

    /// As [`Files::single_page`]. Default `false`. (The setting is `spa`.)
    pub fn single_page(self, is: bool) -> Builder {
        self.put("spa", |config| config.files.single_page = is)
    }

    /// As [`Files::cache_control`]. Default: none.
    pub fn cache_control(self, value: impl Into<String>) -> Builder {
        self.put("cache-control", |config| config.files.cache_control = Some(value.into()))
    }

    /// As [`Files::precompressed`]. Default `true`.
    pub fn precompressed(self, look: bool) -> Builder {
        self.put("precompressed", |config| config.files.precompressed = look)
    }

    /// As [`Files::symlinks`]. Default [`Symlinks::Inside`].
    pub fn symlinks(self, symlinks: Symlinks) -> Builder {
        self.put("symlinks", |config| config.files.symlinks = symlinks)
    }

    /// As [`Files::dotfiles`]. Default `false`.
    pub fn dotfiles(self, serve: bool) -> Builder {
        self.put("dotfiles", |config| config.files.dotfiles = serve)
    }

    /// File that gets a line for each answer of [`Worker::serve`], or `-` or `/dev/stdout` for standard output,
    /// `/dev/stderr` for standard error. Default: none.
    ///
    /// It must be no symbolic link. Where root opens it for workers of [another user](Builder::user), nobody but root may
    /// be able to put something else in its place: its directory and those above belong to root, and others cannot write
    /// to them, unless they are sticky as `/tmp` is.
    ///
    /// The parent opens it, before workers change their user, and opens it anew on SIGUSR1: what was answered before
    /// goes to the old file, wherever that has been moved. Each worker collects lines for up to a second or 64 KiB and
    /// appends whole ones only; one that is killed by SIGKILL loses those. No answer waits for a full disk, nor for who
    /// reads a FIFO or a pipe: a worker then keeps up to 64 KiB. Lines that cannot be written are counted in the log and
    /// in the status.
    pub fn access_log(self, path: impl Into<PathBuf>) -> Builder {
        self.put("access-log", |config| config.access_log = Some(path.into()))
    }

    /// How the lines of the access log are written: `common`, `combined` or `json`. Default `combined`.
    ///
    /// Times are those when an answer was complete, in UTC. Bytes are those of the body that were sent, with the
    /// framing of chunks. A client that goes before there is an answer has status 499. In what clients sent, quotes,
    /// backslashes and what is not visible ASCII are written as `\xHH`; in JSON only what RFC 8259 asks for and control
    /// characters are escaped, and U+FFFD stands for what is not UTF-8. Values that would make the line too long end in
    /// `...`.
    pub fn access_log_format(self, format: &str) -> Builder {
        self.set("access-log-format", format)
    }

    /// When the program counts as ready that a worker becomes by [`Worker::exec`]. Default [`Readiness::Listen`].
    pub fn readiness(self, readiness: Readiness) -> Builder {
        self.put("readiness", |config| config.readiness = readiness)
    }

    /// Has every line that workers, or the programs that they execute, write to stdout and stderr begin with
    /// `worker=ID pid=PID `. Default `false`.
    ///
    /// The two are pipes to the parent then, from the start of each worker on. The parent passes on line by line; one of
    /// more than 64 KiB comes in parts. When nobody reads the parent's output, writers wait. Once the parent has died,
    /// writing fails (EPIPE), and so it does for what a process leaves behind that has ended some seconds ago.
    pub fn prefix_output(self, prefix: bool) -> Builder {
        self.put("prefix-output", |config| config.prefix = prefix)
    }

    /// Whether workers may send descriptors up with their messages ([`Worker::send_with`]), as
    /// [`Event::Message`] gives them to the [hook](Builder::on_event). Default `false`: a worker that sends one all the
    /// same gets an error, or is killed on a kernel before Linux 6.16.
    ///
    /// A hook that keeps a copy closes it in the parent, and close(2) may wait there: for a socket with SO_LINGER, which
    /// the worker can set. The parent's own copy never makes it wait. A message waits while the parent has no descriptor
    /// free for the one that comes with it, and the log says so.
    pub fn take_descriptors(self, take: bool) -> Builder {
        self.put("take-descriptors", |config| config.takes_descriptors = take)
    }

    /// Percent of the parent's time that reading the messages of one worker may take; what the [hook](Builder::on_event)
    /// does with them is its own affair. Default 2, which is some 20 000 short messages a second, and what has not been used
    /// of it for five seconds may come at once: a worker that was broken into and floods the parent costs it next to nothing.
    /// Who sends more gets [`MessageError::Full`](crate::MessageError::Full) until they are read.
    ///
    /// Where workers are to send more, and are trusted, say more; 100 and above is no limit. Signals, exits and other workers
    /// never wait for more than a few milliseconds of one worker's messages.
    pub fn message_share(self, percent: u32) -> Builder {
        self.put("message-share", |config| config.message_share = percent)
    }

    /// Reads the variables that the binary reads: `FORKPOOL_LISTEN`, `FORKPOOL_WORKERS` and one for each of
    /// [`settings`], and `CLUSTER_WORKERS`, `WEB_CONCURRENCY` and `PORT`, which are read when that of ours is not set.
    ///
    /// Those set replace what was said so far; an empty one counts as unset. `PORT` listens on that port of every
    /// interface.
    pub fn env(self) -> Builder {
        self.env_from(&|name| std::env::var_os(name))
    }

    fn env_from(mut self, source: &dyn Fn(&str) -> Option<OsString>) -> Builder {
        for setting in settings() {
            let Some((variable, value, prefix)) = setting.variable_set(source) else { continue };
            let written = quoted(&variable, &value.to_string_lossy());
            match value.into_string() {
                Ok(value) => self.assign(setting, written, &format!("{prefix}{value}")),
                Err(_) => self.mistaken(setting.name(), written, "is not valid UTF-8".into()),
            }
        }
        self
    }

    /// Sets any of [`settings`] by its name (`drain-timeout`; leading dashes are allowed) and from text, as the binary
    /// does with its flags: durations such as `30s` or `500ms`, sizes such as `8KiB`. `listen` and `admin-host` take a
    /// list and replace all given before.
    pub fn set(mut self, name: &str, value: &str) -> Builder {
        match Setting::named(name.strip_prefix("--").unwrap_or(name)) {
            Some(setting) => self.assign(setting, quoted(name, value), value),
            None => self.mistaken(name, quoted(name, value), "there is no such setting".into()),
        }
        self
    }

    /// Calls `hook` for every [`Event`], in the parent, on its only thread, one at a time and in their order. The
    /// [`Handle`] lets it restart, scale or stop the pool, and send its workers messages.
    ///
    /// While it runs the parent does nothing else: no worker is reaped or started. It must not block, start threads
    /// (fork(2) copies only one), or exit. A panic in it is logged and changes nothing. Workers do not run it: each
    /// drops its copy at its start, and so runs the `Drop` of what the closure owns; what is to happen once belongs
    /// elsewhere.
    ///
    /// ```no_run
    /// use forkpool::{Event, Pool, Response};
    ///
    /// fn main() -> forkpool::Result<()> {
    ///     Pool::bind(":8000")
    ///         .on_event(|event, pool| match event {
    ///             Event::Ready(process) => println!("worker {} is pid {}", process.worker, process.pid),
    ///             Event::Exited { code: Some(7), .. } => pool.stop(),
    ///             _ => {}
    ///         })
    ///         .serve(|_request| Response::text("hello world\n"))
    /// }
    /// ```
    pub fn on_event(mut self, hook: impl FnMut(&Event<'_>, &Handle<'_>) + 'static) -> Builder {
        self.hooks.on_event = Some(Hook::new(hook));
        self
    }

    /// Has `policy` decide when the slot of a worker that has exited without being told to gets another one, in place of
    /// the pool's own backoff. It is asked before [`Event::Exited`] is told.
    ///
    /// An exit that it answers by anything but [`Respawn::Backoff`] does not count for [`give_up`](Builder::give_up),
    /// nor for the rule that a pool whose workers all fail before any was ready ends. It is not asked about a worker
    /// that the pool itself kills because it stalls or is late: the slot of such a one does not wait for its exit.
    ///
    /// A slot that is left empty ([`Respawn::Never`]) keeps its sockets, and its neighbours take what comes. It counts
    /// as wanted, and not as ready, in the [`Status`](crate::Status); a rolling restart and [`Handle::scale`] start it
    /// again, and an upgrade starts all slots anew. When all slots are empty the pool ends, as if it had been asked to
    /// stop: [`run`](Builder::run) returns `Ok`.
    ///
    /// As the hook of [`on_event`](Builder::on_event) it runs in the parent, and must not block. When it panics, that is
    /// logged and the answer is `Respawn::Backoff`.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use forkpool::{Pool, Respawn, Response};
    ///
    /// fn main() -> forkpool::Result<()> {
    ///     Pool::bind(":8000")
    ///         .on_exit(|exit| match exit.code {
    ///             // It has done its part.
    ///             Some(0) => Respawn::Never,
    ///             // It has found what it cannot work with.
    ///             Some(78) => Respawn::Stop,
    ///             _ if exit.was_ready => Respawn::Now,
    ///             _ => Respawn::After(Duration::from_secs(5)),
    ///         })
    ///         .serve(|_request| Response::text("hello world\n"))
    /// }
    /// ```
    pub fn on_exit(mut self, policy: impl FnMut(&Exit<'_>) -> Respawn + 'static) -> Builder {
        self.hooks.on_exit = Some(OnExit(Box::new(policy)));
        self
    }

    /// Calls the [hook](Builder::on_event) with [`Event::Tick`] this often: 1 ms or more. Default never. A parent that
    /// is late makes up for nothing: ticks do not pile up.
    pub fn tick(mut self, period: Duration) -> Builder {
        self.mistakes.retain(|mistake| mistake.name != "tick");
        self.tick = (!period.is_zero()).then_some(period);
        if !period.is_zero() && period < Duration::from_millis(1) {
            self.mistaken("tick", "tick".into(), "must be 1ms or more, or 0 for never".into());
        }
        self
    }

    /// Whether all that was said makes sense, without listening on or writing anything. The answer is one line for
    /// people.
    ///
    /// # Errors
    ///
    /// As [`run`](Builder::run), but for what only starting can tell.
    pub fn check(&self) -> Result<String> {
        if let Some(mistake) = self.mistakes.first() {
            return Err(Error::config(&mistake.written, &mistake.problem));
        }
        self.config.check()?;
        let tcp = self.config.addresses.iter().map(Address::to_string);
        let udp = self.config.udp.iter().map(|address| format!("udp:{address}"));
        let addresses: Vec<String> = tcp.chain(udp).collect();
        let (_, workers) = self.config.worker_count();
        Ok(format!("listens on {}, {workers}", addresses.join(", ")))
    }

    /// The files under [`root`](Builder::root), to answer requests with; `None` when no root was said.
    ///
    /// ```no_run
    /// # use forkpool::{Files, Pool, Response};
    /// # fn main() -> forkpool::Result<()> {
    /// // What the binary does: the settings decide, and each worker opens the directory anew.
    /// let pool = Pool::bind(":8000").env();
    /// match pool.files()? {
    ///     Some(files) => pool.run(|worker| {
    ///         let files = files.reopen()?;
    ///         worker.serve(|request| files.answer(request))
    ///     }),
    ///     None => pool.serve(|_request| Response::new(404)),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`check`](Builder::check) and [`Files::open`].
    pub fn files(&self) -> Result<Option<Files>> {
        self.check()?;
        let open = |path: &PathBuf| Files::open_with(path.clone(), self.config.files.clone());
        self.config.root.as_ref().map(open).transpose()
    }

    /// Runs the pool with the built-in HTTP server until it is asked to stop. `handler` answers the requests, in the
    /// workers; see [`Worker::serve`].
    ///
    /// # Errors
    ///
    /// As [`run`](Builder::run).
    pub fn serve(self, handler: impl FnMut(&Request<'_>) -> Response) -> Result<()> {
        self.run(|worker| worker.serve(handler))
    }

    /// Runs the pool until it is asked to stop. Each worker runs `main` once, and ends with it.
    ///
    /// `main` is called in the worker, after the fork, and never in this process; it may borrow from the caller and
    /// need not be `Send`. A worker whose `main` returns before it was told to finish, or returns an error, is
    /// replaced. This returns in the parent alone.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a setting that makes no sense, [`Error::Threads`] when another thread runs,
    /// [`Error::Bind`] for an address that cannot be had, [`Error::File`] for the pid file, [`Error::Boot`] when no
    /// worker could start.
    pub fn run<E>(self, main: impl FnOnce(&Worker) -> Result<(), E>) -> Result<()>
    where
        E: Into<Box<dyn StdError>>,
    {
        self.check()?;
        let main = Box::new(|worker: &Worker| main(worker).map_err(Into::into));
        let on_event = self.hooks.on_event.map(|hook| hook.ticking(self.tick));
        run(self.config, Hooks { on_event, ..self.hooks }, main)
    }

    fn put(mut self, name: &'static str, change: impl FnOnce(&mut Config)) -> Builder {
        self.mistakes.retain(|mistake| mistake.name != name);
        change(&mut self.config);
        self
    }

    fn assign(&mut self, setting: &Setting, written: String, value: &str) {
        self.mistakes.retain(|mistake| mistake.name != setting.name());
        if let Err(problem) = setting.apply(&mut self.config, value) {
            self.mistaken(setting.name(), written, problem);
        }
    }

    fn mistaken(&mut self, name: &str, written: String, problem: String) {
        self.mistakes.push(Mistake { name: name.to_owned(), written, problem });
    }
}

/// A setting and its value as the user wrote them, on one line whatever is in them.
fn quoted(name: &str, value: &str) -> String {
    let value = if value.is_empty() { "\"\"" } else { &value.escape_debug().to_string() };
    let separator = if name.starts_with("--") { ' ' } else { '=' };
    format!("{}{separator}{value}", name.escape_debug())
}

#[cfg(test)]
mod tests;
