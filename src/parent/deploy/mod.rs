//! Restarts on request: what the parent reads again for them, and for which changes it starts them by itself.
//!
//! [`Deploy`] owns the current settings and those before the restart, and the watches of the root and of files. Its
//! input: requests for a restart, and changes in the file system. Its output: the configuration of the next
//! workers, and restarts. It does not know how workers are replaced.
//!
//! - **The file of variables is read before a restart**, and not when a worker starts: a worker that is replaced after
//!   a crash gets the same variables as the others, even if somebody is editing the file. An error in the file aborts
//!   the restart before the first worker is replaced. A restart that is aborted later also restores the old settings,
//!   so that replacements for old workers are like them.
//! - **So are certificates and keys**, which workers then inherit. Files that do not fit abort the restart.
//! - **The parent checks whether `--root` leads to another directory**, once a second, since a worker in its sandbox
//!   cannot open another one. That costs one stat(2). The directory belongs to the operator, so the parent may wait for
//!   it. The workers are then replaced one after the other, as in any restart.
//! - **Settings that a restart cannot apply keep their values**, and the log says which ones need an upgrade. Each
//!   setting declares this itself.

mod debounce;
mod files;
mod root_watch;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;

use self::files::Files;
use self::root_watch::{Identity, RootChange, RootWatch};
use crate::error::{Error, Result};
use crate::parent::journal::Journal;
use crate::parent::settings::Settings;
use crate::parent::source::Source;
use crate::parent::subject::Subject;
use crate::parent::tls::Tls;
use crate::parent::wakeups::Wakeups;
use crate::shared::config::{Config, Layers, Pattern, Setting};
use crate::sys::clock;
use crate::time::Time;
use crate::worker::Place;

/// The current settings, and what causes them to be read again.
#[derive(Debug)]
pub(super) struct Deploy {
    pub(super) settings: Settings,
    layers: Layers,
    pub(super) tls: Tls,
    /// The configuration before the current restart.
    before: Option<Config>,
    root: RootWatch,
    /// `None` if no files are watched.
    files: Option<Files>,
}

impl Deploy {
    /// Begins to watch the root, and the files of `--watch`.
    ///
    /// # Errors
    ///
    /// If the kernel cannot watch files.
    pub(super) fn new(
        settings: Settings,
        layers: Layers,
        tls: Tls,
        wakeups: &Wakeups,
        journal: &mut Journal,
    ) -> Result<Deploy> {
        let mut deploy = Deploy { settings, layers, tls, before: None, root: RootWatch::default(), files: None };
        deploy.give_root();
        deploy.watch_files(wakeups, journal)?;
        Ok(deploy)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        [self.root.deadline(), self.files.as_ref().and_then(Files::deadline)].into_iter().flatten().min()
    }

    /// Reads again what a restart must read; returns the configuration that applies from now on, if that was done.
    ///
    /// # Errors
    ///
    /// If something in it is wrong. Nothing has changed then.
    pub(super) fn read_anew(&mut self, journal: &mut Journal) -> Result<Option<Config>> {
        if self.layers.given.process.env_file.is_none() && !self.layers.given.listening.tls.is_wanted() {
            return Ok(None);
        }
        let (next, kept) = self.settings.config.succeeded_by(self.layers.resolve()?);
        if !kept.is_empty() {
            let names: Vec<&str> = kept.into_iter().map(Setting::name).collect();
            let text =
                format!("changed, but a restart cannot apply it, only an upgrade (SIGUSR2): {}", names.join(", "));
            journal.log(log::Level::Warn, Subject::pool("needs_upgrade"), text);
        }
        let before = self.settings.config.clone();
        self.before.get_or_insert(before);
        Ok(Some(next))
    }

    /// A restart has ended for which the settings may have been read again. Returns the settings to restore, if any.
    pub(super) fn restart_ended(&mut self, is_done: bool) -> Option<Config> {
        self.before.take().filter(|_| !is_done)
    }

    /// The part of the settings that the next worker gets.
    pub(super) fn place(&self) -> Place {
        let Config { process, files, .. } = &self.settings.config;
        Place {
            chdir: process.chdir.clone(),
            environment: Rc::clone(&process.environment),
            root: files.root.clone(),
            files: files.rules.clone(),
        }
    }

    /// Workers that start from now on serve the directory to which the path leads now.
    pub(super) fn give_root(&mut self) {
        let root = self.settings.config.root_path();
        self.root.give(root.as_deref().and_then(identity), root.is_some(), clock::now());
    }

    /// Checks whether the served path leads to another directory, if it is time. Returns whether to restart because of
    /// that.
    pub(super) fn look_at_root(&mut self, journal: &mut Journal, now: Time) -> bool {
        if !self.root.is_due(now) {
            return false;
        }
        let Some(path) = self.settings.config.root_path() else { return false };
        let found = self.root.check(identity(&path), now);
        let shown = path.display();
        let (level, text) = match found {
            RootChange::Nothing => return false,
            RootChange::Another => (log::Level::Info, format!("{shown} is now another directory (root): restarting")),
            RootChange::Missing => {
                let text =
                    format!("{shown} is no longer a directory (root): workers go on serving what they have open");
                (log::Level::Warn, text)
            }
            RootChange::Back => (log::Level::Info, format!("{shown} exists again (root)")),
        };
        journal.log(level, Subject::pool("root_changed"), text);
        found == RootChange::Another
    }

    /// Watches the files of `--watch`.
    fn watch_files(&mut self, wakeups: &Wakeups, journal: &mut Journal) -> Result<()> {
        let config = &self.settings.config;
        if config.process.watch.is_empty() {
            return Ok(());
        }
        let patterns = config.process.watch.iter().map(|text| Pattern::new(text));
        let patterns = patterns.map(|pattern| {
            let base = config.reached_from_chdir(Path::new(&pattern.base));
            (pattern, base)
        });
        let files = Files::watch(patterns.collect(), clock::now());
        let files = files.map_err(|source| Error::system("watch files with inotify_init1(2)", source))?;
        wakeups.listen_to(&files, Source::Files)?;
        self.files = Some(files);
        self.say_what_is_not_watched(journal);
        Ok(())
    }

    /// Watched files have changed.
    pub(super) fn files_changed(&mut self, wakeups: &Wakeups, journal: &mut Journal) {
        let Some(files) = &mut self.files else { return };
        if files.read_changes(clock::now()) {
            wakeups.listen_again(files.as_raw_fd(), Source::Files);
        }
        self.say_what_is_not_watched(journal);
    }

    fn say_what_is_not_watched(&mut self, journal: &mut Journal) {
        if let Some(text) = self.files.as_mut().and_then(Files::left_out) {
            journal.log(log::Level::Warn, Subject::pool("not_watched"), format!("not watched: {text}"));
        }
    }

    /// Whether to restart because files have changed and come to rest.
    pub(super) fn look_at_files(&mut self, journal: &mut Journal, now: Time) -> bool {
        let Some(changed) = self.files.as_mut().and_then(|files| files.take(now)) else { return false };
        journal.log(log::Level::Info, Subject::pool("files_changed"), format!("{changed} (watch): restarting"));
        true
    }
}

/// Identifies the directory to which a path leads; `None` if there is none.
fn identity(path: &Path) -> Option<Identity> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
    Some(Identity(found.dev(), found.ino()))
}
