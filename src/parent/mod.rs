//! The parent's loop: wait for signals and lifelines, tell the supervisor, perform its effects.
//!
//! In come signals, exits, what workers report and what the application and the admin process ask for; out go forks,
//! signals, orders and facts. It waits without a time-out unless something is due: an idle pool does not wake it. It
//! may not know HTTP, nor accept a connection, nor wait for anybody, nor believe what a worker says without a check.
//!
//! # Files
//!
//! **The loop.** `mod.rs`, and the steps that need several of those below:
//!
//! - `start.rs`: what is there before the first worker
//! - `spawn.rs`: what a worker starts with, and what follows its fork
//! - `reports.rs`, `messages.rs`: what workers report, and what they send the application
//! - `workers.rs`: what becomes of workers, and who is told
//! - `requests.rs`: what signals, the application and admin clients ask for
//! - `effects.rs`: what the supervisor wants done, and has to say
//! - `upgrade.rs`: handing over to a new binary, and taking over from an old one
//!
//! **Who owns what.** Each begins with what it owns, and what goes in and comes out:
//!
//! - `roster.rs`: PURE. who is where: processes by pid, slot and row; `process.rs`: one of them, with its descriptors
//! - `supervisor/`: PURE. what should run: Event in, Effect out; reconcile.rs: slots towards what is wanted;
//!   failure.rs: what counts as one; policy.rs: backoff; seeded simulation
//! - `wakeups.rs`: what it waits on; source.rs (PURE): what each token means
//! - `sockets/`: the addresses, the slots' sockets, and who looks after whose queue
//! - `health.rs`: who hangs, who grows; watch.rs (PURE): who stalls, and when to look
//! - `programs.rs`: workers that keep other programs; sign.rs: one program; notify.rs: the sockets on which programs say
//!   that they are ready; orphans.rs: what a program leaves whose keeper was killed
//! - `application.rs`: the application's closures; inbox.rs: messages that were not read yet; quota.rs (PURE): what
//!   reading them may cost; `event.rs`, `handle.rs`, `target.rs`: what it is told, and may ask for
//! - `deploy/`: restarts that somebody asks for, and what they read anew; files.rs: those that changed files ask for;
//!   debounce.rs (PURE): when these are whole; exchange.rs (PURE): when the root is another; `settings.rs`: those of now
//! - `takeover.rs`: the pools before and behind this one; `successor/`: how sockets go to a new binary, both ends;
//!   variable.rs (PURE): what the variable says
//! - `discard.rs`: how what workers have passed is closed
//! - `journal.rs`: what it says, and what it knows of failures; announce.rs: in which words; repeats.rs (PURE): how often
//! - `outputs.rs`: what the pool is for the system around it: service.rs, pid_file.rs, access_log.rs
//! - `admin.rs`: the admin process
//! - `reap.rs`: what waitpid(2) says
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
mod application;
mod deploy;
mod discard;
mod effects;
pub(crate) mod event;
pub(crate) mod handle;
mod health;
mod inbox;
mod journal;
mod messages;
pub(crate) mod notify;
mod orphans;
mod outputs;
pub(crate) mod pid_file;
mod process;
mod programs;
mod quota;
pub(crate) mod reap;
mod repeats;
mod reports;
mod requests;
pub(crate) mod roster;
pub(crate) mod service;
mod settings;
mod sign;
mod sockets;
mod source;
mod spawn;
mod start;
pub(crate) mod successor;
pub(crate) mod supervisor;
mod takeover;
pub(crate) mod target;
mod upgrade;
mod wakeups;
pub(crate) mod watch;
mod workers;

use mio::Events;

use self::admin::Admin;
use self::application::Application;
use self::deploy::Deploy;
use self::discard::Discard;
use self::health::Health;
use self::journal::Journal;
use self::outputs::Outputs;
use self::process::Roster;
use self::programs::{Notice, Programs};
use self::sockets::Sockets;
use self::source::Source;
pub(crate) use self::spawn::Child;
use self::supervisor::{Event, Pid, Recycle};
use self::takeover::Takeover;
use self::wakeups::Wakeups;
use self::workers::ready;
use crate::error::Result;
use crate::shared::log_writer;
use crate::sys::clock;
use crate::time::{Time, BEAT};

/// What the pool's owner is to do next.
pub(crate) enum Turn {
    /// Fork a process from this, then call [`Parent::forked`] or [`Parent::fork_failed`].
    Fork(Child),
    /// The pool has ended.
    Finished(Result<()>),
}

/// The parent of a pool: a loop over those who each own a part of what it knows. Dropping it in a worker closes what a
/// worker must not hold and has no other effect.
#[derive(Debug)]
pub(crate) struct Parent {
    /// Who is where, and what should run.
    roster: Roster,
    wakeups: Wakeups,
    sockets: Sockets,
    health: Health,
    programs: Programs,
    application: Application,
    deploy: Deploy,
    takeover: Takeover,
    discard: Discard,
    journal: Journal,
    outputs: Outputs,
    /// The process that shows the pool, and controls it.
    admin: Option<Admin>,
}

impl Parent {
    /// Does everything but forking, until a fork is due or the pool has ended.
    pub(crate) fn turn(&mut self) -> Result<Turn> {
        let mut events = Events::with_capacity(64);
        loop {
            self.obey_application();
            let (board, user) = (self.health.board(), &self.deploy.settings.credentials);
            let admin = self.admin.as_mut();
            if let Some(child) = admin.and_then(|admin| admin.child_due(board.scoreboard(), user, clock::now())) {
                return Ok(Turn::Fork(child));
            }
            // Before a fork: it takes longer than to lead connections away from a dead worker.
            self.settle();
            while let Some(effect) = self.roster.poll_effect() {
                if let Some(turn) = self.perform(effect) {
                    return Ok(turn);
                }
                self.obey_application();
                self.settle();
            }
            // What the parent did since it woke may have been interrupted as well.
            self.look_at_clock();
            let until = self.deadline();
            let Some(sources) = self.wakeups.wait(until, &mut events)? else { continue };
            self.look_at_clock();
            // Lifelines first: what a worker said came before its exit.
            for source in sources {
                self.hear_from(source);
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

    /// Does what is due whoever has woken the parent.
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
        if self.admin.as_ref().is_some_and(Admin::is_behind) {
            self.obey_admin();
        }
        self.read_messages();
        self.application.tell_time(&self.roster, &self.journal, clock::now());
        self.obey_application();
        for pid in self.programs.take_due(&mut self.roster, clock::now()) {
            ready(pid, &mut self.roster, &mut self.application, &mut self.journal);
        }
        self.programs.end_late_keepers(&self.roster, clock::now());
        self.journal.say_what_was_left_out();
        log_writer::tell_lost(clock::now());
        self.discard.close(self.are_copies_held(), clock::now());
        for pid in self.programs.take_unread(&self.discard) {
            self.look_for_sign(pid);
        }
        self.outputs.access_log.tell(&mut self.roster, self.health.board(), clock::now());
        let path = self.deploy.settings.config.pid_file.as_deref();
        self.outputs.pid_file.retry(path, &mut self.journal, clock::now());
        if self.may_restart() && self.deploy.look_at_root(&mut self.journal, clock::now()) {
            self.restart();
        }
        if self.may_restart() && self.deploy.look_at_files(&mut self.journal, clock::now()) {
            self.restart();
        }
    }

    fn hear_from(&mut self, source: Source) {
        let now = clock::now();
        match source {
            // After all others.
            Source::Signals => {}
            Source::Reports(pid) => self.hear(pid),
            Source::Messages(pid) => self.application.inbox.note(pid),
            Source::Sign(pid) => self.look_for_sign(pid),
            Source::Successor => self.hear_successor(),
            Source::Predecessor if self.takeover.hear_predecessor() => self.sockets.own(),
            Source::Predecessor => {}
            Source::Attention => self.sockets.begin_attending(now),
            Source::Hangups => {
                let mended = self.sockets.look(&self.deploy.settings.config, &mut self.journal, now);
                mended.into_iter().for_each(|event| self.roster.tell(event, now));
            }
            Source::Files => self.deploy.hear_of_files(&self.wakeups, &mut self.journal),
            Source::Admin => {
                let admin = self.admin.as_mut();
                admin.into_iter().for_each(|admin| admin.hear(&self.wakeups, &mut self.journal));
            }
            Source::AdminLink => self.obey_admin(),
        }
    }

    /// Somebody has sent a program's socket a notification.
    fn look_for_sign(&mut self, pid: Pid) {
        let Parent { programs, roster, discard, wakeups, journal, application, .. } = self;
        match programs.hear(pid, roster, discard, wakeups, journal) {
            Notice::Nothing => {}
            Notice::Ready => ready(pid, roster, application, journal),
            Notice::TooMany => {
                roster.misbehaved(pid, "it sent too many notifications".to_owned(), clock::now());
            }
        }
    }

    /// Draws the conclusions from who serves: where new connections go, who looks after whose queue, what is told to the
    /// service manager and to the admin process.
    fn settle(&mut self) {
        let (now, are_copied) = (clock::now(), self.are_copies_held());
        self.sockets.settle(&mut self.roster, self.wakeups.poll(), are_copied, now);
        if let Some(admin) = &mut self.admin {
            admin.observe(&self.roster, &self.sockets, &self.deploy.settings, &mut self.journal);
        }
        self.outputs.settle(&self.roster, &self.health, &self.journal, self.sockets.are_released(), now);
    }

    /// Whether a process that was just forked may hold what the fork copied of the parent's.
    fn are_copies_held(&self) -> bool {
        self.admin.as_ref().is_some_and(Admin::holds_copies) || !self.roster.are_all_set_up()
    }

    /// Sees whether the whole pool was frozen until now. What is done next takes no time to speak of.
    fn look_at_clock(&mut self) {
        let now = clock::now();
        let span = self.wakeups.frozen(now);
        if !span.is_zero() {
            self.health.frozen(span);
            self.roster.tell(Event::Frozen(span), now);
        }
    }

    /// When the next thing is due; `None` when only a signal or a worker can change anything.
    fn deadline(&self) -> Option<Time> {
        let counts_time = self.roster.supervisor.time_out().is_some() || self.health.counts_time();
        let due = [
            counts_time.then(|| clock::now() + BEAT),
            self.roster.supervisor.deadline(),
            self.health.deadline(),
            self.sockets.deadline(),
            self.programs.deadline(&self.roster),
            self.application.deadline(),
            self.deploy.deadline().filter(|_| self.may_restart()),
            self.discard.deadline(),
            self.journal.deadline(),
            self.outputs.deadline(),
            log_writer::deadline(),
            self.admin.as_ref().and_then(Admin::deadline),
        ];
        due.into_iter().flatten().min()
    }
}
