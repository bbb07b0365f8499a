//! Signals: in the parent they become events, in a worker they end its lifeline, and in between they are blocked.
//!
//! A fork copies the parent's handlers and its end of their pipe: until the child has dropped both, a SIGTERM sent to
//! it would wake the *parent*. So every signal stays blocked from before the fork until [`install_worker`] has run.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::warn;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{shutdown, Shutdown};
use nix::unistd::alarm;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use signal_hook::{low_level, SigId};

use crate::sys;

/// What a signal asks of the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// SIGTERM, SIGQUIT: let the workers finish, then stop.
    Drain(&'static str),
    /// SIGINT: stop now.
    Quick,
    /// SIGHUP: rolling restart.
    Restart,
    /// SIGTTIN: one worker more.
    More,
    /// SIGTTOU: one worker less.
    Less,
    /// SIGCHLD: some workers, one or many, have exited.
    Reap,
    /// SIGUSR2: have a new binary take over.
    Upgrade,
    /// SIGUSR1: reopen the access log.
    Reopen,
}

/// The signals that the parent listens to.
const HEARD: [i32; 9] = [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2];

/// The parent's signals, from the moment it is made until it is dropped.
#[derive(Debug)]
pub(crate) struct ParentSignals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    /// Those whose action was the default.
    defaults: Vec<i32>,
    /// The parent; a fork copies this.
    process: u32,
}

/// What does the default action of signals since a pool has ended. signal-hook never removes its handler, and reckons
/// with it when the application registers something for the same signal; so nor do we.
static GIVEN_BACK: Mutex<Vec<(i32, SigId)>> = Mutex::new(Vec::new());

impl ParentSignals {
    /// signal-hook leaves SA_NOCLDSTOP off: a worker that a signal stops or continues also raises SIGCHLD.
    pub(crate) fn install() -> io::Result<ParentSignals> {
        let (read, write) = UnixStream::pair()?;
        let mut defaults: Vec<i32> = HEARD.into_iter().filter(|signal| sys::signal::is_default(*signal)).collect();
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, HEARD)?;
        for (signal, id) in given_back().drain(..) {
            low_level::unregister(id);
            defaults.push(signal);
        }
        Ok(ParentSignals { delivery, defaults, process: process::id() })
    }

    /// Readable when a signal has arrived.
    pub(crate) fn readiness(&self) -> &UnixStream {
        self.delivery.get_read()
    }

    /// What has been asked since the last call. SIGCHLD comes last: when SIGTERM went to the whole process group, the
    /// exits that it caused must not be taken for failures.
    pub(crate) fn pending(&mut self) -> Vec<Request> {
        let mut requests: Vec<Request> = self.delivery.pending().filter_map(request).collect();
        requests.sort_by_key(|request| *request == Request::Reap);
        requests
    }
}

impl Drop for ParentSignals {
    /// The pool has ended, and the process may go on: what had its default action has it again. A worker has no use for
    /// that.
    fn drop(&mut self) {
        if process::id() != self.process {
            return;
        }
        for signal in self.defaults.drain(..) {
            match sys::signal::on(signal, DefaultAction(signal)) {
                Ok(id) => given_back().push((signal, id)),
                Err(error) => warn!("signal {signal} does nothing from now on: {error}"),
            }
        }
    }
}

fn given_back() -> MutexGuard<'static, Vec<(i32, SigId)>> {
    // A list is whole whenever somebody panics.
    GIVEN_BACK.lock().unwrap_or_else(PoisonError::into_inner)
}

struct DefaultAction(i32);

/// kill(2) and its like, as signal-hook documents.
impl sys::signal::Action for DefaultAction {
    fn run(&self) {
        // It does not return where the action is to end the process.
        let _ = low_level::emulate_default_handler(self.0);
    }
}

fn request(signal: i32) -> Option<Request> {
    match signal {
        SIGTERM => Some(Request::Drain("SIGTERM")),
        SIGQUIT => Some(Request::Drain("SIGQUIT")),
        SIGINT => Some(Request::Quick),
        SIGHUP => Some(Request::Restart),
        SIGTTIN => Some(Request::More),
        SIGTTOU => Some(Request::Less),
        SIGCHLD => Some(Request::Reap),
        SIGUSR1 => Some(Request::Reopen),
        SIGUSR2 => Some(Request::Upgrade),
        _ => None,
    }
}

/// All signals blocked; the mask from before returns on drop.
#[derive(Debug)]
pub(crate) struct Masked(SigSet);

pub(crate) fn block_all() -> io::Result<Masked> {
    let before = SigSet::thread_get_mask()?;
    SigSet::all().thread_block()?;
    Ok(Masked(before))
}

impl Drop for Masked {
    fn drop(&mut self) {
        let restored = self.0.thread_set_mask();
        debug_assert!(restored.is_ok());
    }
}

/// Runs in the worker, after the parent's handlers were dropped and before signals are unblocked.
///
/// SIGTERM and SIGQUIT end the lifeline as the parent would, and so ask for a drain; SIGINT also sets `quit`. The
/// others that the parent listens to do nothing here: a terminal sends them to the whole process group.
pub(crate) fn install_worker(
    lifeline: &Arc<UnixStream>,
    drain_timeout: Duration,
    quit: &Arc<AtomicBool>,
) -> io::Result<()> {
    // Zero is never.
    let seconds = u32::try_from(drain_timeout.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
    let end = |quit| EndLifeline { lifeline: Arc::clone(lifeline), seconds, quit };
    sys::signal::on(SIGTERM, end(None))?;
    sys::signal::on(SIGQUIT, end(None))?;
    sys::signal::on(SIGINT, end(Some(Arc::clone(quit))))?;
    Ok(())
}

/// Undoes [`install_worker`], before the worker executes a program. To be called with all signals blocked.
pub(crate) fn uninstall_worker() -> io::Result<()> {
    [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT].into_iter().try_for_each(sys::signal::reset)
}

/// Makes the worker's lifeline read end of file, and bounds what follows.
struct EndLifeline {
    lifeline: Arc<UnixStream>,
    /// Without a parent (SIGTERM is also the parent-death signal) nobody else ends a worker that does not finish:
    /// SIGALRM does, whose default is to kill.
    seconds: u32,
    quit: Option<Arc<AtomicBool>>,
}

/// An atomic store, alarm(2) and shutdown(2): all on the list of signal-safety(7).
impl sys::signal::Action for EndLifeline {
    fn run(&self) {
        if let Some(quit) = &self.quit {
            quit.store(true, Ordering::Relaxed);
        }
        if self.seconds > 0 {
            alarm::set(self.seconds);
        }
        // Already shut is as good.
        let _ = shutdown(self.lifeline.as_raw_fd(), Shutdown::Read);
    }
}
