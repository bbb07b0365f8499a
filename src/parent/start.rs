//! What the parent makes before the first worker, and what a configuration means for it.

use std::process;
use std::rc::Rc;

use log::{debug, warn};
use nix::sys::resource::{getrlimit, setrlimit, Resource};

use crate::error::{Error, Result};
use crate::parent::access_log::AccessLog;
use crate::parent::admin::Admin;
use crate::parent::application::Application;
use crate::parent::deploy::Deploy;
use crate::parent::discard::Discard;
use crate::parent::handle::Hooks;
use crate::parent::handover::Handover;
use crate::parent::health::Health;
use crate::parent::journal::Journal;
use crate::parent::outputs::Outputs;
use crate::parent::programs::Programs;
use crate::parent::roster::Roster;
use crate::parent::settings::{others, Settings};
use crate::parent::sockets::Sockets;
use crate::parent::supervisor::{Policy, Supervisor};
use crate::parent::takeover::{self, Addresses, Takeover};
use crate::parent::tls::Tls;
use crate::parent::wakeups::Wakeups;
use crate::parent::Parent;
use crate::shared::config::{Balance, Config, Layers};
use crate::shared::listener::Reserved;
use crate::shared::log_file;
use crate::shared::scoreboard::ParentBoard;
use crate::shared::signals::{self, ParentSignals};
use crate::shared::steer::{self, Steering};
use crate::sys;
use crate::sys::clock;
use crate::time::Time;
use crate::worker::keeper;

const COUNTED_MIN: usize = 64;

impl Parent {
    /// Checks, reserves and prepares everything, and forks nothing yet.
    pub(crate) fn start(layers: Layers, config: Config, hooks: Hooks) -> Result<Parent> {
        // Without /proc, rely on the caller.
        if let Some(count) = sys::process::threads().filter(|count| *count > 1) {
            return Err(Error::Threads { count });
        }
        keeper::check(config.program.adopt)?;
        // The next steps may take long; SIGHUP and others wait meanwhile.
        let held = signals::hold()
            .map_err(|source| Error::system("hold back signals during the start with sigprocmask(2)", source))?;
        let (settings, workers) = Settings::new(config)?;
        let Settings { config, credentials, cpus, .. } = &settings;
        let open = |path| log_file::open(path, others(credentials));
        let access_log = config.access_log.file.as_deref().map(open).transpose()?;
        raise_descriptor_limit();
        let Addresses { reserved, slots, pairs, predecessor, admin, tickets } = takeover::addresses(config)?;
        let tls = Tls::new(config, tickets, clock::now())?;
        let (board, steering) = share_memory(config, &reserved, workers)?;
        let board = Rc::new(board);
        let signals = ParentSignals::install(held)
            .map_err(|source| Error::system("install signal handlers with sigaction(2)", source))?;
        let mut wakeups = Wakeups::new(signals)?;
        let now = clock::now();
        let seed = now.as_millis() ^ u64::from(process::id()) << 32;
        let takeover = Takeover::new(predecessor);
        // Not before the old pool, in an upgrade, has released the address.
        let start_at = if takeover.has_predecessor() { Time::NEVER } else { now };
        let mut journal = Journal::new(admin.is_some());
        let mut sockets =
            Sockets::new(reserved, slots, steering, Rc::clone(cpus), Rc::clone(&board), config, &wakeups)?;
        let roster = Roster::new(Supervisor::new(Policy::from(config), workers, seed, now), board.processes());
        let health = Health::new(Rc::clone(&board), config, now);
        let admin = admin.map(|listener| Admin::new(listener, config, start_at)).transpose()?;
        let mut outputs = Outputs::new(AccessLog::new(access_log), admin, now);
        let deploy = Deploy::new(settings, layers, tls, &wakeups, &mut journal)?;
        let settings = &deploy.settings;
        if !takeover.has_predecessor() {
            outputs.pid_file.write_first(settings.config.process.pid_file.as_deref(), &mut journal)?;
            sockets.begin_to_steer();
            sockets.own();
        }
        if let Some(admin) = &mut outputs.admin {
            admin.introduce(&sockets, settings);
            admin.observe(&roster, &sockets, settings, &mut journal);
        }
        debug!("parent is pid {}, {}", process::id(), settings.reason_for(roster.supervisor.slots().wanted()));
        // From the first fork on nothing takes long, so a freeze shows there, too.
        wakeups.frozen(clock::now());
        let mut handover = Handover::new(pairs);
        handover.set_rebalance(deploy.settings.config.workers.rebalance);
        let application = Application::new(hooks, board, now);
        let (programs, discard) = (Programs::default(), Discard::default());
        Ok(Parent {
            roster,
            wakeups,
            sockets,
            handover,
            health,
            programs,
            application,
            deploy,
            takeover,
            discard,
            journal,
            outputs,
        })
    }
}

/// The memory that all processes of the pool share, and the steering based on it.
fn share_memory(config: &Config, reserved: &[Reserved], workers: usize) -> Result<(ParentBoard, Steering)> {
    let groups = reserved.iter().filter(|reserved| matches!(reserved, Reserved::Tcp(_))).count();
    if config.workers.balance == Balance::Client && config.server.has_proxies() {
        warn!(
            "balance client chooses by the proxies' addresses: the kernel assigns a connection to a worker before the \
             proxy has named its client"
        );
    }
    // A slot may hold two processes.
    let (most, counted) = (2 * Config::WORKERS_MAX, 2 * counted_max(workers));
    let (mut board, steering) = steer::choose(config.workers.balance, most, counted, groups)
        .map_err(|source| Error::system("map the scoreboard with mmap(2)", source))?;
    board.keep_metrics(config.application.metrics.clone());
    if config.admin.address.is_some() {
        board
            .keep_tally(Config::WORKERS_MAX)
            .map_err(|source| Error::system("map the tally for the admin process with mmap(2)", source))?;
    }
    if config.access_log.file.is_some() {
        if let Err(error) = board.keep_lines() {
            warn!("cannot keep lines of the access log that killed workers have not written: {error}");
        }
    }
    Ok((board, steering))
}

/// The maximum number of slots if the kernel counts connections. The memory for all is taken at once: a page for each
/// of their processes.
fn counted_max(workers: usize) -> usize {
    (4 * workers).clamp(COUNTED_MIN, Config::WORKERS_MAX)
}

/// Raises the soft limit of descriptors to the hard limit: each connection takes one, and the soft limit is often 1024.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        debug!("RLIMIT_NOFILE {soft} raised to {hard}");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    });
    if let Err(errno) = raised {
        warn!("cannot raise RLIMIT_NOFILE with setrlimit(2): {errno}");
    }
}
