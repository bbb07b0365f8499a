//! PURE. The events that the supervisor handles, and the effects that it asks for.

use std::fmt;
use std::time::Duration;

/// A slot of the pool, numbered from 0.
pub(crate) type SlotId = usize;

/// The pid of a process. A pid is reused only after its process was reaped, which is [`Event::Exited`], so one pid
/// never stands for two processes here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pid(pub(crate) i32);

/// An event for the supervisor. An event about an unknown pid, or one that repeats another, changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// [`Effect::Spawn`] was performed. Must precede all other events about the pid.
    Spawned { slot: SlotId, pid: Pid },
    /// [`Effect::Spawn`] failed.
    SpawnFailed { slot: SlotId },
    /// The parent has copies of the process's listening sockets.
    Listening { pid: Pid },
    /// It is ready to serve.
    Ready { pid: Pid },
    /// It has been busy past its deadline.
    Stalled { pid: Pid },
    /// It broke the protocol between workers and parent.
    Misbehaved { pid: Pid },
    /// A signal (such as SIGSTOP) has stopped it, so it serves nobody.
    Suspended { pid: Pid },
    /// It runs again.
    Resumed { pid: Pid },
    /// It has reached a limit, and must be replaced when there is time.
    Recycle { pid: Pid, why: Recycle },
    /// The application wants it to finish, and its slot to get a replacement.
    Disconnected { pid: Pid },
    /// It asks to finish, and its slot must get a replacement.
    Leaves { pid: Pid },
    /// It was reaped. The other fields matter if it had not been told to finish. `has_served` says whether it has
    /// accepted a connection, as far as that is known; `respawn` is what the application wants for its slot.
    Exited { pid: Pid, exit: Exit, has_served: bool, respawn: Respawn },
    /// Replace every worker that runs now, a few at a time.
    Restart,
    /// Start an upgrade.
    Upgrade,
    /// [`Effect::Upgrade`] was performed.
    SuccessorSpawned { pid: Pid },
    /// All workers of the new binary are ready.
    SuccessorReady,
    /// The new binary could not be started, in which case `exit` is `None`, or it was reaped.
    SuccessorGone { exit: Option<Exit> },
    /// Change to this number of workers, at least one.
    Scale { workers: usize },
    /// A request to stop the pool. Requests soon after the first count as the same request, with the strongest of their
    /// modes. Any later request forces the stop; see [`Supervisor::escalation`](super::Supervisor::escalation).
    Stop(Stop),
    /// Neither workers nor the parent could run for this time. It counts for the age of workers, but for no timeout.
    Frozen(Duration),
    /// Time has passed. Only this event makes timeouts expire. The parent's loop sends it last in a turn, so a worker
    /// whose readiness waits to be read is never killed, not even after the machine was suspended.
    Tick,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal { signal: i32, core_dumped: bool },
}

/// What happens to the slot of a worker that exited without being told to. Returned by the policy of
/// [`Builder::on_exit`](crate::Builder::on_exit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Respawn {
    /// As without a policy: restart at once after a worker that has served (it was ready, and accepted a connection or
    /// lived for a second). Otherwise wait, and longer after each such failure in a row.
    #[default]
    Backoff,
    /// Restart at once, but start no slot twice within 30 ms.
    Now,
    /// Restart after this delay, even if no worker is left meanwhile.
    After(Duration),
    /// Leave the slot empty until a restart, or until [`Handle::scale`](crate::Handle::scale) is called with any
    /// number. The same as `Backoff` if the slot has another worker, as during a rolling restart.
    Never,
    /// Drain the pool, as [`Handle::stop`](crate::Handle::stop) does.
    Stop,
}

/// How to stop; a greater value is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// Finish the requests in progress.
    Drain,
    /// Exit now.
    Quick,
    /// Kill.
    Force,
}

/// Why a healthy worker is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recycle {
    Requests,
    Age,
    Memory,
    /// One of its listening sockets gets no connections any more.
    Socket,
}

impl Recycle {
    /// Whether the worker itself has asked for it, so that its own report is the only evidence.
    pub(super) fn is_requested(self) -> bool {
        matches!(self, Recycle::Requests | Recycle::Socket)
    }
}

/// What the parent must do. No effect on a process is returned after the process was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Fork a worker. The result is [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn {
        slot: SlotId,
        generation: u64,
    },
    /// Ask it to finish its requests.
    Drain {
        pid: Pid,
    },
    /// Ask it to exit now.
    Quit {
        pid: Pid,
    },
    /// Let it run again, which a signal has stopped.
    Resume {
        pid: Pid,
    },
    /// Make it log a backtrace and die.
    Abort {
        pid: Pid,
    },
    Kill {
        pid: Pid,
        why: KillReason,
    },
    /// The slot was removed by scaling and none of its processes is alive, so its sockets may be closed. A later slot
    /// with the same number is a new one.
    Retire {
        slot: SlotId,
    },
    /// The pool is about to drain. From now on the workers hold the last copies of all sockets.
    ReleaseSockets,
    /// Start the new binary. The result is [`Event::SuccessorSpawned`] or [`Event::SuccessorGone`].
    Upgrade,
    /// End the new binary.
    EndSuccessor {
        pid: Pid,
        how: Stop,
    },
    /// Something to log.
    Notice(Notice),
    /// No process is left, and none will be started. The last effect, returned once.
    Finish(Outcome),
}

/// Why a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillReason {
    /// It was not ready in time.
    BootTimeout,
    /// A signal had stopped it before it was ready, and it did not go on.
    Suspended,
    /// It did not finish draining in time.
    DrainTimeout,
    /// It did not exit in time.
    QuickTimeout,
    Stalled,
    /// It broke the protocol.
    Misbehaved,
    /// The pool is stopped by force.
    Forced,
}

/// What an operator may want to know and only the supervisor knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// For the first time, every slot has a ready worker.
    AllReady {
        workers: usize,
    },
    /// This number of workers of the slot failed in a row without serving. The slot is started again after the delay,
    /// or slightly later if other slots are in the same state.
    BackingOff {
        slot: SlotId,
        delay: Duration,
        failures: u32,
    },
    /// The slot failed as many times in a row as the policy allows; the pool drains.
    GaveUp {
        slot: SlotId,
        failures: u32,
        reason: Failure,
    },
    /// The slot is not started again, at the application's request.
    LeftEmpty {
        slot: SlotId,
    },
    /// Every slot was left empty; the pool ends.
    AllLeftEmpty,
    RestartBegun,
    /// A restart was requested during a restart, which now also replaces the workers that it has already started.
    RestartExtended,
    RestartDone,
    /// The slot's new worker failed before it was ready. Workers that were not replaced yet stay.
    RestartAborted {
        slot: SlotId,
        reason: Failure,
    },
    Scaled {
        from: usize,
        to: usize,
    },
    /// A worker failed without serving, before every wanted slot had served for a while. The number of workers wanted
    /// does not change, and the slot is retried. Reported once for each scaling.
    ScalingFailed {
        slot: SlotId,
        wanted: usize,
        reason: Failure,
    },
    /// A worker is replaced because of its limits.
    Recycling {
        slot: SlotId,
        why: Recycle,
    },
    /// The replacement failed. The worker stays, and is replaced after the delay.
    RecyclingFailed {
        slot: SlotId,
        reason: Failure,
        delay: Duration,
    },
    /// A signal has stopped the slot's worker, which is replaced.
    Replacing {
        slot: SlotId,
    },
    /// The drain begins after this delay.
    LameDuck {
        delay: Duration,
    },
    UpgradeBegun,
    UpgradeDone {
        pid: Pid,
    },
    /// The upgrade failed, for this reason; the pool goes on.
    UpgradeFailed {
        reason: UpgradeFailure,
    },
    /// Refused, because an upgrade is in progress.
    UpgradeInTheWay,
}

/// Why an upgrade failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpgradeFailure {
    Spawn,
    Exit(Exit),
    Late,
}

/// How a worker failed that was not told to finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Spawn,
    Exit(Exit),
    Kill(KillReason),
}

/// The state of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PoolState {
    /// Some slot has never had a ready worker.
    Starting,
    /// It serves.
    Serving,
    /// A rolling restart is in progress.
    Restarting,
    /// A new binary is being started.
    Upgrading,
    /// Still serving, but load balancers should send no new connections, since the drain will begin soon.
    LameDuck,
    /// Draining, or ending.
    Stopping,
}

/// The state in words, as the status shows it: `serving`, `lame duck`.
impl fmt::Display for PoolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PoolState::Starting => "starting",
            PoolState::Serving => "serving",
            PoolState::Restarting => "restarting",
            PoolState::Upgrading => "upgrading",
            PoolState::LameDuck => "lame duck",
            PoolState::Stopping => "stopping",
        })
    }
}

/// How the pool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// On request.
    Stopped,
    /// No worker was ever ready, and every slot has failed; `last` is the latest failure.
    BootFailed { last: Failure },
    /// The slot failed as many times in a row as the policy allows.
    GaveUp { slot: SlotId, failures: u32, last: Failure },
    /// A new binary has taken over.
    Replaced,
}

impl Effect {
    /// The process that the effect concerns.
    pub(super) fn pid(&self) -> Option<Pid> {
        match *self {
            Effect::Drain { pid } | Effect::Quit { pid } | Effect::Abort { pid } | Effect::Kill { pid, .. } => {
                Some(pid)
            }
            Effect::EndSuccessor { pid, .. } | Effect::Resume { pid } => Some(pid),
            Effect::Spawn { .. } | Effect::Retire { .. } | Effect::Notice(_) | Effect::Finish(_) => None,
            Effect::ReleaseSockets | Effect::Upgrade => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Spawn => f.write_str("could not be forked"),
            Failure::Exit(exit) => exit.fmt(f),
            Failure::Kill(why) => write!(f, "was killed: {why}"),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with code {code}"),
            Exit::Signal { signal, core_dumped: false } => write!(f, "died of signal {signal}"),
            Exit::Signal { signal, core_dumped: true } => write!(f, "died of signal {signal} (core dumped)"),
        }
    }
}

impl fmt::Display for KillReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KillReason::BootTimeout => "not ready within the boot timeout",
            KillReason::Suspended => "stopped by a signal before it was ready",
            KillReason::DrainTimeout => "not drained within the drain timeout",
            KillReason::QuickTimeout => "still there after a quick stop",
            KillReason::Stalled => "stalled",
            KillReason::Misbehaved => "it did what no worker may",
            KillReason::Forced => "stopped by force",
        })
    }
}
