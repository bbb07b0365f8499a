//! What the parent makes before the first worker, and what a configuration means for it.

use super::*;
use crate::shared::config::Balance;
use crate::shared::listener::AdminListener;

impl Parent {
    /// Checks, reserves and prepares everything, and forks nothing yet.
    pub(crate) fn start(layers: Layers, config: Config, hooks: Hooks) -> Result<Parent> {
        // Where /proc is missing the caller's word has to do.
        if let Some(count) = sys::process::threads().filter(|count| *count > 1) {
            return Err(Error::Threads { count });
        }
        // What follows may take long; HUP and its like wait meanwhile.
        let held = signals::hold()
            .map_err(|source| Error::system("hold back signals during the start with sigprocmask(2)", source))?;
        let (workers, derivation) = config.worker_count();
        let credentials = Credentials::look_up(config.user.as_deref(), config.group.as_deref())?.map(Rc::new);
        let open = |path| log_file::open(path, others(&credentials));
        let access_log = config.access_log.as_deref().map(open).transpose()?;
        raise_descriptor_limit();
        let Addresses { reserved, slots, predecessor, admin } = takeover::addresses(&config)?;
        let (board, steering) = share_memory(&config, &reserved, workers)?;
        let board = Rc::new(board);
        let cpus = config.cpus().into();
        let signals = ParentSignals::install(held)
            .map_err(|source| Error::system("install signal handlers with sigaction(2)", source))?;
        let wakeups = Wakeups::new(signals)?;
        let mending = Mending::new().map_err(|source| Error::system("watch sockets with epoll_create(2)", source))?;
        let now = clock::now();
        let seed = now.as_millis() ^ u64::from(process::id()) << 32;
        let watch = Watch::new(config.stall_timeout);
        board.watch(watch.is_off());
        let mut parent = Parent {
            roster: Roster::new(Supervisor::new(Policy::from(&config), workers, seed, now), board.processes()),
            custody: Custody::new(Rc::clone(&board), Rc::clone(&cpus), steering, slots),
            cpus,
            neighbours: Neighbours::new(config.neighbours),
            attention: Attention::default(),
            mending,
            board,
            watch,
            next_weighing: (config.max_rss > 0).then_some(now),
            wakeups,
            reserved: Rc::new(reserved),
            server: Rc::new(config.server.clone()),
            credentials,
            access_log: AccessLog::new(access_log),
            deploy: Deploy::new(layers),
            config,
            derivation,
            service: Service::new(now),
            successor: None,
            predecessor,
            is_stopping: false,
            pid: pid_file::Pid::default(),
            next_look: Time::NEVER,
            cut: Cut::default(),
            inbox: Inbox::new(hooks.on_event.as_ref(), now),
            journal: Journal::new(admin.is_some()),
            hook: hooks.on_event,
            on_exit: hooks.on_exit,
            notifications: None,
            discard: Discard::default(),
            orphans: Orphans::default(),
            signs_left: BTreeSet::new(),
            admin: None,
        };
        parent.begin(admin, now)?;
        Ok(parent)
    }

    /// The rest of the start, which needs the parent: it watches, writes its pid file and begins to steer.
    fn begin(&mut self, admin: Option<AdminListener>, now: Time) -> Result<()> {
        self.admin = self.make_admin(admin, now)?;
        self.listen_to(self.mending.hangups(), Source::Hangups)?;
        self.guard_all();
        self.give_root();
        self.watch_files()?;
        if self.predecessor.is_none() {
            self.pid.write_first(self.config.pid_file.as_deref(), &mut self.journal)?;
            self.custody.begin_to_steer();
            self.custody.count_all_in();
        }
        self.introduce();
        // From the first fork on nothing takes long, so that a freeze shows there as well.
        self.next_look = clock::now();
        debug!("parent is pid {}, {}", process::id(), self.derivation);
        Ok(())
    }
}

/// What all processes of the pool share, and who steers by it.
fn share_memory(config: &Config, reserved: &[Reserved], workers: usize) -> Result<(ParentBoard, Steering)> {
    let groups = reserved.iter().filter(|reserved| matches!(reserved, Reserved::Tcp(_))).count();
    if config.balance == Balance::Client && config.server.has_proxies() {
        warn!(
            "balance client chooses by the proxies' addresses: the kernel gives a connection to a worker before it is \
             known whose it is"
        );
    }
    // A slot may hold two processes.
    let (most, counted) = (2 * Config::WORKERS_MAX, 2 * counted_max(workers));
    let (mut board, steering) = steer::choose(config.balance, most, counted, groups)
        .map_err(|source| Error::system("map the scoreboard with mmap(2)", source))?;
    if config.admin.is_some() {
        board
            .keep_tally(Config::WORKERS_MAX)
            .map_err(|source| Error::system("map the tally for the admin process with mmap(2)", source))?;
    }
    if config.access_log.is_some() {
        if let Err(error) = board.keep_lines() {
            warn!("cannot keep lines of the access log that killed workers have not written: {error}");
        }
    }
    Ok((board, steering))
}

/// How many slots there can be where the kernel counts connections, since the memory for all is taken at once: a page for
/// each of their processes.
fn counted_max(workers: usize) -> usize {
    (4 * workers).clamp(COUNTED_MIN, Config::WORKERS_MAX)
}

/// As many descriptors as this process may have: every connection takes one, and the soft limit is often 1024.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        debug!("RLIMIT_NOFILE {soft} raised to {hard}");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    });
    if let Err(errno) = raised {
        warn!("cannot raise RLIMIT_NOFILE with setrlimit(2): {errno}");
    }
}
