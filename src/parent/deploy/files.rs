//! Watches files by inotify(7), for development.
//!
//! The parent watches them itself, since they are named by the operator and not by a worker. It only reads names of
//! changed files, for a comparison and for the log. It scans a few thousand directories at most, once, and later only
//! new ones.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::debounce::Debounce;
use crate::shared::config::Pattern;
use crate::time::Time;

/// The maximum number of watched directories. Each takes a kilobyte in the kernel, and is scanned at the start.
const DIRECTORIES_MAX: usize = 4096;

/// The number of reads per turn, of about 4 KiB each.
const READINGS: usize = 16;

/// When to look again for paths that do not exist yet.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What is watched, and what has changed.
#[derive(Debug)]
pub(super) struct Files {
    inotify: Inotify,
    watched: Vec<Watched>,
    /// What each of the kernel's watches is for: the index of the pattern, and the directory below its base.
    places: BTreeMap<WatchDescriptor, Vec<Place>>,
    debounce: Debounce,
    /// The changes that have not led to a restart yet: the path of the first, and their number.
    changed: Option<(PathBuf, usize)>,
    /// When to look for patterns whose base is missing.
    retry: Option<Time>,
    /// A message if there are more directories than are watched, or than the kernel allows.
    left_out: Option<String>,
}

/// A pattern.
#[derive(Debug)]
struct Watched {
    pattern: Pattern,
    base: PathBuf,
    /// The name, if a single file of the base's directory is watched.
    file: Option<Vec<u8>>,
    is_missing: bool,
}

type Place = (usize, Vec<Vec<u8>>);

impl Files {
    /// # Errors
    ///
    /// If the kernel provides no inotify instance. Anything else that cannot be watched is tried again later.
    pub(super) fn watch(patterns: Vec<(Pattern, PathBuf)>, now: Time) -> io::Result<Files> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let watched =
            patterns.into_iter().map(|(pattern, base)| Watched { pattern, base, file: None, is_missing: true });
        let mut files = Files {
            inotify,
            watched: watched.collect(),
            places: BTreeMap::new(),
            debounce: Debounce::default(),
            changed: None,
            retry: None,
            left_out: None,
        };
        files.begin(now);
        Ok(files)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        [self.debounce.due(), self.retry].into_iter().flatten().min()
    }

    /// Returns what could not be watched, once.
    pub(super) fn left_out(&mut self) -> Option<String> {
        self.left_out.take()
    }

    /// Watches what is not watched yet; returns a path that has appeared since the last call.
    fn begin(&mut self, now: Time) -> Option<PathBuf> {
        let mut found = None;
        for index in 0..self.watched.len() {
            if self.watched[index].is_missing && self.begin_one(index) {
                found = Some(self.watched[index].base.clone());
            }
        }
        self.retry = self.watched.iter().any(|it| it.is_missing).then_some(now + RETRY_INTERVAL);
        found
    }

    fn begin_one(&mut self, index: usize) -> bool {
        let base = self.watched[index].base.clone();
        let Ok(found) = fs::metadata(&base) else { return false };
        self.watched[index].is_missing = false;
        if found.is_dir() {
            self.watched[index].file = None;
            self.add(index, &base, Vec::new());
        } else {
            // Programs may save a file by replacing it, so watch its directory.
            self.watched[index].file = base.file_name().map(|name| name.as_bytes().to_vec());
            let directory = base.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
            self.add_one(index, directory, Vec::new());
        }
        true
    }

    /// Watches a directory and all relevant ones below it; returns whether it contains a matching file.
    fn add(&mut self, index: usize, path: &Path, below: Vec<Vec<u8>>) -> bool {
        let mut left = vec![(path.to_owned(), below)];
        let mut has_file = false;
        while let Some((path, below)) = left.pop() {
            // Watch first, then scan, so that nothing is missed.
            if !self.add_one(index, &path, below.clone()) {
                continue;
            }
            for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                let mut below = below.clone();
                below.push(entry.file_name().as_bytes().to_vec());
                let pattern = &self.watched[index].pattern;
                // Links are not followed, since they could form a circle.
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    has_file |= pattern.means(&slices(&below));
                } else if pattern.may_mean_below(&slices(&below)) {
                    left.push((entry.path(), below));
                }
            }
        }
        has_file
    }

    fn add_one(&mut self, index: usize, path: &Path, below: Vec<Vec<u8>>) -> bool {
        let mask = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        if self.places.len() >= DIRECTORIES_MAX {
            let text = format!("more than {DIRECTORIES_MAX} directories; name fewer");
            self.left_out.get_or_insert(format!("{}, since there are {text}", path.display()));
            return false;
        }
        match self.inotify.add_watch(path, mask) {
            Ok(descriptor) => {
                let places = self.places.entry(descriptor).or_default();
                places.retain(|(other, _)| *other != index);
                places.push((index, below));
                true
            }
            // It existed a moment ago.
            Err(Errno::ENOENT | Errno::ENOTDIR) => {
                self.watched[index].is_missing |= below.is_empty();
                false
            }
            Err(errno) => {
                let remedy = match errno {
                    Errno::ENOSPC => " (raise fs.inotify.max_user_watches)",
                    _ => "",
                };
                self.left_out.get_or_insert(format!("{}: inotify_add_watch(2): {errno}{remedy}", path.display()));
                false
            }
        }
    }

    /// Reads what has changed; returns whether there is more to read.
    pub(super) fn read_changes(&mut self, now: Time) -> bool {
        for _ in 0..READINGS {
            match self.inotify.read_events() {
                Ok(events) => events.into_iter().for_each(|event| self.take_in(&event, now)),
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn take_in(&mut self, event: &InotifyEvent, now: Time) {
        use AddWatchFlags as Flag;
        if event.mask.contains(Flag::IN_Q_OVERFLOW) {
            // The queue has overflowed, so the changed files are unknown.
            return self.note(PathBuf::from("more than can be told"), now);
        }
        let places = self.places.get(&event.wd).cloned().unwrap_or_default();
        if event.mask.contains(Flag::IN_IGNORED) {
            self.places.remove(&event.wd);
        }
        if event.mask.intersects(Flag::IN_DELETE_SELF | Flag::IN_MOVE_SELF | Flag::IN_IGNORED | Flag::IN_UNMOUNT) {
            for (index, below) in &places {
                if below.is_empty() {
                    self.lose(*index, now);
                }
            }
            return;
        }
        let Some(name) = event.name.as_deref() else { return };
        for (index, below) in places {
            self.changed_in(event.mask, index, below, name, now);
        }
    }

    /// Handles an event for a name in a watched directory.
    fn changed_in(&mut self, mask: AddWatchFlags, index: usize, mut below: Vec<Vec<u8>>, name: &OsStr, now: Time) {
        below.push(name.as_bytes().to_vec());
        let Watched { pattern, base, file, .. } = &self.watched[index];
        if let Some(file) = file {
            if file == name.as_bytes() {
                let path = base.clone();
                self.note(path, now);
            }
            return;
        }
        let path = below.iter().fold(base.clone(), |path, name| path.join(OsStr::from_bytes(name)));
        if !mask.contains(AddWatchFlags::IN_ISDIR) {
            if pattern.means(&slices(&below)) {
                self.note(path, now);
            }
        } else if pattern.may_mean_below(&slices(&below)) {
            let is_new = mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
            if !is_new {
                self.forget(index, &below);
            }
            // A directory that has gone has taken its contents along.
            if !is_new || self.add(index, &path, below) {
                self.note(path, now);
            }
        }
    }

    /// The base of a pattern is gone, or has been replaced.
    fn lose(&mut self, index: usize, now: Time) {
        self.forget(index, &[]);
        self.watched[index].is_missing = true;
        self.retry.get_or_insert(now + RETRY_INTERVAL);
    }

    /// Stops watching a directory and those below it.
    fn forget(&mut self, index: usize, below: &[Vec<u8>]) {
        let is_here = |(of, at): &Place| *of == index && at.starts_with(below);
        let mut gone = Vec::new();
        for (descriptor, places) in &mut self.places {
            places.retain(|place| !is_here(place));
            if places.is_empty() {
                gone.push(*descriptor);
            }
        }
        for descriptor in gone {
            self.places.remove(&descriptor);
            // A deleted directory has no watch any more.
            let _ = self.inotify.rm_watch(descriptor);
        }
    }

    fn note(&mut self, path: PathBuf, now: Time) {
        self.debounce.note(now);
        self.changed.get_or_insert((path, 0)).1 += 1;
    }

    /// Describes what has changed, once it has come to rest.
    pub(super) fn take(&mut self, now: Time) -> Option<String> {
        let back = self.retry.filter(|at| *at <= now).and_then(|_| self.begin(now));
        back.into_iter().for_each(|path| self.note(path, now));
        if !self.debounce.take(now) {
            return None;
        }
        let (path, count) = self.changed.take()?;
        Some(match count {
            1 => format!("{} has changed", path.display()),
            _ => format!("{} has changed, the first of {count} changes", path.display()),
        })
    }
}

impl AsRawFd for Files {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_fd().as_raw_fd()
    }
}

fn slices(names: &[Vec<u8>]) -> Vec<&[u8]> {
    names.iter().map(Vec::as_slice).collect()
}
