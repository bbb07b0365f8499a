//! The parent's loop: wait for signals and lifelines, tell the supervisor, perform its effects.
//!
//! In come signals, exits, what workers report and what the application and the admin process ask for; out go forks,
//! signals, orders and facts. It waits without a time-out unless something is due: an idle pool does not wake it. It
//! may not know HTTP, nor accept a connection, nor wait for anybody, nor believe what a worker says without a check.
//!
//! # Files
//!
//! - `start.rs`: what is there before the first worker
//! - `effects.rs`: what the supervisor wants done
//! - `places.rs`: who serves which slot, and what follows
//! - `spawn.rs`: what a worker is started with
//! - `deploy/`: restarts that somebody asks for, and what they read anew; files.rs: those that changed files ask for;
//!   debounce.rs (PURE): when these are whole; exchange.rs (PURE): when the root is another
//! - `discard.rs`: how what they have passed is closed
//! - `journal.rs`: what it says, and what it knows of failures; announce.rs: in which words; repeats.rs (PURE): how often
//! - `access_log.rs`: the access log's file
//! - `mend.rs`: sockets that workers have broken
//! - `health.rs`: who exits, hangs, grows
//! - `attend.rs`: whose queue is left waiting
//! - `programs.rs`: workers that keep other programs
//! - `takeover.rs`: upgrades
//! - `hooks.rs`: the application's closure
//! - `inbox.rs`: the messages of workers
//! - `reports.rs`: what they report
//! - `roster.rs`: PURE. who is where: processes by pid, slot and row
//! - `requests.rs`: what signals, the application and admin clients ask for
//! - `admin.rs`: the admin process
//! - `supervisor/`: PURE. what should run: Event in, Effect out; reconcile.rs: slots towards what is wanted;
//!   failure.rs: what counts as one; policy.rs: backoff; seeded simulation
//! - `wakeups.rs`: what it waits on; source.rs (PURE): what each token means
//! - `watch.rs`: PURE. who stalls, and when to look
//! - `neighbours.rs`: PURE. which workers look after each slot's queue besides its own
//! - `custody.rs`: the slots' sockets, in the order of the kernel's groups
//! - `successor/`: how sockets go to a new binary, both ends; variable.rs (PURE): what the variable says
//! - `orphans.rs`: what a program leaves whose keeper was killed
//! - `notify.rs`: sockets on which programs say that they are ready
//! - `service.rs`: what a service manager is told and gives
//! - `event.rs`, `handle.rs`: what the application is told, and may ask for
//! - `reap.rs`, `pid_file.rs`
//!
//! # How it works
//!
//! **Start.** The parent refuses to run with a second thread, raises RLIMIT_NOFILE, *reserves* every address (bound
//! without SO_REUSEPORT, never listened on: a second instance fails, and port 0 is resolved once), installs its
//! signal handlers and forks slot after slot. A worker makes its own SO_REUSEPORT sockets and sends copies up before
//! any user code runs; only then is the next slot forked, so that the order of the kernel's group is the order of the
//! slots.
//!
//! **Signals.** The pool trusts nothing that it inherits. The parent unblocks and handles the nine that it hears; a
//! worker unblocks SIGALRM and SIGABRT as well, and gives SIGALRM its default action where it sets the alarm that
//! bounds an orphan's drain. SIGXFSZ is ignored, so a log at its size limit fails to be written and ends nobody.
//! Signals that an embedder blocks or ignores for reasons of its own stay as they are, and the mask returns when the
//! pool has ended. HUP, USR1, USR2, TTIN and TTOU would end or stop a process that does not hear them yet: the binary
//! blocks them before anything else, and an old parent before it starts a new binary, so that they wait until the
//! handlers are there. A program gets an empty mask, the actions that the pool was started with, and a process group
//! of its own; so does its keeper.
//!
//! **Death.** SIGCHLD makes the parent ask for each of its own processes (never for an embedder's other children; as
//! PID 1 also for orphans, and for what the program of a dead keeper has left). The supervisor decides when the slot is started again; the replacement inherits the
//! slot's sockets from the parent's *custody*, so what waited in their queues is served and nothing is reset.
//!
//! **Replacing.** Whatever the reason (a restart, a recycling, a worker that a signal has stopped), the replacement
//! starts in the same slot, with the same sockets; when both are ready the older one drains. So there is one rule for
//! leaving, and a replacement that fails changes nothing.
//!
//! **Stop.** The parent drops its copies of all sockets, then half-closes every lifeline. A worker takes in what
//! waits in its own queues and in those of its neighbours that nobody serves, closes them, answers each connection
//! once more with `Connection: close`, closes idle ones one after the other within a second, gives a head that is not
//! whole as long (408), and exits: only requests in progress take longer. The admin process does the same within 50
//! ms, and cuts off whoever does not read. What is left at the drain time-out is killed. SIGINT is quick: workers end
//! without draining. What asks for a stop within a second of the first request is the same request, at the strongest
//! of them, since wrappers and service managers repeat their signals; a later one kills, and if that cut requests the
//! exit code is 5.
//!
//! **The parent dies.** The kernel closes the lifelines, which drains the workers, and sends each SIGTERM
//! (PR_SET_PDEATHSIG), whose action also sets an alarm for the drain time-out: nobody else could end a worker that
//! does not finish.
//!
//! # Decisions
//!
//! - **Level of the stall watch**: looked at by the parent and not by a timer in the worker, because a signal inside
//!   the worker would interrupt the user's own system calls.
//! - **A restart asked for during a restart extends it** to the workers that it has started already, since these may
//!   have read what was changed in between. It is still one restart, with one begin and one end.
//! - **Sockets go to a new binary by staying open across execve(2)**, not by messages: nothing has to be sent to a
//!   process that may not listen.
//! - **A worker that is disconnected drains at once**, and its slot starts another one at the same time, instead of
//!   the replacement going first: who asks for that has a reason not to want this worker any more. Its neighbours
//!   look after the queue meanwhile.
//! - **A worker that a signal has stopped is replaced, not killed**: it may only be looked at, and finishes what it
//!   has when it runs again. If not, the drain time-out ends it.
//! - **A slot that was scaled away keeps its sockets for three seconds** and not for 100 ms: its neighbours look
//!   after the queue, so this costs a few descriptors, and a handshake may need two retransmissions.
//! - **A socket is looked at whenever it is handed on**: whether it listens, has its address, shares its port; and
//!   what a worker may have set is set back: O_NONBLOCK, filters, what connections inherit, the steering program. Any
//!   holder of a socket can shut it down or change it for all. What is not whole is dropped, and the slot's next
//!   worker binds anew, which the parent's reserve makes possible. Under `exec` the flags stay as they are while
//!   another program holds the socket: it may rely on them.
//! - **The kernel tells the parent of a shutdown(2)** by a hang-up, which an epoll instance of its own waits for:
//!   connections do not wake it. The slot's worker is then replaced, once a second at most. A worker that cannot
//!   accept from a socket lets go of that one, and tells.
//! - **A Unix socket that was shut down is made anew by rename(2)**, so that there is always something to connect to,
//!   and all workers are replaced. One that was given cannot be made anew; the log says so. A given TCP socket is
//!   told to listen again.
//! - **On a full disk the pid file is overwritten**: another file could not be written, the block of the old one can.
//!   Where there is none, or after an upgrade, the pool serves without it and tries again every five seconds: a disk
//!   that logs have filled must not keep a site down when its machine boots. A missing directory and the like are
//!   mistakes, which end the start.
//! - **A program's notifications go to a path**, since some implementations of sd_notify(3) know only paths: one with
//!   a random name, in a directory of the parent's own where nobody else can make, remove or list names, as another
//!   user's workers could in one of theirs. Where no directory can be had (a read-only file system) the name is
//!   abstract. Either way the kernel says who sends, and only the programs' user and root are heard. A parent that is
//!   killed by SIGKILL leaves the directory.
//! - **Descriptors that came from workers are closed by way of a process that ends**: the last close(2) of a socket
//!   lingers for as long as its owner likes (SO_LINGER), and clearing that first is no help, since the worker may set
//!   it again. A process that ends does not linger, so one is forked that has copies while the parent closes its own,
//!   and is killed. It costs a fork, fifty times a second at most, and only where descriptors come at all. It is no
//!   help against a file whose every close(2) waits for a server (FUSE, NFS).
//! - **A message is received only with all that comes with it**: what finds no free number is closed in recvmsg(2). The
//!   descriptors are those of a look at it (MSG_PEEK), so that nothing closes the last one of a socket.
//! - **A worker that breaks the protocol is killed, and not only ignored**: it has been broken into or writes where
//!   it should not, and its slot is better served by another one. Readings and not records are counted for what may
//!   be repeated, so that a parent that was paused, and finds many at once, takes nobody for an attacker.
//! - **Three neighbours**: each costs the kernel a callback per new connection while all workers are busy. With
//!   three, four workers have to be busy at once for a connection to wait.
//! - **While no worker serves at all, one slot is tried four times a second**, whatever its backoff: backoff protects
//!   the others, and there are none. While others serve it is the most, so one number is both bounds.
//! - **The service manager is told without waiting**: its crate's own sending blocks when nobody reads.

mod access_log;
mod admin;
pub(crate) mod announce;
mod attend;
pub(crate) mod custody;
mod deploy;
mod discard;
mod effects;
pub(crate) mod event;
pub(crate) mod handle;
mod health;
mod hooks;
mod inbox;
mod journal;
mod mend;
pub(crate) mod neighbours;
pub(crate) mod notify;
mod orphans;
pub(crate) mod pid_file;
mod places;
mod programs;
pub(crate) mod reap;
mod repeats;
mod reports;
mod requests;
pub(crate) mod roster;
pub(crate) mod service;
mod source;
mod spawn;
mod start;
pub(crate) mod successor;
pub(crate) mod supervisor;
mod takeover;
mod wakeups;
pub(crate) mod watch;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::process;
use std::rc::Rc;
use std::time::Duration;

use log::{debug, error, info, warn};
use mio::{Events, Token};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid as SystemPid;

use self::access_log::AccessLog;
use self::admin::Admin;
use self::attend::Attention;
use self::deploy::Deploy;
use self::discard::Discard;
use self::inbox::{Inbox, Quota};
use self::journal::Journal;
use self::mend::Mending;
use self::orphans::Orphans;
use self::programs::{Program, Sign};
use self::source::Source;
pub(crate) use self::spawn::Child;
use self::takeover::Addresses;
use self::wakeups::Wakeups;
use crate::error::{Error, Result};
use crate::parent::announce::{comes_again_and_again, describe, describe_unasked, is_warning, kill_reason, slot_of};
use crate::parent::custody::Custody;
use crate::parent::handle::{Hook, Hooks, OnExit};
use crate::parent::neighbours::{Neighbours, Order};
use crate::parent::reap::Fate;
use crate::parent::service::Service;
use crate::parent::successor::{Inheritance, Predecessor, Successor};
use crate::parent::supervisor::{
    Effect, Event, Exit, KillReason, Notice, Outcome, Pid, Policy, Recycle, Stop, Supervisor,
};
use crate::parent::watch::{Sight, Watch};
use crate::shared::channel::{Heard, ParentEnd, Record};
use crate::shared::config::{Config, Layers, ServerConfig};
use crate::shared::credentials::Credentials;
use crate::shared::listener::{self, Reserved, SlotSockets};
use crate::shared::log_file;
use crate::shared::log_writer;
use crate::shared::message::MessageEnd;
use crate::shared::outlet;
use crate::shared::request::Request;
use crate::shared::scoreboard::ParentBoard;
use crate::shared::signals::{self, ParentSignals};
use crate::shared::steer;
use crate::shared::steer::Steering;
use crate::sys;
use crate::sys::clock;
use crate::sys::epoll;
use crate::sys::proc;
use crate::time::{frozen, Time, BEAT};
use crate::worker::Seed;

/// What the pool's owner is to do next.
pub(crate) enum Turn {
    /// Fork a process from this, then call [`Parent::forked`] or [`Parent::fork_failed`].
    Fork(Child),
    /// The pool has ended.
    Finished(Result<()>),
}

/// The parent of a pool. Dropping it in a worker closes what a worker must not hold and has no other effect.
#[derive(Debug)]
pub(crate) struct Parent {
    roster: Roster,
    custody: Custody,
    /// The CPUs that workers are pinned to; none if they are not.
    cpus: Rc<[usize]>,
    neighbours: Neighbours,
    attention: Attention,
    mending: Mending,
    board: Rc<ParentBoard>,
    watch: Watch,
    /// When to look at the workers' memory.
    next_weighing: Option<Time>,
    wakeups: Wakeups,
    reserved: Rc<Vec<Reserved>>,
    server: Rc<ServerConfig>,
    credentials: Option<Rc<Credentials>>,
    access_log: AccessLog,
    deploy: Deploy,
    config: Config,
    /// Why there are as many workers as there are.
    derivation: String,
    service: Service,
    /// The new binary, while it is on its way.
    successor: Option<Successor>,
    /// The way to tell the pool that this one takes over from; None once that is done.
    predecessor: Option<Predecessor>,
    is_stopping: bool,
    pid: pid_file::Pid,
    /// When the parent means to look at the clock again.
    next_look: Time,
    /// What a forced stop has cut off.
    cut: Cut,
    /// The application's; None while it is called.
    hook: Option<Hook>,
    on_exit: Option<OnExit>,
    inbox: Inbox,
    journal: Journal,
    /// Where programs say that they are ready; None where they do not.
    notifications: Option<Rc<notify::Directory>>,
    discard: Discard,
    orphans: Orphans,
    /// Programs whose notifications are to be looked at again when less is to be closed.
    signs_left: BTreeSet<Pid>,
    /// The process that shows the pool, and controls it.
    admin: Option<Admin>,
}

/// What workers had when they were killed since the pool was forced to stop.
#[derive(Clone, Copy, Debug, Default)]
struct Cut {
    /// Open connections. One that is idle is closed soon after a drain has begun, so these had requests.
    connections: u64,
    /// Workers that do not count theirs.
    unknown: usize,
}

/// By what a worker's process is spoken with, and what comes of it.
#[derive(Debug)]
struct Ends {
    lifeline: ParentEnd,
    /// None without a hook.
    messages: Option<MessageEnd>,
    /// How the program says that it is ready that it may become.
    sign: Sign,
    /// It keeps a program, or is about to.
    program: Option<Program>,
    /// When it is killed whatever it does, if it has been told to end its program at once.
    killed_at: Cell<Option<Time>>,
    /// What reading its messages may cost.
    quota: Quota,
}

type Roster = roster::Roster<Ends>;
type Process = roster::Process<Ends>;

impl Parent {
    /// Does everything but forking, until a fork is due or the pool has ended.
    pub(crate) fn turn(&mut self) -> Result<Turn> {
        let mut events = Events::with_capacity(64);
        loop {
            if let Some(turn) = self.admin_due() {
                return Ok(turn);
            }
            // Before a fork: it takes longer than to lead connections away from a dead worker.
            self.settle();
            while let Some(effect) = self.roster.poll_effect() {
                if let Some(turn) = self.perform(effect) {
                    return Ok(turn);
                }
                self.settle();
            }
            let wait = self.wait();
            let Some(sources) = self.wakeups.wait(wait, &mut events)? else { continue };
            self.look_at_clock();
            // Lifelines first: what a worker said came before its exit.
            sources.into_iter().for_each(|source| self.hear_from(source));
            for request in self.wakeups.requests() {
                self.obey(request);
            }
            self.look_for_stalls();
            self.weigh();
            self.look_at_queues();
            self.mend();
            self.obey_admin_again();
            self.read_messages();
            self.look_at_delays();
            self.look_at_keepers();
            self.journal.say_what_was_left_out();
            log_writer::tell_lost(clock::now());
            self.discard.close(self.are_copies_held(), clock::now());
            self.look_for_signs_left();
            self.access_log.tell(&mut self.roster, &self.board, clock::now());
            self.pid.retry(self.config.pid_file.as_deref(), &mut self.journal, clock::now());
            self.look_at_root();
            self.look_at_files();
            self.tell(Event::Tick);
        }
    }

    fn tell(&mut self, event: Event) {
        self.roster.tell(event, clock::now());
    }

    fn listen_to(&self, from: &impl AsRawFd, source: Source) -> Result<()> {
        self.wakeups.listen_to(from, source)
    }

    fn listen_again(&self, descriptor: RawFd, source: Source) {
        self.wakeups.listen_again(descriptor, source);
    }

    fn hear_from(&mut self, source: Source) {
        match source {
            // After all others.
            Source::Signals => {}
            Source::Reports(pid) => self.hear(pid),
            Source::Messages(pid) => self.inbox.note(pid),
            Source::Sign(pid) => self.look_for_sign(pid),
            Source::Successor => self.hear_successor(),
            Source::Predecessor => self.hear_predecessor(),
            Source::Attention => self.begin_attending(),
            Source::Hangups => self.look_at_sockets(),
            Source::Files => self.hear_of_files(),
            Source::Admin => self.hear_admin(),
            Source::AdminLink => self.obey_admin(),
        }
    }

    /// Sees whether the whole pool was frozen until now. What is done next takes no time to speak of.
    fn look_at_clock(&mut self) {
        let now = clock::now();
        let span = frozen(self.next_look, now);
        self.next_look = now;
        if !span.is_zero() {
            debug!("the pool was frozen for {span:?}, which counts for no timeout");
            self.watch.frozen(span);
            self.roster.tell(Event::Frozen(span), now);
        }
    }

    /// How long nothing is due; `None` when only a signal or a worker can change anything.
    fn wait(&mut self) -> Option<Duration> {
        // What the parent did since it woke may have been interrupted as well.
        self.look_at_clock();
        let counts_time = self.roster.supervisor.time_out().is_some() || self.watch.deadline().is_some();
        let now = clock::now();
        let due = [
            counts_time.then_some(now + BEAT),
            self.roster.supervisor.deadline(),
            self.watch.deadline(),
            self.attention.deadline(),
            self.mending.deadline().filter(|_| !self.is_stopping),
            self.custody.deadline(),
            self.service.deadline(),
            self.next_weighing,
            self.inbox.deadline(),
            self.journal.deadline(),
            log_writer::deadline(),
            self.discard.deadline(),
            self.roster.iter().filter_map(|(_, process)| process.ends.program.as_ref()?.ready_at).min(),
            self.roster.iter().filter_map(|(_, process)| process.ends.killed_at.get()).min(),
            self.access_log.deadline(),
            self.pid.deadline(),
            self.deploy.deadline().filter(|_| self.may_restart()),
            self.admin.as_ref().and_then(Admin::deadline),
        ];
        let wait = due.into_iter().flatten().min().map(|at| at.since(now));
        self.next_look = wait.map_or(Time::NEVER, |wait| now + wait);
        wait
    }
}

const COUNTED_MIN: usize = 64;

/// The user that workers run as, if that is not root.
fn others(credentials: &Option<Rc<Credentials>>) -> Option<&Credentials> {
    credentials.as_deref().filter(|credentials| !credentials.is_root())
}

fn signal(pid: Pid, signal: Signal) {
    // It is ours and not reaped, so the number is not somebody else's; it may have exited all the same.
    if let Err(errno) = kill(SystemPid::from_raw(pid.0), signal) {
        debug!("cannot signal pid={}: {errno}", pid.0);
    }
}
