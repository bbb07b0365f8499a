//! PURE. What the supervisor is told, and what it says.

use std::fmt;
use std::time::Duration;

/// A place in the pool, numbered from 0.
pub(crate) type SlotId = usize;

/// The name of a process. Only a reaped process's pid can be used again, and reaping is [`Event::Exited`], so one pid
/// is never two processes here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pid(pub(crate) i32);

/// A fact for the supervisor. One about a pid it does not know, or told twice, changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// [`Effect::Spawn`] was performed. To be told before anything else about the pid.
    Spawned { slot: SlotId, pid: Pid },
    /// [`Effect::Spawn`] could not be performed.
    SpawnFailed { slot: SlotId },
    /// Its listening sockets are in the parent's custody.
    Listening { pid: Pid },
    /// It is ready to serve.
    Ready { pid: Pid },
    /// It has been busy past its deadline.
    Stalled { pid: Pid },
    /// It has said or sent what no worker may.
    Misbehaved { pid: Pid },
    /// A signal has stopped it (SIGSTOP and its like), so that it serves nobody.
    Suspended { pid: Pid },
    /// It runs again.
    Resumed { pid: Pid },
    /// It has had its share of work or memory, and is to be replaced when there is time.
    Recycle { pid: Pid, why: Recycle },
    /// It is to leave, and its slot to get another worker: the application wants it.
    Disconnected { pid: Pid },
    /// It wants to leave by itself, and its slot is to get another worker.
    Leaves { pid: Pid },
    /// It was reaped; the rest counts if it had not been told to leave. `has_served` says that it has accepted a
    /// connection, as far as that is known; `respawn` is what the application wants for its slot.
    Exited { pid: Pid, exit: Exit, has_served: bool, respawn: Respawn },
    /// Replace every worker that runs now, a few at a time.
    Restart,
    /// Have a new binary take over.
    Upgrade,
    /// [`Effect::Upgrade`] was performed.
    SuccessorSpawned { pid: Pid },
    /// All workers of the new binary are ready.
    SuccessorReady,
    /// The new binary could not be started, or was reaped; `exit` is None in the first case.
    SuccessorGone { exit: Option<Exit> },
    /// Have this many workers, and at least one.
    Scale { workers: usize },
    /// Somebody asks that the pool ends. Requests soon after the first are one with it, at the firmest of them; any later
    /// one forces: see [`Supervisor::heeds`](super::Supervisor::heeds).
    Stop(Stop),
    /// For so long nobody could run, neither workers nor parent. It counts for no timeout, but for the age of workers.
    Frozen(Duration),
    /// Time has passed. Only this judges timeouts: told last in a turn of the parent's loop, it never kills a worker
    /// whose readiness waits to be read, not even after the machine was suspended.
    Tick,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal { signal: i32, core_dumped: bool },
}

/// What happens to the slot of a worker that exited without being told to: the answer of
/// [`Builder::on_exit`](crate::Builder::on_exit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Respawn {
    /// As without a policy of your own: restart at once after a worker that has served (it was ready, and has accepted
    /// a connection or lived for a second), else after a delay that grows with each such failure in a row.
    #[default]
    Backoff,
    /// Restart at once; but no slot is started twice within 30 ms.
    Now,
    /// Restart after this delay, even if no worker is left meanwhile.
    After(Duration),
    /// Leave the slot empty until a restart, or until [`Handle::scale`](crate::Handle::scale) with any number. While
    /// the slot has another worker, as during a rolling restart, the same as `Backoff`.
    Never,
    /// Drain the pool, as [`Handle::stop`](crate::Handle::stop) does.
    Stop,
}

/// How to stop, the firmer the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// Finish what has begun.
    Drain,
    /// End now, by yourself.
    Quick,
    /// Be killed.
    Force,
}

/// Why a healthy worker is replaced by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recycle {
    Requests,
    Age,
    Memory,
    /// Nothing reaches it by a socket of its own any more.
    Socket,
}

impl Recycle {
    /// Whether nobody knows it but by the worker's word.
    pub(super) fn is_own_word(self) -> bool {
        matches!(self, Recycle::Requests | Recycle::Socket)
    }
}

/// What the parent has to do. An effect on a process is never given out after the process was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Fork a worker; answered by [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn {
        slot: SlotId,
        generation: u64,
    },
    /// Ask it to finish what it has.
    Drain {
        pid: Pid,
    },
    /// Ask it to end now.
    Quit {
        pid: Pid,
    },
    /// Have it say where it hangs, and die.
    Abort {
        pid: Pid,
    },
    Kill {
        pid: Pid,
        why: KillReason,
    },
    /// The slot was scaled away and no process of it lives: its sockets may be closed. A slot that later gets the same
    /// number is a new one.
    Retire {
        slot: SlotId,
    },
    /// The pool is about to drain: from now on the workers hold the last copies of all sockets.
    LetGo,
    /// Start the new binary; answered by [`Event::SuccessorSpawned`] or [`Event::SuccessorGone`].
    Upgrade,
    /// Have the new binary end.
    EndSuccessor {
        pid: Pid,
        how: Stop,
    },
    /// A fact worth a log line.
    Notice(Notice),
    /// No process is left, and none will be started. The last effect, given once.
    Finish(Outcome),
}

/// Why a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillReason {
    /// It was not ready in time.
    BootTimeout,
    /// It did not drain in time.
    DrainTimeout,
    /// It did not quit in time.
    QuickTimeout,
    Stalled,
    /// It has said or sent what no worker may.
    Misbehaved,
    /// The pool is stopped by force.
    Forced,
}

/// What an operator may want to know, and the supervisor alone knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Every slot has a ready worker, for the first time.
    AllReady {
        workers: usize,
    },
    /// This many workers of the slot in a row never served; it is started again after the delay, or a little later when
    /// other slots are in the same state.
    BackingOff {
        slot: SlotId,
        delay: Duration,
        failures: u32,
    },
    /// The slot failed as often in a row as the policy allows: the pool drains.
    GaveUp {
        slot: SlotId,
        failures: u32,
        reason: Failure,
    },
    /// The slot is not started again, as the application wants it.
    LeftEmpty {
        slot: SlotId,
    },
    /// Every slot was left empty: the pool ends.
    AllLeftEmpty,
    RestartBegun,
    /// A restart was asked for while one runs, which now also replaces the workers that it has started before.
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
    /// A worker failed and never served before every wanted slot had served for a while. As many workers are wanted
    /// still, and the slot is tried again. Said once for each scaling.
    ScalingFailed {
        slot: SlotId,
        wanted: usize,
        reason: Failure,
    },
    /// A worker is replaced because of its own limits.
    Recycling {
        slot: SlotId,
        why: Recycle,
    },
    /// Its replacement failed; the worker stays, and is tried again after the delay.
    RecyclingFailed {
        slot: SlotId,
        reason: Failure,
        delay: Duration,
    },
    /// A signal has stopped the slot's worker, which is replaced.
    Replacing {
        slot: SlotId,
    },
    /// Stopping begins after this long.
    LameDuck {
        delay: Duration,
    },
    UpgradeBegun,
    UpgradeDone {
        pid: Pid,
    },
    /// This pool stays; why the new one did not take over.
    UpgradeFailed {
        reason: UpgradeFailure,
    },
    /// Not done, since an upgrade is under way.
    UpgradeInTheWay,
}

/// Why a new binary did not take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpgradeFailure {
    Spawn,
    Exit(Exit),
    Late,
}

/// What went wrong with a worker that was not told to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Spawn,
    Exit(Exit),
    Kill(KillReason),
}

/// What a pool is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PoolState {
    /// Some slot has never had a ready worker.
    Starting,
    /// It serves.
    Serving,
    /// A rolling restart is under way.
    Restarting,
    /// A new binary is being started.
    Upgrading,
    /// It serves, but is to be given no new connections, since it will drain soon.
    LameDuck,
    /// It drains, or ends.
    Stopping,
}

/// In words, as the status has it: `serving`, `lame duck`.
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
    /// As it was asked to.
    Stopped,
    /// No worker was ever ready and every slot has failed; `last` is the latest failure.
    BootFailed { last: Failure },
    /// The slot failed as often in a row as the policy allows.
    GaveUp { slot: SlotId, failures: u32, last: Failure },
    /// A new binary has taken over.
    Replaced,
}

impl Effect {
    /// The process it is to be performed on.
    pub(super) fn pid(&self) -> Option<Pid> {
        match *self {
            Effect::Drain { pid } | Effect::Quit { pid } | Effect::Abort { pid } | Effect::Kill { pid, .. } => {
                Some(pid)
            }
            Effect::EndSuccessor { pid, .. } => Some(pid),
            Effect::Spawn { .. } | Effect::Retire { .. } | Effect::Notice(_) | Effect::Finish(_) => None,
            Effect::LetGo | Effect::Upgrade => None,
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
            KillReason::DrainTimeout => "not drained within the drain timeout",
            KillReason::QuickTimeout => "still there after a quick stop",
            KillReason::Stalled => "stalled",
            KillReason::Misbehaved => "it did what no worker may",
            KillReason::Forced => "stopped by force",
        })
    }
}
