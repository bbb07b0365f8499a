//! The parent's loop: wait for signals and lifelines, tell the supervisor, perform its effects. Knows no HTTP.
//!
//! It waits without a time-out unless something is due: an idle pool does not wake it.

use std::collections::BTreeMap;
use std::io;
use std::process;
use std::rc::Rc;
use std::time::Duration;

use log::{debug, error, info, warn};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::errno::Errno;
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitid, waitpid, Id, WaitPidFlag, WaitStatus};
use nix::unistd::Pid as SystemPid;

use crate::announce::{describe, failure, kill_reason, notice_text, tag};
use crate::channel::{self, ParentEnd, Report};
use crate::config::{Config, ServerConfig};
use crate::credentials::Credentials;
use crate::error::{Error, Result};
use crate::listener::{self, Reserved, SlotSockets};
use crate::pid_file::PidFile;
use crate::scoreboard::Scoreboard;
use crate::signals::{ParentSignals, Request};
use crate::supervisor::{Effect, Event, Exit, KillReason, Notice, Outcome, Pid, Policy, Stop, Supervisor};
use crate::watch::Watch;
use crate::worker::{Seed, Sockets};
use crate::{clock, sys};

/// What the pool's owner is to do next.
pub(crate) enum Turn {
    /// Fork a worker from this, then call [`Parent::forked`] or [`Parent::fork_failed`].
    Fork(Seed),
    /// The pool has ended.
    Finished(Result<()>),
}

/// The parent of a pool. Dropping it in a worker closes what a worker must not hold and has no other effect.
#[derive(Debug)]
pub(crate) struct Parent {
    supervisor: Supervisor,
    processes: BTreeMap<Pid, Process>,
    /// Custody: each slot's listening sockets, from its first start on.
    sockets: BTreeMap<usize, SlotSockets>,
    /// The worker that is being forked.
    unborn: Option<Process>,
    board: Rc<Scoreboard>,
    free_rows: Vec<usize>,
    watch: Watch,
    signals: ParentSignals,
    poll: Poll,
    reserved: Rc<Vec<Reserved>>,
    server: Rc<ServerConfig>,
    credentials: Option<Rc<Credentials>>,
    config: Config,
    /// Why there are as many workers as there are.
    derivation: String,
    is_stopping: bool,
    /// How the latest worker failed, in words.
    last_failure: Option<String>,
    _pid_file: Option<PidFile>,
}

/// A worker's process, from its fork to its burial.
#[derive(Debug)]
struct Process {
    slot: usize,
    row: usize,
    lifeline: ParentEnd,
}

impl Parent {
    /// Checks, reserves and prepares everything, and forks nothing yet.
    pub(crate) fn start(config: Config) -> Result<Parent> {
        // Where /proc is missing the caller's word has to do.
        if let Some(count) = sys::process::threads().filter(|count| *count > 1) {
            return Err(Error::Threads { count });
        }
        let (workers, derivation) = config.worker_count();
        let credentials = Credentials::look_up(config.user.as_deref(), config.group.as_deref())?.map(Rc::new);
        raise_descriptor_limit();
        let reserved = Rc::new(listener::reserve(&config.addresses, config.backlog, config.unix_mode)?);
        let board = Scoreboard::new(2 * Config::WORKERS_MAX)
            .map_err(|source| Error::system("map the scoreboard with mmap(2)", source))?;
        let signals = ParentSignals::install()
            .map_err(|source| Error::system("install signal handlers with sigaction(2)", source))?;
        let poll = Poll::new().map_err(|source| Error::system("wait for events with epoll_create(2)", source))?;
        let pid_file = config.pid_file.as_deref().map(PidFile::write).transpose()?;
        let policy =
            Policy { boot_timeout: config.boot_timeout, drain_timeout: config.drain_timeout, ..Policy::default() };
        let seed = clock::now().as_millis() ^ u64::from(process::id()) << 32;
        let watch = Watch::new(config.stall_timeout);
        board.watch(watch.is_off());
        let parent = Parent {
            supervisor: Supervisor::new(policy, workers, seed, clock::now()),
            processes: BTreeMap::new(),
            sockets: BTreeMap::new(),
            unborn: None,
            free_rows: (1..=board.processes()).rev().collect(),
            board: Rc::new(board),
            watch,
            signals,
            poll,
            reserved,
            server: Rc::new(config.server.clone()),
            credentials,
            config,
            derivation,
            is_stopping: false,
            last_failure: None,
            _pid_file: pid_file,
        };
        parent.listen_to(parent.signals.readiness(), SIGNALS)?;
        debug!("parent is pid {}, {}", process::id(), parent.derivation);
        Ok(parent)
    }

    /// Does everything but forking, until a fork is due or the pool has ended.
    pub(crate) fn turn(&mut self) -> Result<Turn> {
        let mut events = Events::with_capacity(64);
        loop {
            while let Some(effect) = self.supervisor.poll_effect() {
                if let Some(turn) = self.perform(effect) {
                    return Ok(turn);
                }
            }
            match self.poll.poll(&mut events, self.wait()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.map_err(|source| Error::system("wait for events with epoll_wait(2)", source))?,
            }
            // Lifelines first: what a worker said came before its exit.
            let lifelines: Vec<Token> = events.iter().map(|event| event.token()).filter(|t| *t != SIGNALS).collect();
            for token in lifelines {
                self.hear(Pid(i32::try_from(token.0).unwrap_or_default()));
            }
            for request in self.signals.pending() {
                self.obey(request);
            }
            self.look_for_stalls();
            self.tell(Event::Tick);
        }
    }

    /// The fork that [`Turn::Fork`] asked for has made this process. Runs before the worker can be heard or reaped.
    pub(crate) fn forked(&mut self, pid: i32) {
        let Some(process) = self.unborn.take() else { return };
        let (pid, slot) = (Pid(pid), process.slot);
        self.tell(Event::Spawned { slot, pid });
        debug!("{} spawned", self.tag(pid));
        if let Err(error) = self.listen_to(&process.lifeline, token(pid)) {
            // Deaf to it, the boot time-out will replace it.
            error!("{} cannot be heard: {error}", self.tag(pid));
        }
        self.processes.insert(pid, process);
    }

    /// The fork that [`Turn::Fork`] asked for has failed.
    pub(crate) fn fork_failed(&mut self, error: &io::Error) {
        let Some(process) = self.unborn.take() else { return };
        self.free_rows.push(process.row);
        self.spawn_failed(process.slot, &Error::system("fork a worker with fork(2)", io::Error::from(error.kind())));
    }

    fn spawn_failed(&mut self, slot: usize, error: &dyn std::fmt::Display) {
        error!("worker={slot} {error}");
        self.tell(Event::SpawnFailed { slot });
    }

    /// How the log names a process.
    fn tag(&self, pid: Pid) -> String {
        match self.supervisor.process(pid) {
            Some((slot, process)) => tag(slot, process.generation, pid.0),
            None => format!("pid={}", pid.0),
        }
    }

    fn tell(&mut self, event: Event) {
        self.supervisor.handle(event, clock::now());
    }

    fn listen_to(&self, source: &impl std::os::fd::AsRawFd, token: Token) -> Result<()> {
        let registered = self.poll.registry().register(&mut SourceFd(&source.as_raw_fd()), token, Interest::READABLE);
        registered.map_err(|source| Error::system("watch a descriptor with epoll_ctl(2)", source))
    }

    /// How long nothing is due; `None` when only a signal or a worker can change anything.
    fn wait(&self) -> Option<Duration> {
        let next = [self.supervisor.deadline(), self.watch.deadline()].into_iter().flatten().min()?;
        Some(next.since(clock::now()))
    }

    /// Performs one effect; returns what only the pool's owner can do.
    fn perform(&mut self, effect: Effect) -> Option<Turn> {
        match effect {
            Effect::Spawn { slot, generation } => match self.seed(slot, generation) {
                Ok(seed) => return Some(Turn::Fork(seed)),
                Err(error) => self.spawn_failed(slot, &error),
            },
            Effect::Drain { pid } => self.drain(pid),
            Effect::Quit { pid } => signal(pid, Signal::SIGINT),
            Effect::Kill { pid, why } => self.kill(pid, why),
            Effect::Retire { slot } => drop(self.sockets.remove(&slot)),
            Effect::Notice(notice) => self.announce(&notice),
            Effect::Finish(outcome) => return Some(Turn::Finished(self.finish(outcome))),
        }
        None
    }

    /// What the next worker of a slot is born with.
    fn seed(&mut self, slot: usize, generation: u64) -> Result<Seed> {
        let lifeline = channel::lifeline()
            .map_err(|source| Error::system("make a lifeline with socketpair(2); is RLIMIT_NOFILE too low?", source))?;
        let copy = |source| Error::system("copy a listening socket with fcntl(2); is RLIMIT_NOFILE too low?", source);
        let sockets = match self.sockets.get(&slot) {
            Some(sockets) => Sockets::Inherit(sockets.try_clone().map_err(copy)?),
            None => Sockets::Listen { reserved: Rc::clone(&self.reserved), backlog: self.config.backlog },
        };
        let unix = self.reserved.iter().filter_map(|reserved| match reserved {
            Reserved::Unix(unix) => Some(unix.listener()),
            Reserved::Tcp(_) => None,
        });
        let unix_listeners = unix.collect::<io::Result<_>>().map_err(copy)?;
        let row = self.free_rows.pop().ok_or_else(|| Error::config("workers", "too many processes at once"))?;
        let (parent_end, worker_end) = lifeline;
        self.unborn = Some(Process { slot, row, lifeline: parent_end });
        Ok(Seed {
            slot,
            generation,
            lifeline: worker_end,
            sockets,
            unix_listeners,
            board: Rc::clone(&self.board),
            row,
            server: Rc::clone(&self.server),
            drain_timeout: self.config.drain_timeout,
            credentials: self.credentials.clone(),
            parent: process::id(),
        })
    }

    /// Asks a worker to finish. If its slot is scaled away, the worker now holds the last copies of the slot's
    /// sockets and closes them when it has taken what waits: no successor will, and the kernel would go on to choose
    /// them.
    fn drain(&mut self, pid: Pid) {
        let Some(process) = self.processes.get(&pid) else { return };
        if process.slot >= self.supervisor.wanted() {
            self.sockets.remove(&process.slot);
        }
        process.lifeline.close();
    }

    fn finish(&mut self, outcome: Outcome) -> Result<()> {
        match outcome {
            Outcome::Stopped => {
                info!("stopped after {} requests", self.board.row(0).requests());
                Ok(())
            }
            Outcome::BootFailed { last } => {
                let reason = self.last_failure.take().unwrap_or_else(|| failure(last));
                Err(Error::Boot { reason })
            }
        }
    }

    fn announce(&self, notice: &Notice) {
        match notice {
            Notice::AllReady { .. } => {
                for reserved in self.reserved.iter() {
                    info!("listening on {reserved} with {}", self.derivation);
                }
            }
            Notice::BackingOff { .. } | Notice::RestartAborted { .. } => warn!("{}", notice_text(notice)),
            _ => info!("{}", notice_text(notice)),
        }
    }

    fn kill(&self, pid: Pid, why: KillReason) {
        warn!("{} {}", self.tag(pid), kill_reason(why, &self.config));
        signal(pid, Signal::SIGKILL);
    }

    /// Takes in what a worker has said.
    fn hear(&mut self, pid: Pid) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let slot = process.slot;
        for report in process.lifeline.reports() {
            match report {
                Report::Listening(fds) => {
                    // A slot without a future leaves its sockets to its worker.
                    if !self.is_stopping && slot < self.supervisor.wanted() {
                        self.sockets.insert(slot, SlotSockets::from_fds(fds));
                    }
                    self.tell(Event::Listening { pid });
                }
                Report::Ready => {
                    info!("{} ready", self.tag(pid));
                    self.tell(Event::Ready { pid });
                }
                Report::Awake => self.watch.wake(clock::now()),
            }
        }
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::Drain(signal) => self.stop(Stop::Drain, signal),
            Request::Quick => self.stop(Stop::Quick, "SIGINT"),
            Request::Restart => self.tell(Event::Restart),
            Request::More => self.scale(self.supervisor.wanted() + 1),
            Request::Less => self.scale(self.supervisor.wanted() - 1),
            Request::Reap => self.reap(),
            Request::Reserved(signal) => info!("{signal} ignored"),
        }
    }

    fn scale(&mut self, workers: usize) {
        if workers == 0 || workers > Config::WORKERS_MAX {
            warn!("still {} workers: there can be 1 to {}", self.supervisor.wanted(), Config::WORKERS_MAX);
            return;
        }
        self.tell(Event::Scale { workers });
    }

    /// Begins to stop; asked a second time, whatever the signal, stops at once.
    fn stop(&mut self, how: Stop, signal: &str) {
        let how = if self.is_stopping { Stop::Force } else { how };
        match how {
            Stop::Drain => info!("draining: {signal}"),
            Stop::Quick => info!("stopping: {signal}"),
            Stop::Force => warn!("killing all workers: {signal} while stopping"),
        }
        self.is_stopping = true;
        // The workers hold the last copies now: when they have taken what waits and close theirs, the port is free.
        self.sockets.clear();
        self.reserved = Rc::default();
        self.tell(Event::Stop(how));
    }

    /// Reaps what has exited: only our own, since the caller may have other children; as PID 1 also orphans, which
    /// nobody else can reap.
    fn reap(&mut self) {
        for pid in self.processes.keys().copied().collect::<Vec<_>>() {
            match waitpid(SystemPid::from_raw(pid.0), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => {}
                Ok(status) => self.exited(pid, exit(status)),
                // EINVAL: the library knows no name for the signal that killed it. ECHILD: somebody else reaped it.
                Err(Errno::EINVAL | Errno::ECHILD) => self.exited(pid, UNKNOWN_EXIT),
                Err(errno) => error!("pid={} cannot be reaped: {errno}", pid.0),
            }
        }
        if process::id() == 1 {
            self.reap_orphans();
        }
    }

    fn reap_orphans(&mut self) {
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) = waitid(Id::All, peek) {
            if self.processes.contains_key(&Pid(pid.as_raw())) {
                // It exited after it was asked about; its own SIGCHLD is on the way.
                break;
            }
            debug!("reaped orphan pid={pid}");
            if waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err() {
                break;
            }
        }
    }

    fn exited(&mut self, pid: Pid, exit: Exit) {
        self.hear(pid);
        let Some(process) = self.processes.remove(&pid) else { return };
        let was_told = self.supervisor.process(pid).is_some_and(|(_, process)| process.stage.is_leaving());
        let row = self.board.row(process.row);
        let reason = process.lifeline.failure();
        let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let how = format!("{} {}{why}", self.tag(pid), describe(exit, was_told));
        let level = if was_told { log::Level::Info } else { log::Level::Warn };
        log::log!(level, "{how}, {} requests on {} connections", row.requests(), row.accepted());
        if !was_told {
            self.last_failure = Some(how);
        }
        self.board.fold(process.row);
        self.free_rows.push(process.row);
        self.tell(Event::Exited { pid, exit });
    }

    fn look_for_stalls(&mut self) {
        let now = clock::now();
        if self.watch.deadline().is_none_or(|due| now < due) {
            return;
        }
        let sights = self.processes.iter().map(|(pid, process)| {
            let row = self.board.row(process.row);
            crate::watch::Sight { pid: *pid, busy_since: row.busy_since(), requests: row.requests() }
        });
        let stalled = self.watch.look(sights, now);
        self.board.watch(!self.watch.sleeps());
        for pid in stalled {
            self.tell(Event::Stalled { pid });
        }
    }
}

const SIGNALS: Token = Token(0);

/// No worker has pid 0, so the signals' token is free.
fn token(pid: Pid) -> Token {
    Token(usize::try_from(pid.0).unwrap_or_default())
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

/// A status that says nothing.
const UNKNOWN_EXIT: Exit = Exit::Signal { signal: 0, core_dumped: false };

fn exit(status: WaitStatus) -> Exit {
    match status {
        WaitStatus::Exited(_, code) => Exit::Code(code),
        WaitStatus::Signaled(_, signal, core_dumped) => Exit::Signal { signal: signal as i32, core_dumped },
        _ => UNKNOWN_EXIT,
    }
}
