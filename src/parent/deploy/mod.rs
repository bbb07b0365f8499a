//! Restarts that somebody asks for: what the parent reads anew for them, and what it restarts for by itself.
//!
//! In come requests for a restart, and what the file system says; out go the configuration of the next workers, and
//! restarts. It may not know how workers are replaced.
//!
//! - **The file of variables is read before a restart**, and not at the start of a worker: one that is replaced because it
//!   has crashed gets what the others have, whatever somebody is editing. What is wrong with the file aborts the restart
//!   before the first worker is touched; a restart that is aborted later takes the settings back as well, so that the
//!   old workers are replaced by their like.
//! - **The parent looks whether `--root` means another directory**, once a second: a worker in its sandbox cannot open
//!   another one, and the price is one stat(2). The directory is the operator's, so that may be waited for. Workers
//!   that served the old one are replaced one after the other, as for any other restart.
//! - **What a restart cannot apply keeps its value**, and the log says what needs an upgrade. Which that is, the settings
//!   say themselves.

mod debounce;
mod exchange;
mod files;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use self::exchange::{Exchange, Found, Identity};
use self::files::Files;
use super::*;
use crate::parent::event;
use crate::parent::supervisor::PoolState;
use crate::shared::config::{Pattern, Setting};
use crate::worker::Place;

/// What is read anew.
#[derive(Debug)]
pub(super) struct Deploy {
    layers: Layers,
    /// The configuration before the restart that is under way.
    before: Option<Config>,
    root: Exchange,
    /// None where no files are watched.
    files: Option<Files>,
}

impl Deploy {
    pub(super) fn new(layers: Layers) -> Deploy {
        Deploy { layers, before: None, root: Exchange::default(), files: None }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        [self.root.deadline(), self.files.as_ref().and_then(Files::deadline)].into_iter().flatten().min()
    }
}

impl Parent {
    /// Replaces every worker, as somebody has asked for, by workers with the settings of now.
    pub(super) fn restart(&mut self) {
        if self.may_restart() && self.deploy.layers.said.env_file.is_some() {
            match self.deploy.layers.resolve() {
                Ok(config) => self.reconfigure(config),
                Err(error) => return self.refuse_restart(&error),
            }
        }
        self.give_root();
        self.tell(Event::Restart);
    }

    /// Whether a restart can be begun: neither does the pool end nor is another one about to take over.
    pub(super) fn may_restart(&self) -> bool {
        !self.is_stopping && self.successor.is_none()
    }

    /// Workers that start from now on serve what the path means now.
    pub(super) fn give_root(&mut self) {
        let root = self.config.root_path();
        self.deploy.root.give(root.as_deref().and_then(identity), root.is_some(), clock::now());
    }

    /// Looks whether there is another directory behind the path that is served, if it is time.
    pub(super) fn look_at_root(&mut self) {
        let now = clock::now();
        if !self.may_restart() || !self.deploy.root.is_due(now) {
            return;
        }
        let Some(path) = self.config.root_path() else { return };
        let found = self.deploy.root.look(identity(&path), now);
        let shown = path.display();
        match found {
            Found::Nothing => {}
            Found::Another => {
                self.journal.say(
                    log::Level::Info,
                    None,
                    format!("{shown} is now another directory (root): restarting"),
                );
                self.restart();
            }
            Found::Missing => {
                let text =
                    format!("{shown} is no longer a directory (root): workers go on serving what they have open");
                self.journal.say(log::Level::Warn, None, text);
            }
            Found::Back => self.journal.say(log::Level::Info, None, format!("{shown} is there again (root)")),
        }
    }

    /// Watches the files that are to be watched.
    pub(super) fn watch_files(&mut self) -> Result<()> {
        if self.config.watch.is_empty() {
            return Ok(());
        }
        let patterns = self.config.watch.iter().map(|text| Pattern::new(text));
        let patterns = patterns.map(|pattern| {
            let base = self.config.reached_from_chdir(Path::new(&pattern.base));
            (pattern, base)
        });
        let files = Files::watch(patterns.collect(), clock::now());
        let files = files.map_err(|source| Error::system("watch files with inotify_init1(2)", source))?;
        self.listen_to(&files, Source::Files)?;
        self.deploy.files = Some(files);
        self.say_what_is_not_watched();
        Ok(())
    }

    /// Watched files have changed.
    pub(super) fn hear_of_files(&mut self) {
        let Some(files) = &mut self.deploy.files else { return };
        if files.hear(clock::now()) {
            let descriptor = std::os::fd::AsRawFd::as_raw_fd(files);
            self.listen_again(descriptor, Source::Files);
        }
        self.say_what_is_not_watched();
    }

    fn say_what_is_not_watched(&mut self) {
        if let Some(text) = self.deploy.files.as_mut().and_then(Files::left_out) {
            self.journal.say(log::Level::Warn, None, format!("not watched: {text}"));
        }
    }

    /// Restarts for what has changed, if it has come to rest.
    pub(super) fn look_at_files(&mut self) {
        if !self.may_restart() {
            return;
        }
        let changed = self.deploy.files.as_mut().and_then(|files| files.take(clock::now()));
        if let Some(changed) = changed {
            self.journal.say(log::Level::Info, None, format!("{changed} (watch): restarting"));
            self.restart();
        }
    }

    /// What somebody has asked for cannot be: nothing has changed, and nothing does.
    fn refuse_restart(&mut self, error: &Error) {
        let error = error.report();
        let reason = format!("no worker is replaced: {error}");
        if self.roster.supervisor.state() == PoolState::Restarting {
            return self.journal.say(
                log::Level::Warn,
                None,
                format!("refused, and the restart under way goes on: {error}"),
            );
        }
        let text = format!("rolling restart aborted, {reason}");
        self.journal.restart_aborted = Some(text.clone());
        self.service.reloading();
        self.service.ready();
        self.journal.say(log::Level::Warn, None, text);
        self.emit(&event::Event::RestartRefused { reason: &reason });
    }

    fn reconfigure(&mut self, next: Config) {
        let (next, kept) = self.config.succeeded_by(next);
        if !kept.is_empty() {
            let names: Vec<&str> = kept.into_iter().map(Setting::name).collect();
            let text =
                format!("changed, but a restart cannot apply it, only an upgrade (SIGUSR2): {}", names.join(", "));
            self.journal.say(log::Level::Warn, None, text);
        }
        let before = self.config.clone();
        self.apply(next);
        self.deploy.before.get_or_insert(before);
    }

    /// The restart is over for which settings may have been read anew.
    pub(super) fn restart_ended(&mut self, is_done: bool) {
        if let Some(before) = self.deploy.before.take().filter(|_| !is_done) {
            self.apply(before);
            self.give_root();
            self.journal.say(log::Level::Info, None, "restored the settings from before the restart".to_owned());
        }
    }

    /// Has these settings hold for what the parent does from now on, and for the workers that start from now on.
    fn apply(&mut self, next: Config) {
        let now = clock::now();
        let before = std::mem::replace(&mut self.config, next);
        self.roster.supervisor.set_policy(Policy::from(&self.config));
        self.server = Rc::new(self.config.server.clone());
        if before.max_rss != self.config.max_rss {
            self.next_weighing = (self.config.max_rss > 0).then_some(now);
        }
        if before.stall_timeout != self.config.stall_timeout {
            self.watch = Watch::new(self.config.stall_timeout);
            self.board.watch(self.watch.is_off());
            self.watch_stalls(now);
        }
        if before.workers != self.config.workers {
            let (workers, derivation) = self.config.worker_count();
            self.derivation = derivation;
            self.scale(workers);
        }
    }

    /// What the next worker gets of it.
    pub(super) fn place(&self) -> Place {
        let Config { chdir, environment, root, files, .. } = &self.config;
        let (chdir, root, files) = (chdir.clone(), root.clone(), files.clone());
        Place { chdir, environment: Rc::clone(environment), root, files }
    }
}

/// What tells the directory that a path means from others; None where there is none.
fn identity(path: &Path) -> Option<Identity> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
    Some(Identity(found.dev(), found.ino()))
}
