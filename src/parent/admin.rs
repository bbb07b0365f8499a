//! The admin process as the parent sees it: facts for it, commands from it, and how it is restarted.
//!
//! [`Admin`] owns its listener, the model of what it knows, and its process. Its input: facts about the pool, and the
//! commands of its clients. Its output: requests to the loop, and the child to fork.

use std::io;
use std::os::fd::AsRawFd;
use std::process;
use std::rc::Rc;
use std::time::Duration;

use log::{debug, error, info, warn};
use nix::sys::resource::{getrusage, UsageWho};
use nix::sys::signal::Signal;
use nix::sys::time::TimeValLike;
use nix::sys::wait::{waitpid, WaitPidFlag};
use nix::unistd::Pid as SystemPid;

use crate::admin::status::{self, Fact, Model};
use crate::admin::{self, Service};
use crate::error::{Error, Result};
use crate::parent::announce::{describe, describe_unasked};
use crate::parent::discard::Discard;
use crate::parent::journal::{Entry, Journal};
use crate::parent::process::{signal, Roster};
use crate::parent::reap::{self, ChildStatus};
use crate::parent::settings::Settings;
use crate::parent::sockets::Sockets;
use crate::parent::source::Source;
use crate::parent::spawn::{fork_remedy, Child};
use crate::parent::subject::{exit_word, Subject};
use crate::parent::supervisor::{Gone, Pid, PoolState};
use crate::parent::wakeups::Wakeups;
use crate::shared::channel::{self, ParentEnd, Record, Reports};
use crate::shared::config::{Address, Config, Sandbox};
use crate::shared::credentials::Credentials;
use crate::shared::listener::{AdminListener, SlotSockets};
use crate::shared::message::{MessageEnd, MessageError, Received, BUFFER};
use crate::shared::outlet;
use crate::shared::request::Request;
use crate::shared::scoreboard::{ParentBoard, Scoreboard};
use crate::sys::clock;
use crate::time::Time;
use crate::worker::keeper::KeeperOptions;
use crate::worker::{Identity, Listening, Place, Seed, Serving, Setup};

/// The maximum delay of a restart after several failures in a row.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
const BACKOFF: Duration = Duration::from_millis(100);
/// If it has lived for this long, its end is not a failure in a row.
const STABLE: Duration = Duration::from_secs(10);
/// How long the end of the pool waits for it. It normally ends well before that.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// The number of commands carried out per second. Further ones wait in the link; while that is full, they are refused
/// to clients.
const COMMANDS: u32 = 16;
const SECOND: Duration = Duration::from_secs(1);

/// The admin process, and what it is told.
#[derive(Debug)]
pub(super) struct Admin {
    listener: AdminListener,
    hosts: Rc<[String]>,
    token: Option<Rc<str>>,
    /// Whether ps(1) and top(1) show which process it is.
    is_titled: bool,
    model: Model,
    process: Option<Running>,
    /// The process that is being forked.
    forking: Option<Running>,
    /// When to start it; never before the old pool, in an upgrade, has released the address.
    start_at: Time,
    /// How many times in a row it ended soon after its start.
    failures: u32,
    /// Whether the pool ends, or has handed over.
    is_over: bool,
}

#[derive(Debug)]
struct Running {
    pid: Pid,
    lifeline: ParentEnd,
    link: MessageEnd,
    since: Time,
    /// The beginning of the second in which commands are counted.
    second: Time,
    commands: u32,
    /// Whether it has dropped what the fork copied from the parent.
    is_set_up: bool,
    /// Whether it was killed for what it has sent, and is ignored from then on.
    has_misbehaved: bool,
}

impl Admin {
    /// For a pool with this configuration, to be started at this time.
    pub(super) fn new(listener: AdminListener, config: &Config, start_at: Time) -> Result<Admin> {
        Ok(Admin {
            listener,
            hosts: config.admin.hosts[..].into(),
            token: config.admin_token()?.map(Rc::from),
            is_titled: config.process.titles,
            model: Model::default(),
            process: None,
            forking: None,
            start_at,
            failures: 0,
            is_over: false,
        })
    }

    /// When it must be started, or read again.
    pub(super) fn deadline(&self) -> Option<Time> {
        match &self.process {
            None => Some(self.start_at).filter(|start_at| !self.is_over && *start_at != Time::NEVER),
            Some(process) => (process.commands >= COMMANDS).then_some(process.second + SECOND),
        }
    }

    /// Whether it must be started now.
    fn is_due(&self, now: Time) -> bool {
        self.process.is_none() && self.deadline().is_some_and(|due| due <= now)
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        Some(self.process.as_ref()?.pid)
    }

    /// The old pool has released the address.
    pub(super) fn take_over(&mut self) {
        self.listener.take_over();
        self.start_at = Time::default();
    }

    pub(super) fn listener(&self) -> &AdminListener {
        &self.listener
    }

    /// Whether it may still hold what the fork copied from the parent.
    pub(super) fn holds_copies(&self) -> bool {
        self.forking.is_some() || self.process.as_ref().is_some_and(|process| !process.is_set_up)
    }

    /// Applies a fact to the model, and passes it on. A process that does not read is killed: its replacement starts
    /// with the current model.
    fn tell(&mut self, fact: Fact) {
        if let Some(process) = &self.process {
            if let Err(MessageError::Full) = process.link.send(&fact.encode(), None) {
                warn!("admin pid={} killed: it does not read its messages", process.pid.0);
                signal(process.pid, Signal::SIGKILL);
            }
        }
        self.model.learn(fact);
    }

    fn backs_off(&mut self, now: Time) {
        let doublings = self.failures.saturating_sub(1).min(16);
        let delay = if self.failures == 0 { Duration::ZERO } else { BACKOFF * (1 << doublings) };
        self.failures = self.failures.saturating_add(1);
        self.start_at = now + delay.min(BACKOFF_MAX);
    }

    /// Tells it to finish.
    fn release(&mut self) {
        self.is_over = true;
        self.tell(Fact::End);
        if let Some(process) = &self.process {
            process.lifeline.close();
        }
    }
}

/// Start and end.
impl Admin {
    /// Returns the process to fork, if it is due.
    pub(super) fn child_due(&mut self, board: &Scoreboard, user: &Option<Rc<Credentials>>, now: Time) -> Option<Child> {
        if !self.is_due(now) {
            return None;
        }
        match self.seed(board, user.clone(), now) {
            Ok(child) => Some(child),
            Err(error) => {
                error!("cannot start the admin process: {}", error.report());
                self.failures = self.failures.max(1);
                self.backs_off(now);
                None
            }
        }
    }

    /// Registers the fork of the admin process, if that was due.
    pub(super) fn forked(&mut self, pid: Pid, wakeups: &Wakeups) -> bool {
        let Some(mut process) = self.forking.take() else { return false };
        process.pid = pid;
        debug!("admin pid={} spawned", pid.0);
        let (lifeline, link) = (process.lifeline.as_raw_fd(), process.link.as_raw_fd());
        self.process = Some(process);
        for (descriptor, source) in [(lifeline, Source::Admin), (link, Source::AdminLink)] {
            if let Err(error) = wakeups.listen_to(&descriptor, source) {
                error!("cannot listen to admin pid={}: {error}", pid.0);
            }
        }
        true
    }

    /// Registers a failed fork of the admin process, if that was due.
    pub(super) fn fork_failed(&mut self, error: &io::Error, now: Time) -> bool {
        if self.forking.take().is_none() {
            return false;
        }
        error!("cannot fork the admin process with fork(2): {error}{}", fork_remedy(error));
        self.failures = self.failures.max(1);
        self.backs_off(now);
        true
    }

    /// SIGCHLD has arrived.
    pub(super) fn reap(&mut self, wakeups: &Wakeups, journal: &mut Journal) {
        let Some(pid) = self.pid() else { return };
        for status in reap::statuses(pid) {
            if let ChildStatus::Suspended = status {
                // Its connections are worth less than a response to the next one.
                warn!("admin pid={} killed: it was stopped by a signal", pid.0);
                signal(pid, Signal::SIGKILL);
            }
            let ChildStatus::Exited(exit) = status else { continue };
            self.read_reports(wakeups, journal);
            let Some(process) = self.process.take() else { return };
            if self.is_over {
                debug!("admin pid={} {}", pid.0, describe(exit));
                continue;
            }
            let now = clock::now();
            if now.since(process.since) >= STABLE {
                self.failures = 0;
            }
            self.backs_off(now);
            let why = process.lifeline.failure().map(|reason| format!(": {reason}")).unwrap_or_default();
            journal.log(
                log::Level::Warn,
                admin_process("exited", pid).because(exit_word(exit)),
                format!("admin pid={} {}{why}", pid.0, describe_unasked(exit)),
            );
        }
    }

    /// The new pool serves, and shows its own status.
    pub(super) fn hand_over(&mut self, journal: &mut Journal) {
        self.send_events(journal);
        self.listener.hand_over();
        self.release();
    }

    /// Ends it, as the last process of the pool, and waits for a moment.
    pub(super) fn end(mut self) {
        self.release();
        let Some(process) = self.process else { return };
        // It may have closed its lifeline without having ended.
        if !process.lifeline.ends_within(EXIT_TIMEOUT) {
            warn!("admin pid={} killed: still running {EXIT_TIMEOUT:?} after it was told to finish", process.pid.0);
        }
        signal(process.pid, Signal::SIGKILL);
        while waitpid(SystemPid::from_raw(process.pid.0), None::<WaitPidFlag>) == Err(nix::errno::Errno::EINTR) {}
    }

    fn seed(&mut self, board: &Scoreboard, credentials: Option<Rc<Credentials>>, now: Time) -> Result<Child> {
        let call = "give the admin process what it needs with socketpair(2) or mmap(2); is RLIMIT_NOFILE too low?";
        let refused = |source| Error::system(call, source);
        let (lifeline, theirs) = channel::channel(0, false).map_err(refused)?;
        let (link, their_link) = MessageEnd::pair(false).map_err(refused)?;
        // A scoreboard of its own, in which it is the only worker. Nobody checks whether it stalls.
        let own = ParentBoard::new(1).map_err(refused)?;
        own.watch(true);
        let page = own.lend(1, 0, now).map_err(refused)?;
        let shared = self.listener.shared().map_err(refused)?;
        self.forking = Some(Running {
            pid: Pid(0),
            lifeline,
            link,
            since: now,
            second: now,
            commands: 0,
            is_set_up: false,
            has_misbehaved: false,
        });
        let (hosts, token) = (Rc::clone(&self.hosts), self.token.clone());
        let service = Service::new(self.model.clone(), board.clone(), hosts, token, self.listener.is_unix());
        let setup = Setup {
            parent: process::id(),
            credentials,
            cpus: Rc::default(),
            abort_stalled: false,
            is_titled: self.is_titled,
        };
        let seed = Seed {
            identity: Identity::ADMIN,
            lifeline: theirs,
            messages: Some(their_link),
            listening: Listening { shared: vec![shared], ..Listening::default() },
            page,
            serving: Serving::new(Rc::new(admin::server_config()), 0, admin::DRAIN_TIMEOUT),
            keeper_options: KeeperOptions::default(),
            setup,
            // It reads the files of all workers in /proc.
            sandbox: Sandbox::Off,
            place: Place::default(),
        };
        Ok(Child::Admin(Box::new(seed), Box::new(service)))
    }
}

/// Facts for it.
impl Admin {
    /// Passes on the events since the last call.
    fn send_events(&mut self, journal: &mut Journal) {
        for Entry { time, level, subject, text } in journal.take_unsent() {
            let event = status::Event {
                seq: self.model.seq() + 1,
                time,
                level,
                kind: subject.kind.to_owned(),
                worker: subject.slot,
                generation: subject.generation,
                pid: subject.pid,
                reason: subject.reason.map(str::to_owned),
                text,
            };
            self.tell(Fact::Event(event.shortened()));
        }
    }

    /// Passes on what has changed in the pool and its processes.
    pub(super) fn observe(&mut self, roster: &Roster, sockets: &Sockets, settings: &Settings, journal: &mut Journal) {
        self.send_events(journal);
        let mut pool = self.model.pool.clone();
        pool.state = match roster.supervisor.state() {
            PoolState::Starting => status::State::Starting,
            PoolState::Serving => status::State::Serving,
            PoolState::Restarting => status::State::Restarting,
            PoolState::Upgrading => status::State::Upgrading,
            PoolState::LameDuck => status::State::LameDuck,
            PoolState::Stopping if roster.supervisor.is_draining() => status::State::Draining,
            PoolState::Stopping => status::State::Stopping,
        };
        (pool.wanted, pool.serving) = (roster.supervisor.slots().wanted(), roster.supervisor.slots().ready_workers());
        pool.restart_aborted.clone_from(&journal.restart_aborted);
        pool.lost = outlet::lost();
        pool.certificates = settings.config.certificates();
        pool.max_held = settings.config.server.capacity.max_held as u64;
        pool.because = settings.reason_for(pool.wanted);
        if pool.balance != sockets.custody().balance() {
            pool.balance = sockets.custody().balance().to_owned();
        }
        if pool != self.model.pool {
            self.tell(Fact::Pool(pool));
        }
        self.observe_processes(roster, sockets);
    }

    fn observe_processes(&mut self, roster: &Roster, sockets: &Sockets) {
        for (slot, it) in roster.supervisor.slots().processes() {
            let Some((pid, process)) = it.pid.and_then(|pid| Some((pid, roster.get(pid)?))) else { continue };
            let (row, generation, state, since) = (process.row, it.generation, it.state(), process.started);
            let is_program = process.ends.program.is_some();
            let shown = process.shown(pid);
            let known = status::Process { pid: shown, slot, row, generation, state, since, is_program };
            if self.model.processes.get(&shown) != Some(&known) {
                if shown != pid.0 && self.model.processes.contains_key(&pid.0) {
                    let counted = self.model.slots.get(&slot).cloned().unwrap_or_default();
                    self.tell(Fact::Gone(pid.0, slot, counted));
                }
                self.tell(Fact::Process(known));
                let inodes = sockets.custody().sockets(slot).map(SlotSockets::inodes).unwrap_or_default();
                if self.model.sockets.get(&slot) != Some(&inodes) {
                    self.tell(Fact::Sockets(slot, inodes));
                }
            }
        }
    }

    /// Passes on what does not change while the pool lives.
    pub(super) fn introduce(&mut self, sockets: &Sockets, settings: &Settings) {
        self.model.pool.pid = i32::try_from(process::id()).unwrap_or(0);
        self.model.pool.started = clock::unix_millis();
        self.model.pool.listening = sockets.addresses.all().iter().map(ToString::to_string).collect();
        self.model.pool.max_held = settings.config.server.capacity.max_held as u64;
        info!("admin on {}", self.listener);
        if self.token.is_none() && settings.config.admin.address.as_ref().is_some_and(Address::is_reached_from_outside)
        {
            warn!(
                "admin on {} has no token: anyone who can connect can read the status, and nobody can control the \
                 pool; use 127.0.0.1 or a Unix socket, or set admin-token-file",
                self.listener
            );
        }
    }

    /// Counts a process that was reaped. `how` says how it ended, `cpu` is its CPU time in microseconds, and `shown` is
    /// the pid that people know.
    pub(super) fn count_exit(&mut self, shown: i32, gone: Gone, how: &str, cpu: u64) {
        let mut known = self.model.slots.get(&gone.slot).cloned().unwrap_or_default();
        if let Some(reason) = gone.restart {
            known.restarts[reason as usize] += 1;
            known.last_exit = Some(how.to_owned());
        }
        known.cpu += cpu;
        self.tell(Fact::Gone(shown, gone.slot, known));
    }
}

/// Commands from it.
impl Admin {
    /// Reads its reports.
    pub(super) fn read_reports(&mut self, wakeups: &Wakeups, journal: &mut Journal) {
        let Some(process) = &mut self.process else { return };
        let Reports { records, violation } = process.lifeline.read_reports(clock::now());
        for record in records {
            match record {
                Record::Listening => process.is_set_up = true,
                Record::Ready => debug!("admin pid={} ready", process.pid.0),
                _ => {}
            }
        }
        if let Some(violation) = violation {
            process.misbehaved(&violation.to_string(), journal);
        } else if process.lifeline.has_more() {
            wakeups.listen_again(process.lifeline.as_raw_fd(), Source::Admin);
        }
    }

    /// The next command of its clients, if the limit per second allows one more.
    pub(super) fn next_request(&mut self, discard: &mut Discard, journal: &mut Journal, now: Time) -> Option<Request> {
        let process = self.process.as_mut().filter(|process| !process.has_misbehaved)?;
        if now.since(process.second) >= SECOND {
            (process.second, process.commands) = (now, 0);
        }
        if process.commands >= COMMANDS {
            return None;
        }
        let mut buffer = vec![0; BUFFER];
        let request = match process.link.receive(&mut buffer) {
            Received::Message(message, None) => admin::decode(message).ok_or("it sent what is no command"),
            Received::Message(_, Some(_)) => Err("it sent a descriptor"),
            Received::Malformed(why, fds) => {
                discard.add(fds);
                Err(why)
            }
            Received::Cut(fds) => {
                discard.add(fds);
                Err("it sent a descriptor")
            }
            Received::Nothing | Received::NoRoom | Received::End => return None,
        };
        process.commands += 1;
        request.map_err(|why| process.misbehaved(why, journal)).ok()
    }

    /// Whether commands had to wait.
    pub(super) fn is_behind(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.commands >= COMMANDS)
    }
}

impl Running {
    /// It broke the protocol: kills it, and starts a replacement as after any failure.
    fn misbehaved(&mut self, why: &str, journal: &mut Journal) {
        if !std::mem::replace(&mut self.has_misbehaved, true) {
            signal(self.pid, Signal::SIGKILL);
            journal.log(
                log::Level::Warn,
                admin_process("killed", self.pid).because("protocol"),
                format!("admin pid={} killed: {why}", self.pid.0),
            );
        }
    }
}

fn admin_process(kind: &'static str, pid: Pid) -> Subject {
    Subject { pid: Some(pid.0), ..Subject::pool(kind) }
}

/// The CPU time of all processes reaped so far, in microseconds (getrusage(2)).
pub(super) fn cpu_of_the_reaped() -> u64 {
    let micros = |usage: nix::sys::resource::Usage| {
        (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()).unsigned_abs()
    };
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, micros)
}
