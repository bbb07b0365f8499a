//! The parent's loop: waits for events, passes them to the supervisor, and performs its effects.
//!
//! Its input: signals, exits, workers' reports, and requests of the application and the admin process. Its output:
//! forks, signals, orders and facts. It waits without a timeout unless something is due, so an idle pool does not wake
//! it. It does not know HTTP, accepts no connection, waits for nobody, and checks whatever a worker reports.
//!
//! # Files
//!
//! **The loop**: `mod.rs`, and the steps that need several of the parts below.
//!
//! - `start.rs`: everything before the first worker
//! - `spawn.rs`: what a worker starts with, and what follows its fork
//! - `reports.rs`, `messages.rs`: what workers report, and what they send the application
//! - `workers.rs`: what happens to workers, and who is told
//! - `requests.rs`: requests from signals, the application and admin clients
//! - `effects.rs`: performs the supervisor's effects, and logs its notices
//! - `upgrade.rs`: handing over to a new binary, and taking over from an old one
//!
//! **The parts.** Each begins with what it owns, its input and its output:
//!
//! - `roster.rs`: PURE. The processes by pid, slot and row, and what the parent believes of each; `process.rs`: a
//!   process with its descriptors
//! - `supervisor/`: PURE. What should run: events in, effects out. Its parts own their fields:
//!   `slots.rs`: the table of slots; `life.rs`: what an event does to one process; `starts.rs`: turns, rates and
//!   backoff; `failure.rs`: what follows from a failure; `rollout.rs`: rolling restarts, limits, scaling; `upgrade.rs`;
//!   `shutdown.rs`; `policy.rs`: the limits with their reasons; a seeded simulation
//! - `wakeups.rs`: what the loop waits for; `source.rs` (PURE): the meaning of each token
//! - `sockets/`: the addresses, the slots' sockets, and which worker looks after which queue
//! - `handover/`: which processes take over the connections of a worker that leaves
//! - `health.rs`: stalls and memory; `watch.rs` (PURE): which workers stall, and when to check
//! - `programs.rs`: workers that run other programs; `program.rs`: one program; `leaving.rs`: when it is told to
//!   finish; `notify.rs`: the sockets on which programs report that they are ready; `orphans.rs`: the processes of a
//!   program whose keeper was killed
//! - `application.rs`: the application's closures; `inbox.rs`: unread messages; `quota.rs` (PURE): how much time
//!   reading them may take; `event.rs`, `handle.rs`, `target.rs`: what the application learns, and what it can ask for
//! - `deploy/`: restarts on request, and what they read again; `files.rs`: restarts because of changed files;
//!   `debounce.rs` (PURE): when changes are complete; `root_watch.rs` (PURE): when the root is another directory;
//!   `settings.rs`: the current settings
//! - `takeover.rs`: the pools before and after this one; `successor/`: both ends of passing sockets to a new binary;
//!   `variable.rs` (PURE): the variable that describes them
//! - `tls.rs`: draws the secrets of session tickets, and tells when certificates expire
//! - `discard.rs`: closes descriptors from workers
//! - `journal.rs`: reports, and what is known about failures; `announce.rs`, `subject.rs` (PURE): their texts, and
//!   the same in words for programs; `repeats.rs` (PURE): their
//!   rate
//! - `outputs.rs`: where the pool shows itself: `service.rs`, `pid_file.rs`, `access_log.rs`, `admin.rs` (the parent's
//!   side of the admin process)
//! - `reap.rs`: the results of waitpid(2)
//!
//! # How it works
//!
//! **Start.** The parent refuses to run with a second thread, raises RLIMIT_NOFILE, and *reserves* every address: it
//! binds without SO_REUSEPORT and never listens, so a second instance fails, and port 0 is resolved once. Then it
//! installs its signal handlers and forks one slot after the other. A worker makes its own SO_REUSEPORT sockets and
//! sends copies to the parent before any user code runs. Only then is the next slot forked, so the order of the
//! kernel's group is the order of the slots.
//!
//! **Signals.** The pool does not rely on inherited signal actions. The parent unblocks and handles nine signals. A
//! worker also unblocks SIGALRM and SIGABRT, and restores the default action of SIGALRM when it sets the alarm that
//! limits the drain of a worker without a parent. SIGXFSZ is ignored, so at the size limit writing a log fails but ends
//! no process. Signals that an embedder blocks or ignores for its own reasons stay as they are, and the mask is
//! restored when the pool has ended. HUP, USR1, USR2, TTIN and TTOU would end or stop a process that does not handle
//! them yet: the binary blocks them before anything else, and an old parent before it starts a new binary, so that they
//! wait until the handlers are installed. A program gets an empty mask, the actions with which the pool was started,
//! and its own process group; so does its keeper.
//!
//! **Exits.** On SIGCHLD the parent checks each of its own processes, and never an embedder's other children. As PID 1
//! it also reaps orphans and, after the death of a keeper, the processes of its program. The supervisor decides when
//! the slot is started again. The replacement inherits the slot's sockets from the parent's *custody*, so connections
//! in their queues are served and not reset.
//!
//! **Replacing.** Whatever the reason (a restart, a recycling, a worker stopped by a signal), the replacement starts in
//! the same slot, with the same sockets. When both are ready the older one drains. So there is one rule for leaving,
//! and a replacement that fails changes nothing.
//!
//! **Stop.** The parent drops its copies of all sockets, then half-closes every lifeline. A worker accepts the
//! connections in its own queues, and in those of neighbours that nobody serves, and closes the sockets. It answers
//! each connection once more with `Connection: close`, closes idle connections one after the other within a second,
//! gives an incomplete head as long (408), and exits: only requests in progress take longer. The admin process does the
//! same within 50 ms, and cuts off clients that do not read. What remains at the drain timeout is killed. SIGINT is
//! quick: workers end without draining. Requests to stop within a second of the first one are the same request, with
//! the strongest of their modes, since wrappers and service managers repeat their signals. A later request kills, and
//! if that cut requests, the exit code is 5.
//!
//! **Death of the parent.** The kernel closes the lifelines, which drains the workers, and sends each a SIGTERM
//! (PR_SET_PDEATHSIG), whose action also sets an alarm for the drain timeout, since nobody else could end a worker that
//! does not finish.
//!
//! # Decisions
//!
//! - **The parent checks for stalls**, and not a timer in the worker, because a signal in the worker would interrupt
//!   the user's own system calls.
//! - **A restart requested during a restart extends it** to the workers that it has already started, since these may
//!   have read what was changed in between. It is still one restart, with one beginning and one end.
//! - **Sockets are passed to a new binary by staying open across execve(2)**, not by messages, so nothing has to be
//!   sent to a process that may not read.
//! - **A disconnected worker drains at once**, and its slot starts a replacement at the same time instead of first: the
//!   application has a reason not to want this worker any more. Neighbours look after the queue meanwhile.
//! - **A worker stopped by a signal is replaced, not killed**: somebody may only be debugging it, and it finishes its
//!   requests when it runs again. Otherwise the drain timeout ends it. When the pool ends, the parent has it run again
//!   (SIGCONT), so that it can finish.
//! - **The sockets of a slot removed by scaling stay open for three seconds**, and not for 100 ms: neighbours look
//!   after the queue, so this only costs a few descriptors, and a handshake may need two retransmissions.
//! - **A socket is checked whenever it is passed on**: whether it listens, has its address, and shares its port. What a
//!   worker may have set is restored: O_NONBLOCK, filters, options that connections inherit, the steering program. Any
//!   process with a copy of a socket can shut it down or change it for all. A flawed socket is dropped, and the slot's
//!   next worker binds a new one, which the parent's reserved socket makes possible. Under `exec`, the flags stay as
//!   they are while another program holds the socket, since it may rely on them.
//! - **The kernel reports a shutdown(2) to the parent** as a hang-up, for which a separate epoll instance waits that
//!   connections do not wake. The slot's worker is then replaced, at most once a second. A worker that cannot accept on
//!   a socket drops it, and reports that.
//! - **A Unix socket that was shut down is replaced by rename(2)**, so that clients can always connect, and all workers
//!   are replaced. A Unix socket that was passed to the pool cannot be replaced; the log says so. For a TCP socket that
//!   was passed, listen(2) is called again.
//! - **On a full disk the pid file is overwritten**, since a new file could not be written, but the block of the old
//!   one can. If there is none, or after an upgrade, the pool serves without it and tries again every five seconds: a
//!   disk filled by logs must not keep a site down when its machine boots. Errors such as a missing directory are
//!   mistakes, and end the start.
//! - **A program's notifications go to a path**, since some implementations of sd_notify(3) only support paths. The
//!   path has a random name in a private directory of the parent, where no other user can create, remove or list names.
//!   If no directory can be made (on a read-only file system), the name is abstract. In both cases the kernel reports
//!   the sender, and only the programs' user and root are accepted. A parent killed by SIGKILL leaves the directory
//!   behind.
//! - **Descriptors from workers are closed with the help of a process that exits.** Closing the last copy of a socket
//!   lingers for as long as the worker likes (SO_LINGER). Clearing the option first does not help, since the worker may
//!   set it again. A process that exits does not linger, so one is forked that holds copies while the parent closes its
//!   own, and is then killed. This costs at most fifty forks a second, and only if descriptors come at all. It does not
//!   help with a file whose every close(2) waits for a server (FUSE, NFS).
//! - **A message is only received with all of its descriptors**, since recvmsg(2) closes those for which there is no
//!   free number. The descriptors are those of a peek (MSG_PEEK), so that no close is that of a socket's last copy.
//! - **A worker that breaks the protocol is killed, and not merely ignored**: it was broken into, or writes to random
//!   addresses, and its slot is better served by a replacement. For records that may be repeated, reads and not records
//!   are counted, so that a parent that was paused, and finds many at once, takes no worker for an attacker.
//! - **Three neighbours**: each costs the kernel a callback per new connection while all workers are busy. With three,
//!   four workers have to be busy at once for a connection to wait.
//! - **While no worker serves at all, one slot is tried four times a second**, whatever its backoff: backoff protects
//!   other workers, and there are none. While others serve, this is the maximum, so one number is both bounds.
//! - **The service manager is notified without blocking**; the crate's own function blocks if nobody reads.

mod access_log;
mod admin;
pub(crate) mod announce;
mod application;
mod deploy;
mod discard;
mod effects;
pub(crate) mod event;
pub(crate) mod handle;
mod handover;
mod health;
mod inbox;
mod journal;
mod leaving;
mod messages;
pub(crate) mod notify;
mod orphans;
mod outputs;
pub(crate) mod pid_file;
mod process;
mod program;
mod programs;
mod quota;
pub(crate) mod reap;
mod repeats;
mod reports;
mod requests;
pub(crate) mod roster;
pub(crate) mod service;
mod settings;
mod sockets;
mod source;
mod spawn;
mod start;
mod subject;
pub(crate) mod successor;
pub(crate) mod supervisor;
mod takeover;
pub(crate) mod target;
mod tls;
mod upgrade;
mod wakeups;
pub(crate) mod watch;
mod workers;

use mio::Events;

use self::admin::Admin;
use self::application::Application;
use self::deploy::Deploy;
use self::discard::Discard;
use self::handover::Handover;
use self::health::Health;
use self::journal::Journal;
use self::outputs::Outputs;
use self::process::Roster;
use self::programs::Programs;
use self::requests::may_restart;
use self::sockets::Sockets;
use self::source::Source;
pub(crate) use self::spawn::Child;
use self::supervisor::{Event, Recycle};
use self::takeover::Takeover;
use self::wakeups::Wakeups;
use self::workers::{drain, notified, ready};
use crate::error::Result;
use crate::shared::log_writer;
use crate::sys::clock;
use crate::time::{Time, TICK};

/// What the pool's owner must do next.
pub(crate) enum NextStep {
    /// Fork a process from this, then call [`Parent::forked`] or [`Parent::fork_failed`].
    Fork(Child),
    /// The pool has ended.
    Finished(Result<()>),
}

/// The parent of a pool: a loop over parts that each own some of its state. In a worker, dropping it closes what the
/// worker must not hold, and has no other effect.
#[derive(Debug)]
pub(crate) struct Parent {
    /// The processes, and what should run.
    roster: Roster,
    wakeups: Wakeups,
    sockets: Sockets,
    handover: Handover,
    health: Health,
    programs: Programs,
    application: Application,
    deploy: Deploy,
    takeover: Takeover,
    discard: Discard,
    journal: Journal,
    outputs: Outputs,
}

impl Parent {
    /// Does everything but forking, until a fork is due or the pool has ended.
    pub(crate) fn turn(&mut self) -> Result<NextStep> {
        let mut events = Events::with_capacity(64);
        loop {
            self.obey_application();
            let (board, user) = (self.health.board(), &self.deploy.settings.credentials);
            let admin = self.outputs.admin.as_mut();
            if let Some(child) = admin.and_then(|admin| admin.child_due(board.scoreboard(), user, clock::now())) {
                return Ok(NextStep::Fork(child));
            }
            // Before a fork, which takes longer than steering connections away from a dead worker.
            self.settle();
            while let Some(effect) = self.roster.supervisor.poll_effect() {
                if let Some(turn) = self.perform(effect) {
                    return Ok(turn);
                }
                self.obey_application();
                self.settle();
            }
            // The steps of this turn may have been interrupted by a freeze as well.
            look_at_clock(&mut self.wakeups, &mut self.health, &mut self.roster);
            let until = self.deadline();
            let Some(sources) = self.wakeups.wait(until, &mut events)? else { continue };
            look_at_clock(&mut self.wakeups, &mut self.health, &mut self.roster);
            // Reports first, since a worker sent them before its exit.
            for source in sources {
                self.dispatch(source);
                self.obey_application();
            }
            for request in self.wakeups.requests() {
                self.obey(request);
                self.obey_application();
            }
            self.look_around();
            self.roster.tell(Event::Tick, clock::now());
        }
    }

    /// Does what is due, whatever has woken the parent.
    fn look_around(&mut self) {
        let now = clock::now();
        for pid in self.health.find_stalled(&self.roster, now) {
            let stalled = event::Event::Stalled(self.roster.identify(pid));
            self.application.emit(&stalled, &self.roster, &self.journal);
            self.obey_application();
            self.roster.tell(Event::Stalled { pid }, clock::now());
        }
        for pid in self.health.find_heavy(&self.roster, now) {
            self.roster.tell(Event::Recycle { pid, why: Recycle::Memory }, now);
        }
        self.sockets.look_at_queues(&self.roster, clock::now());
        let mended = self.sockets.mend(&self.roster, &self.deploy.settings.config, &mut self.journal, clock::now());
        mended.into_iter().for_each(|event| self.roster.tell(event, clock::now()));
        if self.outputs.admin.as_ref().is_some_and(Admin::is_behind) {
            self.obey_admin();
        }
        self.read_messages();
        self.application.tell_time(&self.roster, &self.journal, clock::now());
        self.obey_application();
        for pid in self.programs.take_due(&mut self.roster, clock::now()) {
            ready(pid, &mut self.roster, &mut self.application, &mut self.journal);
        }
        for pid in leaving::advance(&mut self.roster, clock::now()) {
            drain(pid, &mut self.roster, &mut self.application, &self.journal);
        }
        if leaving::ends_succession(&mut self.roster, clock::now()) {
            // The new pool steers from now on.
            self.sockets.release();
            self.takeover.let_go();
        }
        self.programs.end_late_keepers(&self.roster, clock::now());
        self.journal.say_what_was_left_out();
        log_writer::tell_lost(clock::now());
        self.discard.close(are_copies_held(&self.roster, &self.outputs.admin), clock::now());
        let Parent { programs, roster, discard, wakeups, journal, application, .. } = self;
        for pid in programs.take_unread(discard) {
            let notice = programs.read_notification(pid, roster, discard, wakeups, journal);
            notified(pid, notice, roster, application, journal);
        }
        self.outputs.access_log.tell(&mut self.roster, self.health.board(), clock::now());
        self.deploy.tls.check(&self.deploy.settings.config, &mut self.journal, clock::now());
        let path = self.deploy.settings.config.process.pid_file.as_deref();
        self.outputs.pid_file.retry(path, &mut self.journal, clock::now());
        if may_restart(&self.sockets, &self.takeover) && self.deploy.look_at_root(&mut self.journal, clock::now()) {
            self.restart();
        }
        if may_restart(&self.sockets, &self.takeover) && self.deploy.look_at_files(&mut self.journal, clock::now()) {
            self.restart();
        }
    }

    fn dispatch(&mut self, source: Source) {
        let now = clock::now();
        match source {
            // After all others.
            Source::Signals => {}
            Source::Reports(pid) => self.read_reports(pid),
            Source::Messages(pid) => self.application.inbox.note(pid),
            Source::Notification(pid) => {
                let Parent { programs, roster, discard, wakeups, journal, application, .. } = self;
                let notice = programs.read_notification(pid, roster, discard, wakeups, journal);
                notified(pid, notice, roster, application, journal);
            }
            Source::Successor => self.read_successor(),
            Source::Predecessor if self.takeover.read_predecessor() => self.sockets.own(),
            Source::Predecessor => {}
            Source::QueueWatch => self.sockets.connection_arrived(now),
            Source::Hangups => {
                let mended = self.sockets.look(&self.deploy.settings.config, &mut self.journal, now);
                mended.into_iter().for_each(|event| self.roster.tell(event, now));
            }
            Source::Files => self.deploy.files_changed(&self.wakeups, &mut self.journal),
            Source::Admin => {
                let admin = self.outputs.admin.as_mut();
                admin.into_iter().for_each(|admin| admin.read_reports(&self.wakeups, &mut self.journal));
            }
            Source::AdminLink => self.obey_admin(),
        }
    }

    /// Updates what depends on which workers serve: where new connections go, which worker looks after which queue, and
    /// the reports to the service manager and the admin process.
    fn settle(&mut self) {
        let now = clock::now();
        let are_copied = self.takeover.holds_copies() || are_copies_held(&self.roster, &self.outputs.admin);
        self.sockets.settle(&mut self.roster, &self.wakeups, are_copied, now);
        self.handover.settle(&self.roster, self.health.board(), self.health.counts_time(), now);
        if let Some(admin) = &mut self.outputs.admin {
            admin.observe(&self.roster, &self.sockets, &self.deploy.settings, &mut self.journal);
        }
        self.outputs.settle(&self.roster, &self.health, &self.journal, self.sockets.are_released(), now);
    }

    /// When the next thing is due; `None` when only a signal or a worker can change anything.
    fn deadline(&self) -> Option<Time> {
        let counts_time = self.roster.supervisor.time_out().is_some() || self.health.counts_time();
        let due = [
            counts_time.then(|| clock::now() + TICK),
            self.roster.supervisor.deadline(),
            self.health.deadline(),
            self.sockets.deadline(),
            self.handover.deadline(),
            self.programs.deadline(&self.roster),
            leaving::deadline(&self.roster, clock::now()),
            self.application.deadline(),
            self.deploy.deadline().filter(|_| may_restart(&self.sockets, &self.takeover)),
            self.discard.deadline(),
            Some(self.deploy.tls.deadline()),
            self.journal.deadline(),
            self.outputs.deadline(),
            log_writer::deadline(),
        ];
        due.into_iter().flatten().min()
    }
}

/// Whether a process that was just forked may hold what the fork copied from the parent.
fn are_copies_held(roster: &Roster, admin: &Option<Admin>) -> bool {
    admin.as_ref().is_some_and(Admin::holds_copies) || !roster.are_all_set_up()
}

/// Checks whether the whole pool was frozen until now. The steps after this take no significant time.
fn look_at_clock(wakeups: &mut Wakeups, health: &mut Health, roster: &mut Roster) {
    let now = clock::now();
    let span = wakeups.frozen(now);
    if !span.is_zero() {
        health.frozen(span);
        roster.tell(Event::Frozen(span), now);
    }
}
