//! The start and end of a worker: from the fork to user code, and from there to the exit code.

use crate::error::{report, Error, Result};
use crate::server::http::Common;
use crate::shared::channel::WorkerEnd;
use crate::shared::config::AccessLogFormat;
use crate::shared::config::Rules;
use crate::shared::config::Sandbox;
use crate::shared::config::ServerConfig;
use crate::shared::credentials::Credentials;
use crate::shared::handover::Receiver;
use crate::shared::listener::{Reserved, Shared, SlotSockets};
use crate::shared::log_text::{panic_message, tag};
use crate::shared::log_writer;
use crate::shared::message::MessageEnd;
use crate::shared::outlet;
use crate::shared::scoreboard::RowPage;
use crate::shared::signals::{self, Masked};
use crate::sys;
use nix::sched::{sched_setaffinity, CpuSet};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{raise, Signal};
use nix::unistd::{getppid, Pid};
use std::cell::{Cell, RefCell};
use std::env;
use std::error::Error as StdError;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::keeper::Keeping;
use super::{Worker, LIFELINE, NO_SLOT, SLOT};

/// The exit code of a worker whose code returned an error.
const FAILED: i32 = 1;
/// The exit code of a worker whose code panicked, as in the standard library.
const PANICKED: i32 = 101;

/// Everything that a worker starts with. Made in the parent, and moved through the fork. The admin process has one
/// without a slot.
#[derive(Debug)]
pub(crate) struct Seed {
    pub(crate) slot: usize,
    pub(crate) generation: u64,
    pub(crate) unique: u64,
    pub(crate) lifeline: WorkerEnd,
    /// `None` if the pool has no hook.
    pub(crate) messages: Option<MessageEnd>,
    /// How it keeps a program, if it runs one.
    pub(crate) keeping: Keeping,
    /// The socket at which a program reports that it is ready.
    pub(crate) notify_socket: Option<OsString>,
    /// The slot's listening sockets, whose queued connections wait for this worker. The worker makes those that are
    /// missing, and sends copies to the parent.
    pub(crate) sockets: SlotSockets,
    pub(crate) reserved: Rc<Vec<Reserved>>,
    pub(crate) backlog: u32,
    pub(crate) shared: Vec<Shared>,
    /// The connections that other processes pass to the slot; `None` for the admin process.
    pub(crate) handover: Option<OwnedFd>,
    /// Its own page in the scoreboard.
    pub(crate) page: RowPage,
    pub(crate) server: Rc<ServerConfig>,
    /// The number of requests that it may serve; 0 is no limit.
    pub(crate) max_requests: u64,
    pub(crate) drain_timeout: Duration,
    pub(crate) abort_stalled: bool,
    /// The CPUs of the slots, used in turn; empty if workers are not pinned.
    pub(crate) cpus: Rc<[usize]>,
    pub(crate) credentials: Option<Rc<Credentials>>,
    pub(crate) access_log: Option<(Rc<File>, AccessLogFormat)>,
    pub(crate) sandbox: Sandbox,
    pub(crate) parent: u32,
    pub(crate) place: Place,
}

/// The working directory of a worker, its additional environment, and the files that it serves.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) chdir: Option<PathBuf>,
    pub(crate) environment: Rc<Vec<(String, OsString)>>,
    pub(crate) root: Option<PathBuf>,
    pub(crate) files: Rules,
}

impl Place {
    /// Changes the directory and the environment, as the worker's user.
    fn enter(&self) -> Result<()> {
        for (name, value) in &*self.environment {
            sys::process::set_variable(name, value);
        }
        let Some(directory) = &self.chdir else { return Ok(()) };
        env::set_current_dir(directory).map_err(|source| Error::File {
            path: directory.display().to_string(),
            action: "work in (--chdir)",
            source,
        })
    }
}

/// The application's code in a worker.
pub(crate) type Main<'a> = Box<dyn FnOnce(&Worker) -> Result<(), Box<dyn StdError>> + 'a>;

/// Runs a worker from the fork to its end. The caller has dropped everything that belongs to the parent.
pub(crate) fn start(mut seed: Seed, masked: Masked, main: Main<'_>) -> ! {
    seed.page.fix();
    SLOT.store(seed.slot, Ordering::Relaxed);
    let page = seed.page.clone();
    outlet::count_anew(Some(Box::new(move |lines| page.row().count_lost(lines))));
    // Must run with the rights that the worker will give up.
    log_writer::begin_anew();
    LIFELINE.write().unwrap_or_else(PoisonError::into_inner).replace(Arc::clone(seed.lifeline.stream()));
    if seed.slot != NO_SLOT {
        sys::process::set_variable("FORKPOOL_WORKER_ID", seed.slot.to_string());
        sys::process::set_variable("FORKPOOL_UNIQUE_ID", seed.unique.to_string());
    }
    let code = match Worker::set_up(seed, masked) {
        Ok(worker) => worker.run(main),
        Err((lifeline, error)) => {
            lifeline.failed(&error.report());
            FAILED
        }
    };
    sys::process::exit(code)
}

impl Worker {
    fn set_up(seed: Seed, masked: Masked) -> Result<Worker, (WorkerEnd, Error)> {
        let quit = Arc::new(AtomicBool::new(false));
        let tag = tag(seed.slot, seed.generation, std::process::id());
        let installed = signals::install_worker(seed.lifeline.stream(), seed.drain_timeout, &quit)
            .and_then(|()| if seed.abort_stalled { sys::aborted::tell_where(&tag) } else { Ok(()) })
            .map_err(|source| Error::system("install the worker's signal handlers with sigaction(2)", source));
        let listening = installed.and_then(|()| listen(seed.sockets, &seed.reserved, seed.backlog, &seed.lifeline));
        let sockets = match listening {
            Ok(sockets) => sockets,
            Err(error) => return Err((seed.lifeline, error)),
        };
        let assumed = seed.credentials.map_or(Ok(()), |credentials| credentials.assume());
        let placed = assumed.and_then(|()| seed.place.enter());
        let pinned = placed.and_then(|()| pin(seed.slot, &seed.cpus));
        if let Err(error) = pinned.and_then(|()| end_with_parent(seed.parent)) {
            return Err((seed.lifeline, error));
        }
        masked.end_in_worker();
        let (mut shared_listeners, mut unix_listeners) = (Vec::new(), Vec::new());
        for shared in seed.shared {
            match shared {
                Shared::Tcp(listener) => shared_listeners.push(listener),
                Shared::Unix(listener) => unix_listeners.push(listener),
            }
        }
        let (listeners, udp_sockets) = sockets.into_parts();
        Ok(Worker {
            id: seed.slot,
            generation: seed.generation,
            unique: seed.unique,
            lifeline: seed.lifeline,
            messages: seed.messages.map(Arc::new),
            keeping: seed.keeping,
            notify_socket: seed.notify_socket,
            on_message: RefCell::new(None),
            listeners: RefCell::new(listeners),
            shared_listeners: RefCell::new(shared_listeners),
            unix_listeners: RefCell::new(unix_listeners),
            udp_sockets: RefCell::new(udp_sockets),
            handover: RefCell::new(seed.handover.map(Receiver::from)),
            page: seed.page,
            server: seed.server,
            max_requests: Cell::new(seed.max_requests),
            drain_timeout: seed.drain_timeout,
            common: RefCell::new(Common::new()),
            streams: RefCell::new(None),
            access_log: RefCell::new(seed.access_log),
            sandbox: seed.sandbox,
            place: seed.place,
            readable: RefCell::new(Some(Vec::new())),
            adoptions: Arc::default(),
            is_ready: Cell::new(false),
            quit,
        })
    }

    /// Runs user code and turns its result into an exit code.
    fn run(&self, main: Main<'_>) -> i32 {
        // If a panic unwound further, code of the parent's caller would run in the worker.
        match panic::catch_unwind(AssertUnwindSafe(|| main(self))) {
            Ok(Ok(())) => 0,
            Ok(Err(error)) => {
                self.lifeline.failed(&report(&*error));
                FAILED
            }
            Err(panic) => {
                self.lifeline.failed(&format!("panicked: {}", panic_message(&*panic)));
                PANICKED
            }
        }
    }
}

/// Gets the slot's sockets. This happens before privileges are dropped and before user code runs, so that the queue
/// accepts connections while that code starts.
fn listen(sockets: SlotSockets, reserved: &[Reserved], backlog: u32, lifeline: &WorkerEnd) -> Result<SlotSockets> {
    let missing = sockets.missing(reserved);
    let sockets = if missing.is_empty() { sockets } else { sockets.complete(reserved, backlog)? };
    let made: Vec<_> = missing.into_iter().filter_map(|address| Some((address, sockets.fd(address)?))).collect();
    let told = lifeline.listening(&made);
    told.map_err(|source| Error::system("give the parent copies of the sockets with sendmsg(2)", source))?;
    Ok(sockets)
}

/// Pins this worker to its slot's CPU (sched_setaffinity(2)).
fn pin(slot: usize, cpus: &[usize]) -> Result<()> {
    let Some(cpu) = cpus.get(slot % cpus.len().max(1)) else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(*cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|errno| Error::system("pin the worker to its CPU with sched_setaffinity(2)", errno))
}

/// Makes the kernel send this worker SIGTERM when its parent dies (prctl(2), `PR_SET_PDEATHSIG`).
///
/// The lifeline ends as well. But the signal also reaches user code that does not watch the lifeline, and it limits the
/// time of the drain.
fn end_with_parent(parent: u32) -> Result<()> {
    set_pdeathsig(Signal::SIGTERM)
        .map_err(|errno| Error::system("ask for the parent-death signal with prctl(2)", errno))?;
    // The parent may have died before the call.
    if u32::try_from(getppid().as_raw()) != Ok(parent) {
        raise(Signal::SIGTERM).map_err(|errno| Error::system("signal itself with raise(3)", errno))?;
    }
    Ok(())
}
