//! Files that stay open between requests, as long as their names lead to them.
//!
//! Opening and closing a small file costs more than everything else about it. So a file that is requested repeatedly is
//! held open, and each request only asks the kernel whether the path still leads to it. From the root on, without
//! following links and without leaving the root's mount, each segment must be the same directory, and the last one the
//! file in the same state. While an inode is held open, no other file gets it. So the contents, the length and the
//! validators are those that opening the file again would give. Contents are not held.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use nix::fcntl::{openat, OFlag};
use nix::sys::stat::Mode;
use nix::sys::statfs::{fstatfs, FsType, BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC};

use crate::server::answer::file::Opened;
use crate::sys::stat::Stat;

/// From linux/magic.h. Nix lacks it for musl.
const XFS_SUPER_MAGIC: FsType = FsType(0x5846_5342);

/// File systems that always know their contents. A network file system may answer from old information, and asks its
/// server only when a file is opened.
const LOCAL: [FsType; 5] = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC];

/// The number of places for files. With [`LEN_MAX`], this bounds the disk space of deleted files until their names are
/// requested again.
const PLACES: usize = 32;

/// Longer files are opened each time, which costs little compared with sending them.
const LEN_MAX: u64 = 1 << 20;

/// The maximum number of directories on the way to a file; each must be checked, too.
const DIRECTORIES_MAX: usize = 3;

/// The files that are held open.
#[derive(Debug)]
pub(super) struct OpenFiles {
    /// `None` if the root's file system does not allow it.
    places: Option<Mutex<[Place; PLACES]>>,
}

/// The place for files with a certain hash, one at a time.
#[derive(Debug, Default)]
struct Place {
    /// The hash of the last path that missed here, and its consecutive misses. From the second on it replaces the
    /// entry.
    missed: u64,
    times: u32,
    entry: Option<Entry>,
}

#[derive(Debug)]
struct Entry {
    path: Box<[u8]>,
    /// From the root on.
    directories: Vec<Directory>,
    name: CString,
    opened: Arc<Opened>,
}

#[derive(Debug)]
struct Directory {
    name: CString,
    fd: OwnedFd,
    stat: Stat,
}

impl OpenFiles {
    pub(super) fn new(root: BorrowedFd<'_>) -> OpenFiles {
        let is_local = fstatfs(root).is_ok_and(|found| LOCAL.contains(&found.filesystem_type()));
        OpenFiles { places: is_local.then(Mutex::default) }
    }

    /// The file to which a path leads, if it is held.
    pub(super) fn find(&self, root: BorrowedFd<'_>, path: &[u8]) -> Option<Arc<Opened>> {
        // A thread that would have to wait for another one opens the file instead.
        let mut places = self.places.as_ref()?.try_lock().ok()?;
        let entry = &mut places[hash(path) as usize % PLACES].entry;
        let held = entry.as_ref().filter(|held| *held.path == *path)?;
        if held.is_meant(root) {
            return Some(Arc::clone(&held.opened));
        }
        *entry = None;
        None
    }

    /// Closes all files that nobody is being sent, as descriptors have run out. Returns whether there were any.
    pub(super) fn let_go(&self) -> bool {
        let Some(mut places) = self.places.as_ref().and_then(|places| places.try_lock().ok()) else { return false };
        let held = places.iter_mut().filter_map(|place| place.entry.take());
        held.count() > 0
    }

    /// A path has missed, and leads to this file. Holds the file if that is worth it.
    pub(super) fn offer(&self, root: BorrowedFd<'_>, path: &[u8], opened: &Arc<Opened>) {
        let Some(mut places) = self.places.as_ref().and_then(|places| places.try_lock().ok()) else { return };
        let hash = hash(path);
        let place = &mut places[hash as usize % PLACES];
        if place.missed != hash {
            (place.missed, place.times) = (hash, 0);
        }
        place.times = place.times.saturating_add(1);
        // A file that cannot be held is tried less and less often.
        if place.times > 1 && place.times.is_power_of_two() {
            if let Some(entry) = Entry::new(root, path, opened) {
                *place = Place { entry: Some(entry), ..Place::default() };
            }
        }
    }
}

impl Entry {
    /// `None` if the file cannot be held.
    fn new(root: BorrowedFd<'_>, path: &[u8], opened: &Arc<Opened>) -> Option<Entry> {
        // A time in the future is reported as the current time, each time.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let (second, nanos) = opened.stat().modified;
        if (second, nanos) > (i64::try_from(now.as_secs()).ok()?, now.subsec_nanos()) {
            return None;
        }
        let mount = Stat::of(root).ok()?.mount;
        let segments = path.split(|byte| *byte == b'/').map(CString::new).collect::<Result<Vec<_>, _>>().ok()?;
        let (name, on_the_way) = segments.split_last()?;
        if mount == 0
            || opened.stat().mount != mount
            || opened.stat().len > LEN_MAX
            || on_the_way.len() > DIRECTORIES_MAX
        {
            return None;
        }
        let mut directories: Vec<Directory> = Vec::new();
        for name in on_the_way {
            let above = directories.last().map_or(root, |directory| directory.fd.as_fd());
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let fd = openat(above, name.as_c_str(), flags, Mode::empty()).ok()?;
            let stat = Stat::of(fd.as_fd()).ok().filter(|stat| stat.mount == mount)?;
            directories.push(Directory { name: name.clone(), fd, stat });
        }
        let entry = Entry { path: path.into(), directories, name: name.clone(), opened: Arc::clone(opened) };
        entry.is_meant(root).then_some(entry)
    }

    /// Whether its path leads to the file, in the state in which it was opened.
    fn is_meant(&self, root: BorrowedFd<'_>) -> bool {
        let mut above = root;
        for directory in &self.directories {
            if !Stat::in_directory(above, &directory.name).is_ok_and(|found| found.is_same(&directory.stat)) {
                return false;
            }
            above = directory.fd.as_fd();
        }
        Stat::in_directory(above, &self.name).is_ok_and(|found| found == *self.opened.stat())
    }
}

/// FNV-1a. A client that makes paths collide only causes files to be opened each time.
fn hash(path: &[u8]) -> u64 {
    path.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let path = std::env::temp_dir().join(format!("forkpool-held-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("a/b")).expect("the directory for temporary files is writable");
            fs::write(path.join("a/b/file"), "contents").expect("writable");
            Place(path)
        }

        fn open(&self, path: &str) -> Arc<Opened> {
            let file = File::open(self.0.join(path)).expect("it is there");
            let stat = Stat::of(file.as_fd()).expect("it is open");
            Arc::new(Opened::new(file, stat))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// On any file system.
    fn held() -> OpenFiles {
        OpenFiles { places: Some(Mutex::default()) }
    }

    #[test]
    fn what_is_asked_for_twice_is_held() {
        let place = Place::new("twice");
        let (root, held) = (File::open(&place.0).expect("it is there"), held());
        let (root, path) = (root.as_fd(), b"a/b/file");
        let opened = place.open("a/b/file");
        held.offer(root, path, &opened);
        assert!(held.find(root, path).is_none());
        held.offer(root, path, &opened);
        for _ in 0..2 {
            assert!(held.find(root, path).is_some_and(|found| Arc::ptr_eq(&found, &opened)));
        }
        assert!(held.find(root, b"a/b/other").is_none());
    }

    #[test]
    fn what_a_name_means_no_more_is_not_found() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("removed", |root| fs::remove_file(root.join("a/b/file")).expect("it is there")),
            ("longer", |root| fs::write(root.join("a/b/file"), "other contents").expect("writable")),
            ("permissions", |root| {
                let unreadable = std::os::unix::fs::PermissionsExt::from_mode(0o0);
                fs::set_permissions(root.join("a/b/file"), unreadable).expect("it is ours");
            }),
            ("replaced", |root| {
                fs::write(root.join("new"), "contents").expect("writable");
                fs::rename(root.join("new"), root.join("a/b/file")).expect("one file system");
            }),
            ("linked", |root| {
                fs::rename(root.join("a"), root.join("c")).expect("one file system");
                symlink("c", root.join("a")).expect("a link");
            }),
            ("copied", |root| {
                fs::rename(root.join("a/b"), root.join("c")).expect("one file system");
                fs::create_dir(root.join("a/b")).expect("writable");
                fs::hard_link(root.join("c/file"), root.join("a/b/file")).expect("one file system");
            }),
        ];
        for (name, change) in changes {
            let place = Place::new(name);
            let (root, held) = (File::open(&place.0).expect("it is there"), held());
            let (root, path) = (root.as_fd(), b"a/b/file");
            let opened = place.open("a/b/file");
            held.offer(root, path, &opened);
            held.offer(root, path, &opened);
            assert!(held.find(root, path).is_some(), "{name}");
            change(&place.0);
            assert!(held.find(root, path).is_none(), "{name}");
        }
    }

    #[test]
    fn what_is_large_or_behind_a_link_is_not_held() {
        let place = Place::new("refused");
        symlink("a", place.0.join("link")).expect("a link");
        File::create(place.0.join("large")).and_then(|file| file.set_len(LEN_MAX + 1)).expect("writable");
        let root = File::open(&place.0).expect("it is there");
        for path in ["link/b/file", "large"] {
            let (held, opened) = (held(), place.open(path));
            held.offer(root.as_fd(), path.as_bytes(), &opened);
            held.offer(root.as_fd(), path.as_bytes(), &opened);
            assert!(held.find(root.as_fd(), path.as_bytes()).is_none(), "{path}");
        }
    }
}
