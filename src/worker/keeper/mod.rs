//! A worker that runs a program: its *keeper*.
//!
//! Its input: a command, from [`Worker::exec`](crate::Worker::exec); the worker forks a child that executes it, and
//! stays. The lifeline, signals, orders, the program's processes and the clock give events to the plan. Its output:
//! signals to these processes, reports to the parent, and finally the exit status of the program, which the parent
//! takes for the worker's. It does not know the parent.
//!
//! # Files
//!
//! - `plan.rs` (PURE): what happens to the program and to the processes that it has started
//! - `look.rs`: whether one of them waits for connections; `procfs.rs` (PURE): the same by the contents of /proc
//! - `probe.rs`: asks the program by HTTP whether it is ready
//! - `accepted.rs`: which sockets have accepted connections: that of the probe, or any
//! - `tree.rs`: the list of these processes
//! - `output.rs`: their output, line by line with a prefix
//! - `adopt/`: the pool's sockets for programs that bind its addresses
//!
//! # Decisions
//!
//! - **The keeper is a separate process, not the parent**: it reads the program's memory and its files in /proc, which
//!   may block. A program that blocks its keeper only delays itself: the parent kills a keeper that does not obey.
//! - **The keeper is confined**, always: once the program runs, it gives up all system calls that it does not need
//!   (seccomp(2)), so it can start nothing, change no file and listen nowhere, whatever the program makes it read. It
//!   cannot be in a landlock(7) domain: it could then neither read the program's memory nor its files in /proc, since
//!   the program is outside.
//! - **It exits as the program has**, with the same code or signal, so that a program counts like any worker. What else
//!   it knows about the end, it reports like a failing worker.
//! - **All processes end up as children of the keeper**: a process that loses its parent, by a double fork for
//!   instance, gets the keeper as its parent (PR_SET_CHILD_SUBREAPER). So the tree has ended when no child is left.
//! - **All processes are told to finish, not only the first**, since a shell or npm passes nothing on. A server with
//!   its own child processes gets the signal as from Ctrl-C, or from a service manager.
//! - **The program dies with its keeper**, by SIGKILL (PR_SET_PDEATHSIG). The processes that it has started become the
//!   parent's children, which ends them.
//! - **A program is ready when it waits for connections**, not when it was executed, nor when it listens: it may still
//!   load for seconds then. If its queue never ends, it need not wait, and is ready when it has accepted. It is
//!   observed from outside, since tracing its calls would never end: about twenty checks in the first second, of a
//!   third of a millisecond each, and none once it is ready.
//! - **The HTTP probe must reach this program** (`Readiness::Http`). A sibling or the predecessor may accept a
//!   connection to the port. So the request is sent only once the kernel says that a socket of this program has
//!   accepted the connection. If the slot has no other worker, the record `Accepts` makes the parent steer connections
//!   to it meanwhile, since otherwise none would reach it.
//! - **The commands of the pool are not for the program**: SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN and SIGTTOU are passed on
//!   if the parent sends them, for the application, and not if they come from somebody who means the pool.

mod accepted;
mod adopt;
mod look;
mod output;
mod plan;
mod probe;
mod procfs;
mod tree;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use log::{log, warn, Level};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::{kill, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{dup2_stderr, dup2_stdout, getppid, setpgid, Pid};
use std::process::{self, Command};

pub(crate) use self::adopt::check;
use self::adopt::{Adoption, SlotFacts};
use self::look::Backlog;
use self::output::Output;
use self::plan::{Effect, EndReason, Exit, Fact, Observation, Plan, ReadyCheck, Stop};
use self::probe::Probe;
use self::procfs::PoolSocket;
use crate::error::{Error, Result};
use crate::shared::channel::Order;
use crate::shared::config::{Adopt, Readiness, Sandbox, StopSignal};
use crate::shared::log_text::tag;
use crate::sys;
use crate::sys::clock;
use crate::sys::process::Change;
use crate::time::Time;
use crate::worker::{sandbox, Worker};

/// How a worker keeps a program.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeeperOptions {
    pub(crate) ready: Readiness,
    /// The signal that asks it to finish.
    pub(crate) stop_signal: StopSignal,
    /// Whether each line of its output gets a prefix.
    pub(crate) prefix: bool,
    /// Whether it gets the pool's sockets by binding their addresses.
    pub(crate) adopt: Adopt,
    /// Whether another program, an earlier one, may accept from the slot's sockets.
    pub(crate) is_shared: bool,
    /// The socket at which it reports that it is ready.
    pub(crate) notify_socket: Option<OsString>,
}

/// Runs the program, which listens on `sockets`, TCP first, in the order of its descriptors. All signals are blocked.
///
/// # Errors
///
/// If it cannot be run. Nothing has happened then.
pub(super) fn start<'a>(worker: &'a Worker, command: &mut Command, sockets: Vec<OwnedFd>) -> Result<Keeper<'a>> {
    let signals = take_charge()?;
    let pipes = worker.keeper_options().prefix.then(output::pipes).transpose();
    let pipes = pipes.map_err(|source| Error::system("make a pipe for the program's output with pipe(2)", source))?;
    let (ours, theirs) = pipes.unzip();
    let (pid, offer) = launch(worker.keeper_options().adopt, command, &sockets, theirs)?;
    // If the parent has gone, the lifeline has ended, which is noticed at once.
    let _ = worker.lifeline().program(pid);
    let (check, probe) = match &worker.keeper_options().ready {
        Readiness::Auto => (ReadyCheck::Observation, None),
        Readiness::Http(target) => {
            let address = sockets.iter().find_map(|socket| address(socket.as_fd()));
            (ReadyCheck::Answer, address.map(|address| Probe::new(target, address, clock::now())))
        }
        Readiness::Listen | Readiness::Notify | Readiness::Delay(_) => (ReadyCheck::Elsewhere, None),
    };
    let inode = |socket: &OwnedFd| nix::sys::stat::fstat(socket).map_or(0, |found| found.st_ino);
    let station =
        SlotFacts { slot: worker.id(), generation: worker.generation(), is_shared: worker.keeper_options().is_shared };
    let output = ours.map(|pipes| Output::new(pipes, &format!("worker={} pid={pid} ", worker.id())));
    confine(worker, pid, probe.is_some())?;
    Ok(Keeper {
        worker,
        program: Pid::from_raw(pid),
        is_there: true,
        inodes: sockets.iter().map(inode).collect(),
        adoption: Adoption::after(offer, &sockets, station),
        sockets,
        signals,
        output,
        plan: Plan::new(worker.drain_timeout(), check, clock::now()),
        backlog: Backlog::default(),
        probe,
        parent: getppid(),
    })
}

/// Gives up all system calls that a keeper does not need. Its program runs already, and is not affected.
fn confine(worker: &Worker, program: i32, asks: bool) -> Result<()> {
    let Err(source) = sandbox::enter_as_keeper(getppid().as_raw(), asks) else { return Ok(()) };
    let error = Error::system("confine the keeper of a program with seccomp(2) (sandbox)", source);
    if worker.sandbox() == Sandbox::Strict {
        // It dies with this process at the latest.
        let _ = kill(Pid::from_raw(program), Signal::SIGKILL);
        return Err(error);
    }
    // All keepers log the same, so only the first one does at this level.
    let level = if (worker.id(), worker.generation()) == (0, 1) { Level::Info } else { Level::Debug };
    log!(level, "{}: {}; continuing without", worker.tag(), error.report());
    Ok(())
}

/// Leads a process group, gets the orphans of its descendants as children, and reads signals from a descriptor.
fn take_charge() -> Result<SignalFd> {
    // What a terminal or an operator sends to the parent's process group is for the parent to handle.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))
        .map_err(|errno| Error::system("make a process group with setpgid(2)", errno))?;
    set_child_subreaper(true).map_err(|errno| Error::system("take in orphans with prctl(2)", errno))?;
    SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| Error::system("hear of signals with signalfd(2)", errno))
}

/// Forks a child that executes the program. Returns its pid, and what hears of the addresses that it binds.
fn launch(
    adopt: Adopt,
    command: &mut Command,
    sockets: &[OwnedFd],
    output: Option<[OwnedFd; 2]>,
) -> Result<(i32, adopt::ListenerOffer)> {
    let keeper = process::id();
    let prepare = |command: &mut Command, keeper_end: &_| {
        adopt::begin(adopt, keeper_end)?;
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        set_pdeathsig(Signal::SIGKILL)?;
        // The keeper may have died before that call.
        if u32::try_from(getppid().as_raw()) != Ok(keeper) {
            return Err(nix::errno::Errno::ESRCH.into());
        }
        if let Some([stdout, stderr]) = output {
            dup2_stdout(stdout)?;
            dup2_stderr(stderr)?;
        }
        command.env("LISTEN_PID", process::id().to_string());
        sys::signal::as_started()
    };
    let passed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let mut offer = Ok(None);
    let pid = sys::process::launch(command, &passed, Box::new(prepare), |program| {
        offer = adopt::receive_listener(adopt, program)?;
        match &offer {
            Err(_) if adopt == Adopt::Require => Err(io::ErrorKind::Unsupported.into()),
            _ => Ok(()),
        }
    });
    match (pid, &offer) {
        (Ok(pid), _) => Ok((pid, offer)),
        (Err(_), Err(error)) if adopt == Adopt::Require => Err(adopt::refused(error)),
        (Err(source), _) => {
            let path = command.get_program().to_string_lossy().into_owned();
            Err(Error::File { path, action: "execute", source })
        }
    }
}

/// A running program, and what is needed to keep it.
pub(super) struct Keeper<'a> {
    worker: &'a Worker,
    program: Pid,
    /// Whether it was not reaped yet, so its pid and group are its own.
    is_there: bool,
    /// The pool's sockets, until it must finish.
    sockets: Vec<OwnedFd>,
    /// Their inodes, which identify the sockets for which the program waits.
    inodes: Vec<u64>,
    adoption: Option<Adoption>,
    signals: SignalFd,
    output: Option<Output>,
    plan: Plan,
    backlog: Backlog,
    /// Asks it by HTTP whether it is ready; `None` once it is.
    probe: Option<Probe>,
    parent: Pid,
}

impl Keeper<'_> {
    /// Keeps the program until its last process has ended, and exits as the program has.
    pub(super) fn run(mut self) -> ! {
        loop {
            while let Some(effect) = self.plan.poll_effect() {
                match effect {
                    Effect::Tell(stop) => self.tell(stop),
                    Effect::Ready => self.ready(),
                    Effect::Ask => {
                        self.worker.lifeline().accepts();
                        self.probe.iter_mut().for_each(Probe::begin);
                    }
                    Effect::Suspended(is_stopped) => self.worker.lifeline().suspended(is_stopped),
                    Effect::LetGo => self.sockets.clear(),
                    Effect::End { exit, why } => self.end(exit, why),
                }
            }
            if let Err(error) = self.wait() {
                warn!("{} killed: its keeper cannot wait for it: {error}", self.tag());
                self.handle(Fact::Asked(Stop::Kill));
            }
            self.adopt();
            if self.is_queued() {
                self.handle(Fact::Queued);
            }
            self.read_lifeline();
            self.reap();
            let now = clock::now();
            if self.plan.next_look().is_some_and(|at| at <= now) {
                self.backlog.note(&self.sockets, self.worker.keeper_options().is_shared);
                self.handle(Fact::Observed(self.observe()));
            }
            self.ask(now);
            if let Some(output) = &mut self.output {
                output.pass_on(clock::now());
            }
            self.handle(Fact::Tick { has_parent: getppid() == self.parent });
        }
    }

    /// Goes on asking the program whether it is ready.
    fn ask(&mut self, now: Time) {
        let Some(probe) = &mut self.probe else { return };
        let is_ready = probe.advance(now);
        if let Some(status) = probe.news() {
            self.worker.lifeline().answered(status);
        }
        if is_ready {
            self.handle(Fact::Answered);
        }
    }

    fn tag(&self) -> String {
        tag(self.worker.id(), self.worker.generation(), self.program.as_raw())
    }

    fn ready(&mut self) {
        let tag = self.tag();
        if let Some(adoption) = &mut self.adoption {
            adoption.ready(&tag);
        }
        self.remark();
        self.probe = None;
        // Nobody waits for this if the parent is gone.
        let _ = self.worker.lifeline().ready();
    }

    /// Answers the calls of the program that wait for it.
    fn adopt(&mut self) {
        let tag = self.tag();
        let Some(adoption) = &mut self.adoption else { return };
        adoption.attend(&self.sockets, &self.inodes, &tag);
        self.remark();
    }

    fn remark(&mut self) {
        let remarks = self.adoption.as_mut().map(Adoption::take_remarks).unwrap_or_default();
        remarks.into_iter().for_each(|remark| self.worker.lifeline().remark(remark));
    }

    /// The sockets for which the program may wait.
    fn sought(&self) -> Vec<PoolSocket> {
        let unused = |index| self.adoption.as_ref().and_then(|adoption| adoption.unused(index));
        self.inodes
            .iter()
            .enumerate()
            .map(|(index, inode)| PoolSocket { inode: *inode, unused: unused(index) })
            .collect()
    }

    fn handle(&mut self, fact: Fact) {
        self.plan.handle(fact, clock::now());
    }

    fn tell(&self, stop: Stop) {
        let signal = match stop {
            Stop::Finish => self.stop_signal(),
            Stop::Quick => Signal::SIGINT,
            Stop::Kill => Signal::SIGKILL,
        };
        tree::signal(self.is_there.then_some(self.program), signal);
    }

    /// The signal that asks the program to finish.
    fn stop_signal(&self) -> Signal {
        match self.worker.keeper_options().stop_signal {
            StopSignal::Term => Signal::SIGTERM,
            StopSignal::Quit => Signal::SIGQUIT,
            StopSignal::Int => Signal::SIGINT,
            StopSignal::Hup => Signal::SIGHUP,
            StopSignal::Usr1 => Signal::SIGUSR1,
            StopSignal::Usr2 => Signal::SIGUSR2,
            StopSignal::Winch => Signal::SIGWINCH,
        }
    }

    /// Waits until something has happened or is due.
    fn wait(&self) -> io::Result<()> {
        let lifeline = self.worker.lifeline();
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(lifeline.orders_source().as_fd(), PollFlags::POLLIN),
        ];
        if !self.plan.is_told() {
            fds.push(PollFd::new(lifeline.stream().as_fd(), PollFlags::POLLIN));
        }
        let calls = self.adoption.as_ref().and_then(Adoption::source);
        fds.extend(calls.map(|calls| PollFd::new(calls, PollFlags::POLLIN)));
        let pipes = self.output.iter().flat_map(Output::pipes);
        fds.extend(pipes.map(|pipe| PollFd::new(pipe, PollFlags::POLLIN)));
        fds.extend(self.queues());
        let probe = self.probe.as_ref();
        fds.extend(probe.and_then(Probe::source).map(|stream| PollFd::new(stream, PollFlags::POLLIN)));
        let due = self
            .plan
            .deadline()
            .into_iter()
            .chain(probe.and_then(Probe::deadline))
            .chain(self.output.as_ref().and_then(Output::deadline))
            .min();
        match poll(&mut fds, poll_timeout(due, clock::now())) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The pool's sockets, while it matters whether connections wait.
    fn queues(&self) -> impl Iterator<Item = PollFd<'_>> {
        let sockets = self.sockets.iter().filter(|_| self.plan.watches_queues());
        sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
    }

    fn is_queued(&self) -> bool {
        is_any_readable(self.queues().collect())
    }

    fn observe(&self) -> Observation {
        let queues = || self.sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        let listeners = || self.sockets.iter().filter_map(|it| address(it.as_fd())).collect::<Vec<_>>();
        let has_accepted = || look::has_accepted(&listeners(), || self.is_asked());
        match look::look(&self.sought()) {
            Observation::Holds if is_any_readable(queues()) && has_accepted() => Observation::WaitingCall,
            Observation::Nothing if self.backlog.was_accepted => Observation::Closed,
            observation => observation,
        }
    }

    /// Whether the parent or somebody else wants something, so that nothing else may take long.
    fn is_asked(&self) -> bool {
        let lifeline = self.worker.lifeline();
        let sources = [lifeline.orders_source().as_fd(), lifeline.stream().as_fd(), self.signals.as_fd()];
        is_any_readable(sources.map(|source| PollFd::new(source, PollFlags::POLLIN)).into())
    }

    /// Handles the requests of the parent and of others.
    fn read_lifeline(&mut self) {
        if !self.plan.is_told() && self.worker.is_over().unwrap_or(true) {
            self.handle(Fact::Asked(Stop::Finish));
        }
        while let Some(order) = self.worker.lifeline().order() {
            if let Order::End = order {
                self.handle(Fact::Asked(Stop::Kill));
            }
        }
        while let Ok(Some(info)) = self.signals.read_signal() {
            let Some(signal) = i32::try_from(info.ssi_signo).ok().and_then(|it| Signal::try_from(it).ok()) else {
                continue;
            };
            let from_parent = u32::try_from(self.parent.as_raw()) == Ok(info.ssi_pid);
            self.signalled(signal, from_parent);
        }
    }

    fn signalled(&mut self, signal: Signal, from_parent: bool) {
        match signal {
            Signal::SIGTERM => self.handle(Fact::Asked(Stop::Finish)),
            Signal::SIGINT => self.handle(Fact::Asked(Stop::Quick)),
            Signal::SIGCHLD | Signal::SIGPIPE => {}
            Signal::SIGHUP | Signal::SIGUSR1 | Signal::SIGUSR2 | Signal::SIGTTIN | Signal::SIGTTOU if !from_parent => {}
            signal if self.is_there => _ = kill(self.program, signal),
            _ => {}
        }
    }

    fn reap(&mut self) {
        loop {
            match sys::process::next_change() {
                Ok(Some((pid, change))) if pid == self.program.as_raw() => match change {
                    Change::Stopped => self.handle(Fact::Suspended(true)),
                    Change::Resumed => self.handle(Fact::Suspended(false)),
                    Change::Exited(code) => self.gone(Exit::Code(code)),
                    Change::Killed { signal, core_dumped } => self.gone(Exit::Signal { signal, core_dumped }),
                },
                // The sender has gone.
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.handle(Fact::Childless),
            }
        }
    }

    fn gone(&mut self, exit: Exit) {
        self.is_there = false;
        self.handle(Fact::Exited(exit));
        if !tree::descendants().is_empty() {
            self.plan.left_behind();
        }
    }

    fn end(&mut self, exit: Exit, why: Option<EndReason>) -> ! {
        if let Some(output) = self.output.take() {
            output.end();
        }
        let unanswered = self.probe.take().and_then(|probe| probe.problem());
        let elsewhere = match why {
            Some(EndReason::Early | EndReason::NotWaiting) => {
                self.adoption.as_ref().and_then(|adoption| adoption.why_not(why == Some(EndReason::Early)))
            }
            _ => None,
        };
        let why = unanswered.or(elsewhere).or_else(|| why.map(|why| why.text().to_owned()));
        if let Some(why) = why {
            self.worker.lifeline().failed(&why);
        }
        match exit {
            Exit::Code(code) => sys::process::exit(code),
            Exit::Signal { signal, .. } => sys::signal::end_by(signal),
        }
    }
}

fn is_any_readable(mut sockets: Vec<PollFd<'_>>) -> bool {
    !sockets.is_empty() && poll(&mut sockets, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

/// Where a TCP socket listens.
fn address(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    socket2::SockRef::from(&socket).local_addr().ok()?.as_socket()
}

/// How long poll(2) may wait.
fn poll_timeout(due: Option<Time>, now: Time) -> PollTimeout {
    let Some(due) = due else { return PollTimeout::NONE };
    PollTimeout::try_from(due.since(now)).unwrap_or(PollTimeout::MAX)
}
