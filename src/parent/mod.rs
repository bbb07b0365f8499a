//! The parent's loop: wait for signals and lifelines, tell the supervisor, perform its effects. Knows no HTTP.
//!
//! It waits without a time-out unless something is due: an idle pool does not wake it.

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
