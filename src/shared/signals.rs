//! Signals. In the parent they become requests, in a worker they end its lifeline, and in between they are blocked.
//!
//! The process that starts a pool may have blocked or ignored any signal, on purpose or not. The pool unblocks and
//! handles those that it needs, leaves all others alone, and restores the original actions for each program that it
//! executes.
//!
//! A fork copies the parent's handlers and its end of their pipe. Until the child has dropped both, a SIGTERM sent to
//! the child would wake the *parent*. So all signals stay blocked from before the fork until [`install_worker`] has
//! run.

use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::warn;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use signal_hook::{low_level, SigId};

use crate::shared::request::{Asker, Request};
use crate::sys;
use crate::sys::signal::Action;

/// The signals that the parent handles.
const HANDLED: [i32; 9] = [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2];

/// The parent's signal handlers, until this is dropped.
#[derive(Debug)]
pub(crate) struct ParentSignals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    /// The signals whose action was the default.
    defaults: Vec<i32>,
    /// Those of [`HANDLED`] that were blocked.
    blocked: SigSet,
    /// Whether SIGXFSZ had its default action.
    ends_by_size: bool,
    /// The process id of the parent, since a fork copies this.
    process: u32,
}

/// After a pool has ended, these emulate the default actions of signals. signal-hook never removes its handler, and
/// relies on it if the application registers an action for the same signal later, so the pool does not remove it
/// either.
static GIVEN_BACK: Mutex<Vec<(i32, SigId)>> = Mutex::new(Vec::new());

impl ParentSignals {
    /// Handles all signals from now on, including those that were blocked or ignored. Those that arrived while they
    /// were `held` are delivered now. signal-hook does not set SA_NOCLDSTOP, so a worker that a signal stops or
    /// continues also raises SIGCHLD.
    pub(crate) fn install(held: Masked) -> io::Result<ParentSignals> {
        sys::signal::remember(set(HANDLED).iter().chain([Signal::SIGXFSZ]));
        // Then a write to a log at its size limit fails (EFBIG) and does not end the process. Children inherit this.
        let ends_by_size = sys::signal::is_default(SIGXFSZ);
        if ends_by_size {
            sys::signal::ignore(Signal::SIGXFSZ)?;
        }
        let (read, write) = UnixStream::pair()?;
        let mut defaults: Vec<i32> = HANDLED.into_iter().filter(|signal| sys::signal::is_default(*signal)).collect();
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, HANDLED)?;
        for (signal, id) in given_back().drain(..) {
            low_level::unregister(id);
            defaults.push(signal);
        }
        let before = held.keep();
        let blocked = set(HANDLED.into_iter().filter(|signal| has(&before, *signal)));
        set(HANDLED).thread_unblock()?;
        Ok(ParentSignals { delivery, defaults, blocked, ends_by_size, process: process::id() })
    }

    /// Readable when a signal has arrived.
    pub(crate) fn readiness(&self) -> &UnixStream {
        self.delivery.get_read()
    }

    /// The requests since the last call. SIGCHLD comes last: if SIGTERM went to the whole process group, the exits that
    /// it caused must not be taken for failures.
    pub(crate) fn pending(&mut self) -> Vec<Request> {
        let mut requests: Vec<Request> = self.delivery.pending().filter_map(request).collect();
        requests.sort_by_key(|request| *request == Request::Reap);
        requests
    }
}

impl Drop for ParentSignals {
    /// Restores the default actions, since the process may go on after the pool has ended. Does nothing in a worker.
    fn drop(&mut self) {
        if process::id() != self.process {
            return;
        }
        let blocked = self.blocked.thread_block();
        debug_assert!(blocked.is_ok());
        if self.ends_by_size {
            // Cannot fail, since the signal exists.
            let _ = sys::signal::reset(Signal::SIGXFSZ);
        }
        for signal in self.defaults.drain(..) {
            match sys::signal::on(signal, Action::Default(signal)) {
                Ok(id) => given_back().push((signal, id)),
                Err(error) => warn!("cannot handle signal {signal}: {error}"),
            }
        }
    }
}

fn given_back() -> MutexGuard<'static, Vec<(i32, SigId)>> {
    // The list is consistent even after a panic.
    GIVEN_BACK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The request that a signal makes.
fn request(signal: i32) -> Option<Request> {
    match signal {
        SIGTERM => Some(Request::Drain(Asker::Signal("SIGTERM"))),
        SIGQUIT => Some(Request::Drain(Asker::Signal("SIGQUIT"))),
        SIGINT => Some(Request::Quick(Asker::Signal("SIGINT"))),
        SIGHUP => Some(Request::Restart),
        SIGTTIN => Some(Request::More),
        SIGTTOU => Some(Request::Less),
        SIGCHLD => Some(Request::Reap),
        SIGUSR1 => Some(Request::Reopen),
        SIGUSR2 => Some(Request::Upgrade),
        _ => None,
    }
}

/// Blocks signals; restores the previous mask on drop.
#[derive(Debug)]
pub(crate) struct Masked(SigSet);

pub(crate) fn block_all() -> io::Result<Masked> {
    block(&SigSet::all())
}

/// Blocks the signals that would end or stop a process that is about to handle them. Other signals stay as they are:
/// nobody who stops a pool while it starts needs to wait.
pub(crate) fn hold() -> io::Result<Masked> {
    block(&set([SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU]))
}

fn block(signals: &SigSet) -> io::Result<Masked> {
    Ok(Masked(signals.thread_swap_mask(SigmaskHow::SIG_BLOCK)?))
}

fn set(signals: impl IntoIterator<Item = i32>) -> SigSet {
    signals.into_iter().filter_map(|signal| Signal::try_from(signal).ok()).collect()
}

fn has(signals: &SigSet, signal: i32) -> bool {
    Signal::try_from(signal).is_ok_and(|signal| signals.contains(signal))
}

impl Masked {
    /// Leaves the mask as it is, and returns the previous one.
    fn keep(self) -> SigSet {
        ManuallyDrop::new(self).0
    }

    /// As drop, but for a worker: signals that end it are unblocked, even if the process that started the pool had
    /// blocked them.
    pub(crate) fn end_in_worker(mut self) {
        [Signal::SIGALRM, Signal::SIGABRT].into_iter().for_each(|signal| self.0.remove(signal));
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        let restored = self.0.thread_set_mask();
        debug_assert!(restored.is_ok());
    }
}

/// Runs in the worker, after the parent's handlers were dropped and before signals are unblocked.
///
/// SIGTERM and SIGQUIT end the lifeline as the parent would, and so ask for a drain. SIGINT also sets `quit`. The other
/// signals that the parent handles have no effect here, since a terminal sends them to the whole process group.
pub(crate) fn install_worker(
    lifeline: &Arc<UnixStream>,
    drain_timeout: Duration,
    quit: &Arc<AtomicBool>,
) -> io::Result<()> {
    // Zero is no limit.
    let seconds = u32::try_from(drain_timeout.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
    let end = |quit| Action::EndLifeline { lifeline: Arc::clone(lifeline), seconds, quit };
    sys::signal::on(SIGTERM, end(None))?;
    sys::signal::on(SIGQUIT, end(None))?;
    sys::signal::on(SIGINT, end(Some(Arc::clone(quit))))?;
    Ok(())
}
