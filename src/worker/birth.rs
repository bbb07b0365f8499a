//! The start and end of a worker: from the fork to user code, and from there to the exit code.

use std::cell::{Cell, RefCell};
use std::env;
use std::error::Error as StdError;
use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use log::{debug, warn};
use nix::sched::{sched_setaffinity, CpuSet};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{raise, Signal};
use nix::unistd::{getppid, Pid};

use crate::error::{report, Error, Result};
use crate::shared::channel::WorkerEnd;
use crate::shared::config::{Rules, Sandbox};
use crate::shared::credentials::Credentials;
use crate::shared::log_text::{panic_message, tag};
use crate::shared::log_writer;
use crate::shared::message::MessageEnd;
use crate::shared::outlet;
use crate::shared::scoreboard::RowPage;
use crate::shared::signals::{self, Masked};
use crate::sys;
use crate::sys::title::Title;
use crate::worker::confinement::Confinement;
use crate::worker::keeper::KeeperOptions;
use crate::worker::messages::Messaging;
use crate::worker::serving::Serving;
use crate::worker::sockets::Listening;
use crate::worker::{Worker, LIFELINE, NO_SLOT, SLOT};

/// The exit code of a worker whose code returned an error.
const FAILED: i32 = 1;
/// The exit code of a worker whose code panicked, as in the standard library.
const PANICKED: i32 = 101;

/// Everything that a worker starts with. Made in the parent, and moved through the fork. The admin process has one
/// without a slot.
#[derive(Debug)]
pub(crate) struct Seed {
    pub(crate) identity: Identity,
    pub(crate) lifeline: WorkerEnd,
    /// `None` if the pool has no hook.
    pub(crate) messages: Option<MessageEnd>,
    pub(crate) listening: Listening,
    /// Its own page in the scoreboard.
    pub(crate) page: RowPage,
    pub(crate) serving: Serving,
    /// How it keeps a program, if it runs one.
    pub(crate) keeper_options: KeeperOptions,
    pub(crate) setup: Setup,
    pub(crate) sandbox: Sandbox,
    pub(crate) place: Place,
}

/// Which worker this is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) slot: usize,
    pub(crate) generation: u64,
    /// A number that no other process of the pool has or ever had.
    pub(crate) unique: u64,
}

impl Identity {
    /// Of the admin process.
    pub(crate) const ADMIN: Identity = Identity { slot: NO_SLOT, generation: 0, unique: 0 };

    /// How the log names the worker, in its own process.
    pub(super) fn tag(self) -> String {
        match self.slot {
            NO_SLOT => format!("admin pid={}", process::id()),
            slot => tag(slot, self.generation, process::id()),
        }
    }
}

impl Identity {
    /// Gives the process a title. Not all kernels can.
    fn entitle(self) {
        let (title, suffix) = match self.slot {
            NO_SLOT => ("admin".to_owned(), ":admin".to_owned()),
            slot => (format!("worker {slot} gen {}", self.generation), format!(":{slot}")),
        };
        let titled = Title::set(&title).map(Title::keep).and(sys::title::set_name(&suffix));
        if let Err(error) = titled {
            debug!("{} has no title of its own: {error}", self.tag());
        }
    }

    /// Pins this worker to its slot's CPU (sched_setaffinity(2)). That may have gone since the pool started: taken from
    /// its control group, or offline.
    fn pin(self, cpus: &[usize]) {
        let Some(cpu) = cpus.get(self.slot % cpus.len().max(1)) else { return };
        let mut set = CpuSet::new();
        if let Err(errno) = set.set(*cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)) {
            let tag = self.tag();
            let remedy = "restart the pool if its CPUs have changed";
            warn!("{tag} is not pinned to CPU {cpu}: sched_setaffinity(2): {errno}; {remedy}");
        }
    }
}

/// What a worker does once, right after the fork.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The process with which the worker ends.
    pub(crate) parent: u32,
    pub(crate) credentials: Option<Rc<Credentials>>,
    /// The CPUs of the slots, used in turn; empty if workers are not pinned.
    pub(crate) cpus: Rc<[usize]>,
    pub(crate) abort_stalled: bool,
    /// Whether ps(1) and top(1) show which worker it is.
    pub(crate) is_titled: bool,
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
    let Identity { slot, unique, .. } = seed.identity;
    SLOT.store(slot, Ordering::Relaxed);
    let page = seed.page.clone();
    page.board().metrics().attach(page.metrics());
    outlet::count_anew(Some(Box::new(move |lines| page.row().count_lost(lines))));
    // Must run with the rights that the worker will give up.
    log_writer::begin_anew();
    LIFELINE.write().unwrap_or_else(PoisonError::into_inner).replace(Arc::clone(seed.lifeline.stream()));
    if slot != NO_SLOT {
        sys::process::set_variable("FORKPOOL_WORKER_ID", slot.to_string());
        sys::process::set_variable("FORKPOOL_UNIQUE_ID", unique.to_string());
    }
    if seed.setup.is_titled {
        seed.identity.entitle();
    }
    let worker = Worker::set_up(seed, masked);
    sys::process::exit(worker.map_or(FAILED, |worker| worker.run(main)))
}

impl Worker {
    /// Returns `None` after a failure, which it has reported.
    fn set_up(seed: Seed, masked: Masked) -> Option<Worker> {
        #[cfg_attr(not(feature = "tls"), allow(unused_mut))]
        let Seed { identity, lifeline, listening, mut serving, setup, place, .. } = seed;
        let quit = Arc::new(AtomicBool::new(false));
        let installed = signals::install_worker(lifeline.stream(), serving.drain_timeout(), &quit)
            .and_then(|()| if setup.abort_stalled { sys::aborted::tell_where(&identity.tag()) } else { Ok(()) })
            .map_err(|source| Error::system("install the worker's signal handlers with sigaction(2)", source));
        let sockets = installed.and_then(|()| listening.begin(&lifeline)).and_then(|sockets| {
            setup.credentials.as_ref().map_or(Ok(()), |credentials| credentials.assume())?;
            place.enter()?;
            identity.pin(&setup.cpus);
            end_with_parent(setup.parent)?;
            #[cfg(feature = "tls")]
            serving.begin_tls()?;
            Ok(sockets)
        });
        let sockets = match sockets {
            Ok(sockets) => sockets,
            Err(error) => {
                lifeline.failed(&error.report());
                return None;
            }
        };
        masked.end_in_worker();
        Some(Worker {
            identity,
            lifeline,
            messaging: Messaging::new(seed.messages),
            sockets,
            page: seed.page,
            serving,
            keeper_options: seed.keeper_options,
            confinement: Confinement::new(seed.sandbox),
            place,
            destinations: RefCell::default(),
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
