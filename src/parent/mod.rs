//! The parent's loop: wait for signals and lifelines, tell the supervisor, perform its effects.
//!
//! In come signals, exits, what workers report and what the application and the admin process ask for; out go forks,
//! signals, orders and facts. It waits without a time-out unless something is due: an idle pool does not wake it. It
//! may not know HTTP, nor accept a connection, nor wait for anybody, nor believe what a worker says without a check.
//!
//! # Files
//!
//! - `places.rs`: who serves which slot, and what follows
//! - `births.rs`: what workers are born with
//! - `discard.rs`: how what they have passed is closed
//! - `output.rs`: what they print, if it is prefixed
//! - `logs.rs`: the access log's file
//! - `mend.rs`: sockets that workers have broken
//! - `health.rs`: who exits, hangs, grows
//! - `attend.rs`: whose queue is left waiting
//! - `programs.rs`: workers that are other programs
//! - `takeover.rs`: upgrades
//! - `hooks.rs`: the application's closure
//! - `messages.rs`: what workers tell it
//! - `hearing.rs`: what they report, and what signals ask
//! - `admin.rs`: the admin process
//! - `supervisor/`: PURE. what should run: Event in, Effect out; reconcile.rs: slots towards what is wanted;
//!   failure.rs: what counts as one; policy.rs: backoff; seeded simulation
//! - `watch.rs`: PURE. who stalls, and when to look
//! - `neighbours.rs`: PURE. which workers look after each slot's queue besides its own
//! - `custody.rs`: the slots' sockets, in the order of the kernel's groups
//! - `successor/`: how sockets go to a new binary, both ends; variable.rs (PURE): what the variable says
//! - `notify.rs`: sockets on which programs say that they are ready
//! - `service.rs`: what a service manager is told and gives
//! - `event.rs`, `handle.rs`: what the application is told, and may ask for
//! - `announce.rs`: what the parent says in the log
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
//! of its own.
//!
//! **Death.** SIGCHLD makes the parent ask for each of its own processes (never for an embedder's other children; as
//! PID 1 also for orphans). The supervisor decides when the slot is started again; the replacement inherits the
//! slot's sockets from the parent's *custody*, so what waited in their queues is served and nothing is reset.
//!
//! **Starting again.** A worker that has served (it was ready, and has accepted a connection or lived for a second)
//! is replaced at once, however young it died: whoever can end a worker by a request must not be able to keep its
//! slot empty. No slot is started twice within 30 ms, and after one start a slot at once no pool makes more than
//! fifty a second, since what a worker says of itself (that it has served, that it wants to leave or to be recycled)
//! is a claim. A slot whose worker never served backs off, exponentially and with jitter, and all such slots together
//! are tried four times a second until one serves: a crash loop costs the others nothing, however many slots are in
//! it. Only these failures count for `--give-up`. What an operator asks for (a rolling restart, more slots) is not
//! held back.
//!
//! **Neighbours.** Steering comes too late for a connection that already waits behind a worker which has just begun
//! something long. So each slot's listener is watched by three other workers as well, with EPOLLEXCLUSIVE: the kernel
//! wakes the first of its watchers that waits, in the order in which they registered. That is the slot's own worker,
//! unless it is busy; then it is a neighbour, who takes the connection at once if that worker is stalled, and
//! otherwise two milliseconds later if it is still there; ten, if that worker is idle and has fewer connections than
//! the neighbour: it waits for a processor, as after a burst of new connections on a busy machine, which the first to
//! run would otherwise all keep. No timer runs without a connection, and the same rule serves a slot whose worker is
//! dead, starting or backing off. When a slot gets a new worker, its neighbours register again, to be behind it. A
//! listener is deregistered before it is dropped: its registration belongs to the socket, which others hold too, and
//! would go on to take wake-ups.
//!
//! **Servers of one's own** do not look at their siblings, so the parent does for them, as long as connections come:
//! their listeners are watched for one event (EPOLLONESHOT), after which the parent looks every five milliseconds at
//! who says that it is busy (`Meter`), or whose queue holds connections from one look to the next; after a second
//! without any it watches for an event again.
//!
//! **A slot that was scaled away** is looked after by its neighbours for three seconds more, for handshakes whose
//! packets were lost; then its sockets are shut down and closed, when nobody else says that it holds copies: only
//! then is it known when the group's indexes change, and who has kept copies all the same gets nothing.
//!
//! **Replacing.** Whatever the reason (a restart, a recycling, a worker that a signal has stopped), the replacement
//! starts in the same slot, with the same sockets; when both are ready the older one drains. So there is one rule for
//! leaving, and a replacement that fails changes nothing.
//!
//! **A program as the worker.** A worker reports that it is about to execute a program; that closes its end of the
//! pipe, by which the parent knows that it has. By what *sign* the program is ready, the pool is told when it is
//! built: the execution itself, a delay that the parent waits for, or a notification on a datagram socket
//! (sd_notify(3)) that the parent has made before the fork. From then on the parent asks it to finish by SIGTERM.
//! Signals are blocked from before that report until their default actions are back, so that none is lost in between.
//! All else (custody, supervision, replacing, upgrade) is as for any worker; its row stays idle, so it does not
//! stall; the parent attends its queue, as that of any server but the built-in one.
//!
//! **Datagrams.** A slot's UDP socket is in custody as its listeners are, so what waits in it waits for the next
//! worker. The kernel spreads by its hash; neighbours cannot help, since an answer would need the same socket. So the
//! socket of a slot that is scaled away is closed at once. The parent's reserve must not receive: it is connected to
//! itself, and closed once a slot's socket holds the address.
//!
//! **Upgrade.** The parent executes its own program again, with every socket open and a variable that says which is
//! which. The new parent gives the sockets to its own slots, in the order of the group, and starts its workers; they
//! serve beside the old ones. When all are ready it begins to steer, writes the pid file, and says so; the old pool
//! then drains. Until that word the old pool does nothing but wait, and forgets the new one if it exits or is late. A
//! stop that the old pool is asked for before that word ends both, also while it is a lame duck; after it, the old
//! one alone, which is leaving anyway.
//!
//! **An exit that nobody has asked for** is put to the application's policy, if there is one, before the supervisor
//! is told: the answer is part of the fact. What is answered by anything but `Backoff` is not counted, so that
//! backoff, give-up and the boot rule judge only what they decide. A slot may be left empty for good; a restart or a
//! scaling fills it, and a pool of nothing but such slots ends as if asked to.
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
//! **Stalls.** A worker writes to its scoreboard row when it becomes busy and when it waits. The parent looks a few
//! times per stall time-out, but only while somebody is busy: after a look that finds all idle it clears a shared
//! word, looks once more, and sleeps; the first worker to become busy then sets the word and wakes it by the
//! lifeline. An idle pool makes no system call. Time in which the machine gave the worker no processor is not
//! counted. A worker that a signal has stopped does not stall: SIGCHLD tells.
//!
//! **Frozen time.** The monotonic clock goes on while all of the pool stands still (SIGSTOP, the cgroup freezer, a
//! paused virtual machine). While a time-out runs, the parent therefore looks at the clock four times a second. If it
//! does so much later than it meant to, nobody could run meanwhile: the supervisor learns how long (`Event::Frozen`)
//! and puts off whatever counts time, but for `--max-age`, which is wall time.
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
//! - **Prefixed output goes through the parent**, the only bytes of workers that do, and only on request. A process
//!   in between would have to be supervised, ignore the signals that a service manager sends to all, and outlive the
//!   pool to lose nothing. The parent reads 16 KiB in a turn, writes what is taken at once, and leaves the rest in
//!   the pipe, so it waits for nobody. Price: whoever writes after the parent was killed gets EPIPE.
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
//! - **A worker that breaks the protocol is killed, and not only ignored**: it has been broken into or writes where
//!   it should not, and its slot is better served by another one. Readings and not records are counted for what may
//!   be repeated, so that a parent that was paused, and finds many at once, takes nobody for an attacker.
//! - **Three neighbours**: each costs the kernel a callback per new connection while all workers are busy. With
//!   three, four workers have to be busy at once for a connection to wait.
//! - **While no worker serves at all, one slot is tried four times a second**, whatever its backoff: backoff protects
//!   the others, and there are none. While others serve it is the most, so one number is both bounds.
//! - **The service manager is told without waiting**: its crate's own sending blocks when nobody reads.

mod admin;
pub(crate) mod announce;
mod attend;
mod births;
pub(crate) mod custody;
mod discard;
pub(crate) mod event;
pub(crate) mod handle;
mod health;
mod hearing;
mod hooks;
mod logs;
mod mend;
mod messages;
pub(crate) mod neighbours;
pub(crate) mod notify;
mod output;
pub(crate) mod pid_file;
mod places;
mod programs;
pub(crate) mod reap;
pub(crate) mod service;
pub(crate) mod successor;
pub(crate) mod supervisor;
mod takeover;
pub(crate) mod watch;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::process;
use std::rc::Rc;
use std::time::Duration;

use log::{debug, error, info, warn};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid as SystemPid;

use self::admin::Admin;
use self::attend::Attention;
pub(crate) use self::births::Newborn;
use self::discard::Discard;
use self::mend::Mending;
use self::messages::{Ration, Talk};
use self::output::Output;
use self::programs::{Program, Sign};
use self::takeover::Addresses;
use crate::error::{Error, Result};
use crate::parent::announce::{describe, failure, is_warning, kill_reason, notice_text, slot_of};
use crate::parent::custody::Custody;
use crate::parent::handle::{Hook, Hooks, OnExit};
use crate::parent::neighbours::{Neighbours, Order};
use crate::parent::pid_file::PidFile;
use crate::parent::reap::Fate;
use crate::parent::service::Service;
use crate::parent::successor::{Heir, Inheritance, Successor};
use crate::parent::supervisor::{
    Effect, Event, Exit, KillReason, Notice, Outcome, Pid, Policy, Recycle, Stop, Supervisor,
};
use crate::parent::watch::{Sight, Watch};
use crate::shared::channel::{Heard, ParentEnd, Record};
use crate::shared::config::{Config, ServerConfig};
use crate::shared::credentials::Credentials;
use crate::shared::listener::{self, Reserved, SlotSockets};
use crate::shared::log_file;
use crate::shared::log_text::tag;
use crate::shared::log_writer;
use crate::shared::message::MessageEnd;
use crate::shared::outlet;
use crate::shared::scoreboard::ParentBoard;
use crate::shared::signals::{self, ParentSignals, Request};
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
    Fork(Newborn),
    /// The pool has ended.
    Finished(Result<()>),
}

/// The parent of a pool. Dropping it in a worker closes what a worker must not hold and has no other effect.
#[derive(Debug)]
pub(crate) struct Parent {
    supervisor: Supervisor,
    processes: BTreeMap<Pid, Process>,
    custody: Custody,
    /// The CPUs that workers are pinned to; none if they are not.
    cpus: Rc<[usize]>,
    neighbours: Neighbours,
    attention: Attention,
    mending: Mending,
    /// The worker that is being forked.
    unborn: Option<Process>,
    board: Rc<ParentBoard>,
    free_rows: Vec<usize>,
    watch: Watch,
    /// When to look at the workers' memory.
    next_weighing: Option<Time>,
    signals: ParentSignals,
    poll: Poll,
    reserved: Rc<Vec<Reserved>>,
    server: Rc<ServerConfig>,
    credentials: Option<Rc<Credentials>>,
    access_log: Option<Rc<File>>,
    /// When to tell those workers of a new access log who could not be told.
    log_retry: Option<Time>,
    config: Config,
    /// Why there are as many workers as there are.
    derivation: String,
    service: Service,
    /// The new binary, while it is on its way.
    successor: Option<Successor>,
    /// The way to tell the pool that this one takes over from; None once that is done.
    heir: Option<Heir>,
    is_stopping: bool,
    /// How the latest worker failed, in words.
    last_failure: Option<String>,
    /// The same of each slot that wants one.
    failures: BTreeMap<usize, String>,
    /// Why the latest new binary could not be started.
    upgrade_failure: Option<String>,
    /// Why the latest rolling restart was aborted.
    restart_aborted: Option<String>,
    pid_file: Option<PidFile>,
    /// When to try again to write it.
    pid_file_retry: Option<Time>,
    /// When the parent means to look at the clock again.
    next_look: Time,
    /// What a forced stop has cut off.
    cut: Cut,
    /// The application's; None while it is called.
    hook: Option<Hook>,
    on_exit: Option<OnExit>,
    talk: Talk,
    output: Output,
    /// Where programs say that they are ready; None where they do not.
    notifications: Option<Rc<notify::Directory>>,
    discard: Discard,
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

/// A worker's process, from its fork to its burial.
#[derive(Debug)]
struct Process {
    slot: usize,
    row: usize,
    lifeline: ParentEnd,
    /// None without a hook.
    messages: Option<MessageEnd>,
    unique: u64,
    /// When it was forked, in milliseconds since 1970.
    born: u64,
    /// It has dropped what the fork copied of the parent's.
    is_set_up: bool,
    was_ready: bool,
    /// It is to finish or has ended, and the application knows.
    is_disconnected: bool,
    /// It could not be told of a new access log.
    has_old_log: bool,
    /// It has said once that it looks after other slots' sockets.
    is_neighbour: Cell<bool>,
    /// What it says of itself cannot be, and that was told.
    is_doubted: Cell<bool>,
    /// How the program says that it is ready that it may become.
    sign: Sign,
    /// It is another program, or about to be.
    program: Option<Program>,
    /// What is read of what it prints, until the fork.
    output: Option<[OwnedFd; 2]>,
    /// What reading its messages may cost.
    ration: Ration,
    /// What signal the application has had it sent.
    signalled: Cell<Option<i32>>,
    /// How it has broken the protocol, in words.
    violation: Option<String>,
}

impl Parent {
    /// Checks, reserves and prepares everything, and forks nothing yet.
    pub(crate) fn start(config: Config, hooks: Hooks) -> Result<Parent> {
        // Where /proc is missing the caller's word has to do.
        if let Some(count) = sys::process::threads().filter(|count| *count > 1) {
            return Err(Error::Threads { count });
        }
        // What follows may take long; HUP and its like wait meanwhile.
        let held = signals::hold()
            .map_err(|source| Error::system("hold back signals during the start with sigprocmask(2)", source))?;
        let (workers, derivation) = config.worker_count();
        let credentials = Credentials::look_up(config.user.as_deref(), config.group.as_deref())?.map(Rc::new);
        let open = |path| log_file::open(path, others(&credentials));
        let access_log = config.access_log.as_deref().map(open).transpose()?.map(Rc::new);
        raise_descriptor_limit();
        let Addresses { reserved, slots, heir, admin } = takeover::addresses(&config)?;
        let (board, steering) = share_memory(&config, &reserved, workers)?;
        let board = Rc::new(board);
        let cpus = config.cpus().into();
        let signals = ParentSignals::install(held)
            .map_err(|source| Error::system("install signal handlers with sigaction(2)", source))?;
        let poll = Poll::new().map_err(|source| Error::system("wait for events with epoll_create(2)", source))?;
        let mending = Mending::new().map_err(|source| Error::system("watch sockets with epoll_create(2)", source))?;
        let now = clock::now();
        let seed = now.as_millis() ^ u64::from(process::id()) << 32;
        let watch = Watch::new(config.stall_timeout);
        board.watch(watch.is_off());
        let mut parent = Parent {
            supervisor: Supervisor::new(policy(&config), workers, seed, now),
            processes: BTreeMap::new(),
            custody: Custody::new(Rc::clone(&board), Rc::clone(&cpus), steering, slots),
            cpus,
            neighbours: Neighbours::new(config.neighbours),
            attention: Attention::default(),
            mending,
            unborn: None,
            free_rows: (1..=board.processes()).rev().collect(),
            board,
            watch,
            next_weighing: (config.max_rss > 0).then_some(now),
            signals,
            poll,
            reserved: Rc::new(reserved),
            server: Rc::new(config.server.clone()),
            credentials,
            access_log,
            log_retry: None,
            config,
            derivation,
            service: Service::new(now),
            successor: None,
            heir,
            is_stopping: false,
            last_failure: None,
            failures: BTreeMap::new(),
            upgrade_failure: None,
            restart_aborted: None,
            pid_file: None,
            pid_file_retry: None,
            next_look: Time::NEVER,
            cut: Cut::default(),
            talk: Talk::new(hooks.on_event.as_ref(), now),
            hook: hooks.on_event,
            on_exit: hooks.on_exit,
            output: Output::default(),
            notifications: None,
            discard: Discard::default(),
            signs_left: BTreeSet::new(),
            admin: None,
        };
        parent.notifications = parent.make_notifications();
        parent.admin = parent.make_admin(admin, now)?;
        parent.listen_to(parent.signals.readiness(), SIGNALS)?;
        parent.listen_to(parent.mending.hangups(), HANGUPS)?;
        parent.guard_all();
        if parent.heir.is_none() {
            parent.write_first_pid_file()?;
            parent.custody.begin_to_steer();
            parent.custody.count_all_in();
        }
        parent.introduce();
        debug!("parent is pid {}, {}", process::id(), parent.derivation);
        Ok(parent)
    }

    /// Does everything but forking, until a fork is due or the pool has ended.
    pub(crate) fn turn(&mut self) -> Result<Turn> {
        let mut events = Events::with_capacity(64);
        loop {
            if let Some(turn) = self.admin_due() {
                return Ok(turn);
            }
            // Before a fork: it takes longer than to lead connections away from a dead worker.
            self.settle();
            while let Some(effect) = self.supervisor.poll_effect() {
                if let Some(turn) = self.perform(effect) {
                    return Ok(turn);
                }
                self.settle();
            }
            let wait = self.wait();
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.map_err(|source| Error::system("wait for events with epoll_wait(2)", source))?,
            }
            self.look_at_clock();
            // Lifelines first: what a worker said came before its exit.
            let lifelines: Vec<Token> = events.iter().map(|event| event.token()).filter(|t| *t != SIGNALS).collect();
            for token in lifelines {
                match token {
                    SUCCESSOR => self.hear_successor(),
                    PREDECESSOR => self.hear_predecessor(),
                    ATTENTION => self.begin_attending(),
                    HANGUPS => self.look_at_sockets(),
                    ADMIN => self.hear_admin(),
                    ADMIN_LINK => self.obey_admin(),
                    Token(pid) if pid >= MESSAGES => self.talk.note(pid - MESSAGES),
                    Token(token) if token & OUTPUT != 0 => self.output.note(token & !OUTPUT),
                    Token(token) if token & SIGN != 0 => self.look_for_sign(pid(token & !SIGN)),
                    Token(token) => self.hear(pid(token)),
                }
            }
            for request in self.signals.pending() {
                self.obey(request);
            }
            self.look_for_stalls();
            self.weigh();
            self.look_at_queues();
            self.mend();
            self.obey_admin_again();
            self.talk();
            self.look_at_delays();
            self.output.pass_on(clock::now());
            log_writer::tell_lost(clock::now());
            self.discard.close(clock::now());
            self.look_for_signs_left();
            self.tell_of_log();
            self.retry_pid_file();
            self.tell(Event::Tick);
        }
    }

    /// How the log names a process.
    fn tag(&self, pid: Pid) -> String {
        match self.supervisor.process(pid) {
            Some((slot, process)) => tag(slot, process.generation, pid.0),
            None => format!("pid={}", pid.0),
        }
    }

    fn slot_of(&self, pid: Pid) -> Option<usize> {
        Some(self.supervisor.process(pid)?.0)
    }

    fn tell(&mut self, event: Event) {
        self.supervisor.handle(event, clock::now());
    }

    fn listen_to(&self, source: &impl std::os::fd::AsRawFd, token: Token) -> Result<()> {
        let registered = self.poll.registry().register(&mut SourceFd(&source.as_raw_fd()), token, Interest::READABLE);
        registered.map_err(|source| Error::system("watch a descriptor with epoll_ctl(2)", source))
    }

    /// Has the poll tell again that there is something to read, which it says once for all that has come.
    fn listen_again(&self, descriptor: RawFd, token: Token) {
        if let Err(error) = self.poll.registry().reregister(&mut SourceFd(&descriptor), token, Interest::READABLE) {
            error!("what is left to read is not read: epoll_ctl(2): {error}");
        }
    }

    /// Sees whether the whole pool was frozen until now. What is done next takes no time to speak of.
    fn look_at_clock(&mut self) {
        let now = clock::now();
        let span = frozen(self.next_look, now);
        self.next_look = now;
        if !span.is_zero() {
            debug!("nobody could run for {span:?}, which counts for no time-out");
            self.watch.frozen(span);
            self.supervisor.handle(Event::Frozen(span), now);
        }
    }

    /// How long nothing is due; `None` when only a signal or a worker can change anything.
    fn wait(&mut self) -> Option<Duration> {
        // What the parent did since it woke may have been interrupted as well.
        self.look_at_clock();
        let counts_time = self.supervisor.time_out().is_some() || self.watch.deadline().is_some();
        let now = clock::now();
        let due = [
            counts_time.then_some(now + BEAT),
            self.supervisor.deadline(),
            self.watch.deadline(),
            self.attention.deadline(),
            self.mending.deadline().filter(|_| !self.is_stopping),
            self.custody.deadline(),
            self.service.deadline(),
            self.next_weighing,
            self.talk.deadline(),
            self.output.deadline(),
            log_writer::deadline(),
            self.discard.deadline(),
            self.processes.values().filter_map(|process| process.program.as_ref()?.ready_at).min(),
            self.log_retry,
            self.pid_file_retry,
            self.admin.as_ref().and_then(Admin::deadline),
        ];
        let wait = due.into_iter().flatten().min().map(|at| at.since(now));
        self.next_look = wait.map_or(Time::NEVER, |wait| now + wait);
        wait
    }

    /// Performs one effect; returns what only the pool's owner can do.
    fn perform(&mut self, effect: Effect) -> Option<Turn> {
        match effect {
            Effect::Spawn { slot, generation } => match self.seed(slot, generation) {
                Ok(seed) => return Some(Turn::Fork(Newborn::Worker(Box::new(seed)))),
                Err(error) => self.spawn_failed(slot, &error),
            },
            Effect::Drain { pid } => self.drain(pid),
            Effect::Quit { pid } => {
                signal(pid, Signal::SIGINT);
                self.disconnected(pid);
            }
            Effect::Abort { pid } => {
                let text = format!("{} {}", self.tag(pid), kill_reason(KillReason::Stalled, &self.config));
                self.say(log::Level::Warn, self.slot_of(pid), text);
                signal(pid, Signal::SIGABRT);
                self.disconnected(pid);
            }
            Effect::Kill { pid, why } => self.kill(pid, why),
            Effect::Retire { slot } => self.custody.retire(slot, clock::now()),
            Effect::LetGo => self.let_go(),
            Effect::Upgrade => self.upgrade(),
            Effect::EndSuccessor { pid, how } => signal(
                pid,
                match how {
                    Stop::Drain => Signal::SIGTERM,
                    Stop::Quick => Signal::SIGINT,
                    Stop::Force => Signal::SIGKILL,
                },
            ),
            Effect::Notice(notice) => self.announce(&notice),
            Effect::Finish(outcome) => {
                let result = self.finish(outcome);
                self.end_admin();
                return Some(Turn::Finished(result));
            }
        }
        None
    }

    /// Lets go of every address: when the workers have taken what waits and close theirs, the ports are free.
    fn let_go(&mut self) {
        self.is_stopping = true;
        self.emit(&event::Event::Stopping);
        self.service.stopping();
        self.attention = Attention::default();
        self.custody.clear();
        self.reserved = Rc::default();
    }

    fn finish(&mut self, outcome: Outcome) -> Result<()> {
        self.service.end();
        self.output.end();
        self.discard.end();
        let requests = self.board.dead().requests;
        let Cut { connections, unknown } = self.cut;
        match outcome {
            Outcome::Stopped | Outcome::Replaced if connections > 0 || unknown > 0 => {
                Err(Error::Forced { connections, unknown })
            }
            Outcome::Stopped => {
                self.say(log::Level::Info, None, format!("stopped after {requests} requests"));
                Ok(())
            }
            Outcome::Replaced => {
                let text = format!("stopped after {requests} requests: another pool has taken over");
                self.say(log::Level::Info, None, text);
                Ok(())
            }
            Outcome::BootFailed { last } => {
                let reason = self.last_failure.take().unwrap_or_else(|| failure(last));
                Err(Error::Boot { reason })
            }
            Outcome::GaveUp { slot, failures, last } => {
                let reason = self.failures.remove(&slot).unwrap_or_else(|| failure(last));
                Err(Error::GaveUp { worker: slot, failures, reason })
            }
        }
    }

    fn announce(&mut self, notice: &Notice) {
        match notice {
            Notice::AllReady { .. } => {
                for reserved in Rc::clone(&self.reserved).iter() {
                    let text = format!("listening on {reserved} with {}", self.derivation);
                    self.say(log::Level::Info, None, text);
                }
                match self.heir.take() {
                    Some(heir) => self.take_over(heir),
                    None => self.service.ready(),
                }
            }
            Notice::RestartBegun => {
                self.restart_aborted = None;
                self.service.reloading();
            }
            Notice::RestartAborted { .. } => {
                self.restart_aborted = Some(self.text_of(notice));
                self.service.ready();
            }
            Notice::RestartDone => self.service.ready(),
            _ => {}
        }
        let level = if is_warning(notice) { log::Level::Warn } else { log::Level::Info };
        if !matches!(notice, Notice::AllReady { .. }) {
            self.say(level, slot_of(notice), self.text_of(notice));
        }
        match *notice {
            Notice::Recycling { slot, .. } => self.note_recycling(slot, true),
            Notice::RecyclingFailed { slot, .. } => self.note_recycling(slot, false),
            _ => {}
        }
        self.emit_notice(notice);
    }
}

impl Parent {
    /// A notice as a line, with all that is known of the failure that it tells of.
    fn text_of(&self, notice: &Notice) -> String {
        let why = match notice {
            Notice::UpgradeFailed { .. } => self.upgrade_failure.as_ref(),
            Notice::GaveUp { slot, .. }
            | Notice::RestartAborted { slot, .. }
            | Notice::ScalingFailed { slot, .. }
            | Notice::RecyclingFailed { slot, .. } => self.failures.get(slot),
            _ => None,
        };
        notice_text(notice, why.map(String::as_str))
    }
}

/// What all processes of the pool share, and who steers by it.
fn share_memory(config: &Config, reserved: &[Reserved], workers: usize) -> Result<(ParentBoard, Steering)> {
    let groups = reserved.iter().filter(|reserved| matches!(reserved, Reserved::Tcp(_))).count();
    // A slot may hold two processes.
    let (most, counted) = (2 * Config::WORKERS_MAX, 2 * counted_max(workers));
    let (mut board, steering) = steer::choose(config.balance, most, counted, groups)
        .map_err(|source| Error::system("map the scoreboard with mmap(2)", source))?;
    if config.admin.is_some() {
        board
            .keep_tally(Config::WORKERS_MAX)
            .map_err(|source| Error::system("map the tally for the admin process with mmap(2)", source))?;
    }
    Ok((board, steering))
}

/// How many slots there can be where the kernel counts connections, since the memory for all is taken at once: a page for
/// each of their processes.
fn counted_max(workers: usize) -> usize {
    (4 * workers).clamp(COUNTED_MIN, Config::WORKERS_MAX)
}

const COUNTED_MIN: usize = 64;

fn policy(config: &Config) -> Policy {
    Policy {
        boot_timeout: config.boot_timeout,
        drain_timeout: config.drain_timeout,
        surge: config.surge,
        lame_duck: config.lame_duck,
        give_up: config.give_up,
        max_age: config.max_age,
        abort_stalled: config.abort_stalled,
        ..Policy::default()
    }
}

/// Whom workers run as, if that is not root.
fn others(credentials: &Option<Rc<Credentials>>) -> Option<&Credentials> {
    credentials.as_deref().filter(|credentials| !credentials.is_root())
}

const SIGNALS: Token = Token(0);

/// A worker's messages: its pid above this, which is above every pid (`PID_MAX_LIMIT` is 1 << 22).
const MESSAGES: usize = 1 << 30;

/// No process has these pids.
const SUCCESSOR: Token = Token(usize::MAX);
const PREDECESSOR: Token = Token(usize::MAX - 1);
const ATTENTION: Token = Token(usize::MAX - 2);
const ADMIN: Token = Token(usize::MAX - 3);
const ADMIN_LINK: Token = Token(usize::MAX - 4);
const HANGUPS: Token = Token(usize::MAX - 5);

/// Marks the tokens of workers' output, which are numbered.
const OUTPUT: usize = 1 << 29;

/// Marks the tokens of programs' signs; pids are less (`PID_MAX_LIMIT`, proc_sys_kernel(5)).
const SIGN: usize = 1 << 24;

/// No worker has pid 0, so the signals' token is free.
fn token(pid: Pid) -> Token {
    Token(usize::try_from(pid.0).unwrap_or_default())
}

fn pid(token: usize) -> Pid {
    Pid(i32::try_from(token).unwrap_or_default())
}

fn signal(pid: Pid, signal: Signal) {
    // It is ours and not reaped, so the number is not somebody else's; it may have exited all the same.
    if let Err(errno) = kill(SystemPid::from_raw(pid.0), signal) {
        debug!("pid={} not signalled: {errno}", pid.0);
    }
}

/// As many descriptors as this process may have: every connection takes one, and the soft limit is often 1024.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        debug!("RLIMIT_NOFILE {soft} raised to {hard}");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    });
    if let Err(errno) = raised {
        warn!("cannot raise RLIMIT_NOFILE with setrlimit(2): {errno}");
    }
}
