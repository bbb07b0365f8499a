//! How workers are spawned: what each is started with, and what follows its fork.

use super::*;
use crate::admin::Desk;
use crate::parent::supervisor::jittered;
use crate::shared::channel;
use crate::shared::message::MessageEnd;

/// What is forked, and what it starts with.
#[derive(Debug)]
pub(crate) enum Child {
    Worker(Box<Seed>),
    Admin(Box<Seed>, Box<Desk>),
}

impl Parent {
    /// What the next worker of a slot starts with.
    pub(super) fn seed(&mut self, slot: usize, generation: u64) -> Result<Seed> {
        let pair = |source| Error::system("make a lifeline with socketpair(2); is RLIMIT_NOFILE too low?", source);
        let messages = self.hook.as_ref().map(|_| MessageEnd::pair(self.config.accept_descriptors));
        let messages = messages.transpose().map_err(pair)?;
        let socket = |source| {
            Error::system("make a socket for its notifications with bind(2); is RLIMIT_NOFILE too low?", source)
        };
        let sign = self.sign().map_err(socket)?;
        let copy = |source| Error::system("copy a listening socket with fcntl(2); is RLIMIT_NOFILE too low?", source);
        self.custody.revive(slot);
        let is_shared = self.may_have_program(slot);
        self.prepare_sockets(slot);
        let sockets = self.custody.sockets(slot).map(SlotSockets::try_clone).transpose().map_err(copy)?;
        let sockets = sockets.unwrap_or_default();
        let makes_sockets = !sockets.is_complete(&self.reserved);
        let lifeline = channel::channel(listener::own(&self.reserved), makes_sockets).map_err(pair)?;
        let shared = self.reserved.iter().filter_map(|reserved| reserved.shared().transpose());
        let shared = shared.collect::<io::Result<_>>().map_err(copy)?;
        let row = self.roster.free_row().ok_or_else(|| Error::config("workers", "too many processes at once"))?;
        let page = self.board.lend(row, slot, clock::now());
        let page = page.map_err(|source| Error::system("lend the worker its row with madvise(2)", source))?;
        let (parent_end, worker_end) = lifeline;
        let (messages, worker_messages) = messages.unzip();
        let notify_socket = match &sign {
            Sign::Notification(socket) => Some(socket.address().clone()),
            Sign::Execution | Sign::Delay(_) | Sign::GivenUp => None,
        };
        let unique = self.roster.next_unique();
        let quota = Quota::new(self.config.message_share, clock::now());
        let ends = Ends { lifeline: parent_end, messages, sign, program: None, killed_at: Cell::default(), quota };
        self.roster.expect(slot, row, clock::unix_millis(), ends);
        Ok(Seed {
            slot,
            generation,
            unique,
            lifeline: worker_end,
            messages: worker_messages,
            keeping: self.keeping(is_shared),
            notify_socket,
            sockets,
            reserved: Rc::clone(&self.reserved),
            backlog: self.config.backlog,
            shared,
            page,
            server: Rc::clone(&self.server),
            max_requests: jittered(self.config.max_requests, clock::now().as_millis() ^ row as u64),
            drain_timeout: self.config.drain_timeout,
            abort_stalled: self.config.on_stall == crate::shared::config::OnStall::Abort,
            cpus: Rc::clone(&self.cpus),
            credentials: self.credentials.clone(),
            access_log: self.access_log.file().map(|file| (Rc::clone(file), self.config.access_log_format.clone())),
            sandbox: self.config.sandbox,
            parent: process::id(),
            place: self.place(),
        })
    }

    /// The fork that [`Turn::Fork`] asked for has made this process. Runs before the worker can be heard or reaped.
    pub(crate) fn forked(&mut self, pid: i32) {
        if self.admin_forked(Pid(pid)) {
            return;
        }
        let pid = Pid(pid);
        let Some(process) = self.roster.register(pid, clock::now()) else { return };
        let (slot, row) = (process.slot, process.row);
        self.take_back(row);
        debug!("{} spawned", self.roster.tag(pid));
        self.listen_to_worker(pid);
        let inherits = self.custody.sockets(slot).is_some_and(|sockets| sockets.is_complete(&self.reserved));
        if inherits {
            self.tell(Event::Listening { pid });
        }
        self.emit(&event::Event::Forked(self.roster.identify(pid)));
    }

    /// Hears by whatever way a worker that was just forked may speak. To one that cannot be heard, the boot time-out
    /// comes.
    fn listen_to_worker(&self, pid: Pid) {
        let Some(Process { ends, .. }) = self.roster.get(pid) else { return };
        let mut ways = vec![self.listen_to(&ends.lifeline, Source::Reports(pid))];
        if let Some(messages) = &ends.messages {
            ways.push(self.listen_to(messages, Source::Messages(pid)));
        }
        for error in ways.into_iter().filter_map(Result::err) {
            error!("cannot listen to {}: {error}", self.roster.tag(pid));
        }
        self.expect_sign(pid, &ends.sign);
    }

    /// The fork that [`Turn::Fork`] asked for has failed.
    pub(crate) fn fork_failed(&mut self, error: &io::Error) {
        if self.admin_fork_failed(error) {
            return;
        }
        let Some(process) = self.roster.call_off() else { return };
        self.take_back(process.row);
        self.board.fold(process.row, clock::now());
        self.spawn_failed(process.slot, &format!("cannot fork a worker with fork(2): {error}{}", fork_remedy(error)));
    }

    /// The next child does not inherit the page of this row.
    fn take_back(&self, row: usize) {
        if let Err(error) = self.board.take_back(row) {
            error!("cannot withdraw a scoreboard page from the next worker with madvise(2): {error}");
        }
    }

    pub(super) fn spawn_failed(&mut self, slot: usize, error: &str) {
        self.journal.say_rarely(log::Level::Error, Some(slot), format!("worker={slot} {error}"));
        self.journal.failed(Some(slot), error.to_owned(), format!("worker={slot} {error}"));
        self.tell(Event::SpawnFailed { slot });
    }
}

/// What to look at when the system makes no more processes (fork(2)).
pub(super) fn fork_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => "; is RLIMIT_NPROC or the pids cgroup's limit reached?",
        _ => "",
    }
}
