//! How workers are spawned: the state with which each starts, and what follows its fork.

use std::cell::Cell;
use std::io;
use std::process;
use std::rc::Rc;

use log::{debug, error};

use crate::admin::Service;
use crate::error::{Error, Result};
use crate::parent::event;
use crate::parent::journal::Journal;
use crate::parent::process::{Ends, Process, Roster};
use crate::parent::program::ReadyCheck;
use crate::parent::programs::await_notification;
use crate::parent::quota::Quota;
use crate::parent::source::Source;
use crate::parent::subject::Subject;
use crate::parent::supervisor::{jittered, Event, Pid, SlotId};
use crate::parent::wakeups::Wakeups;
use crate::parent::Parent;
use crate::shared::channel;
use crate::shared::config::OnStall;
use crate::shared::listener::{self, SlotSockets};
use crate::shared::message::MessageEnd;
use crate::shared::scoreboard::ParentBoard;
use crate::sys::clock;
use crate::worker::{Identity, Listening, Seed, Serving, Setup};

/// The kind of child to fork, and the state with which it starts.
#[derive(Debug)]
pub(crate) enum Child {
    Worker(Box<Seed>),
    Admin(Box<Seed>, Box<Service>),
}

impl Parent {
    /// The state with which the next worker of a slot starts.
    pub(super) fn seed(&mut self, slot: SlotId, generation: u64) -> Result<Seed> {
        let settings = &self.deploy.settings;
        let config = &settings.config;
        let pair = |source| Error::system("make a lifeline with socketpair(2); is RLIMIT_NOFILE too low?", source);
        let messages = self.application.listens().then(|| MessageEnd::pair(config.application.accept_descriptors));
        let messages = messages.transpose().map_err(pair)?;
        let socket = |source| {
            Error::system("make a socket for its notifications with bind(2); is RLIMIT_NOFILE too low?", source)
        };
        let ready_check = self.programs.ready_check(settings).map_err(socket)?;
        let copy = |source| Error::system("copy a listening socket with fcntl(2); is RLIMIT_NOFILE too low?", source);
        let now = clock::now();
        let (is_shared, mended) = self.sockets.prepare(slot, &self.roster, config, &mut self.journal, now);
        mended.into_iter().for_each(|event| self.roster.tell(event, now));
        let sockets = self.sockets.custody().sockets(slot).map(SlotSockets::try_clone).transpose().map_err(copy)?;
        let sockets = sockets.unwrap_or_default();
        let reserved = self.sockets.addresses.all();
        let makes_sockets = !sockets.is_complete(reserved);
        let lifeline = channel::channel(listener::own(reserved), makes_sockets).map_err(pair)?;
        let shared = reserved.iter().filter_map(|reserved| reserved.shared().transpose());
        let shared = shared.collect::<io::Result<_>>().map_err(copy)?;
        let row = self.roster.free_row().ok_or_else(|| Error::config("workers", "too many processes at once"))?;
        let page = self.health.board().lend(row, slot, clock::now());
        let page = page.map_err(|source| Error::system("lend the worker its row with madvise(2)", source))?;
        let (parent_end, worker_end) = lifeline;
        let handover = self.handover.receiver(slot);
        let handover = handover.inspect_err(|error| debug!("worker={slot} takes no connections over: {error}")).ok();
        let (messages, worker_messages) = messages.unzip();
        let notify_socket = match &ready_check {
            ReadyCheck::Notification(socket) => Some(socket.address().clone()),
            ReadyCheck::Report | ReadyCheck::Execution | ReadyCheck::Delay(_) | ReadyCheck::GivenUp => None,
        };
        let unique = self.roster.next_unique();
        let quota = Quota::new(config.application.message_share, clock::now());
        let ends =
            Ends { lifeline: parent_end, messages, ready_check, program: None, killed_at: Cell::default(), quota };
        self.roster.expect(slot, row, clock::unix_millis(), ends);
        let access_log = self.outputs.access_log.file();
        let access_log = access_log.map(|file| (Rc::clone(file), config.access_log.format.clone()));
        let max_requests = jittered(config.recycling.max_requests, clock::now().as_millis() ^ row as u64);
        let serving = Serving::new(Rc::clone(&settings.server), max_requests, config.lifecycle.drain_timeout);
        #[cfg(feature = "tls")]
        let serving = serving.with_secrets(self.deploy.tls.secrets());
        Ok(Seed {
            identity: Identity { slot, generation, unique },
            lifeline: worker_end,
            messages: worker_messages,
            listening: Listening {
                sockets,
                reserved: Rc::clone(reserved),
                backlog: config.listening.backlog,
                shared,
                handover,
            },
            page,
            serving: serving.with_access_log(access_log),
            keeper_options: settings.keeper_options(is_shared, notify_socket),
            setup: Setup {
                parent: process::id(),
                credentials: settings.credentials.clone(),
                cpus: Rc::clone(&settings.cpus),
                abort_stalled: config.lifecycle.on_stall == OnStall::Abort,
                is_titled: config.process.titles,
            },
            sandbox: config.privileges.sandbox,
            place: self.deploy.place(),
        })
    }

    /// [`NextStep::Fork`](super::NextStep::Fork) was carried out, with this process. Must be called before the worker
    /// can be read or reaped.
    pub(crate) fn forked(&mut self, pid: i32) {
        let pid = Pid(pid);
        if self.outputs.admin.as_mut().is_some_and(|admin| admin.forked(pid, &self.wakeups)) {
            return;
        }
        let Some(process) = self.roster.register(pid, clock::now()) else { return };
        let (slot, row) = (process.slot, process.row);
        take_back(row, self.health.board());
        debug!("{} spawned", self.roster.tag(pid));
        listen_to_worker(pid, &self.roster, &self.wakeups);
        if self.sockets.are_complete(slot) {
            self.roster.tell(Event::Listening { pid }, clock::now());
        }
        let forked = event::Event::Forked(self.roster.identify(pid));
        self.application.emit(&forked, &self.roster, &self.journal);
    }

    /// [`NextStep::Fork`](super::NextStep::Fork) has failed.
    pub(crate) fn fork_failed(&mut self, error: &io::Error) {
        let now = clock::now();
        if self.outputs.admin.as_mut().is_some_and(|admin| admin.fork_failed(error, now)) {
            return;
        }
        let Some(process) = self.roster.call_off() else { return };
        take_back(process.row, self.health.board());
        self.health.board().fold(process.row, now);
        let text = format!("cannot fork a worker with fork(2): {error}{}", fork_remedy(error));
        spawn_failed(process.slot, &text, &mut self.roster, &mut self.journal);
    }
}

/// Begins to read all channels of a worker that was just forked. If that fails, the boot timeout replaces it.
fn listen_to_worker(pid: Pid, roster: &Roster, wakeups: &Wakeups) {
    let Some(Process { ends, .. }) = roster.get(pid) else { return };
    let mut ways = vec![wakeups.listen_to(&ends.lifeline, Source::Reports(pid))];
    if let Some(messages) = &ends.messages {
        ways.push(wakeups.listen_to(messages, Source::Messages(pid)));
    }
    for error in ways.into_iter().filter_map(Result::err) {
        error!("cannot listen to {}: {error}", roster.tag(pid));
    }
    await_notification(pid, roster, wakeups);
}

/// Stops the next child from inheriting the page of this row.
fn take_back(row: usize, board: &ParentBoard) {
    if let Err(error) = board.take_back(row) {
        error!("cannot withdraw a scoreboard page from the next worker with madvise(2): {error}");
    }
}

/// No worker could be started for the slot.
pub(super) fn spawn_failed(slot: SlotId, error: &str, roster: &mut Roster, journal: &mut Journal) {
    journal.log_limited(log::Level::Error, Subject::slot("not_started", slot), format!("worker={slot} {error}"));
    journal.failed(Some(slot), error.to_owned(), format!("worker={slot} {error}"));
    roster.tell(Event::SpawnFailed { slot }, clock::now());
}

/// What to check if the system creates no more processes (fork(2)).
pub(super) fn fork_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => "; is RLIMIT_NPROC or the pids cgroup's limit reached?",
        _ => "",
    }
}
