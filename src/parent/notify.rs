//! The sockets on which programs report that they are ready (sd_notify(3)). The parent makes each before the fork.
//!
//! They lie in a private directory of the parent, in which no other user can create, remove or find a name, or have
//! abstract names (unix(7)) if no directory can be made. The names are random. `SO_PASSCRED` identifies the sender.

use std::collections::hash_map::RandomState;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process;
use std::rc::Rc;

use log::debug;
use nix::sys::socket::{shutdown, Shutdown};
use nix::unistd::{geteuid, mkdtemp};

use crate::sys;
use crate::sys::fds::WholeMessage;

/// The maximum length of a socket's name (`sun_path`, unix(7)).
const NAME_MAX: usize = 107;

/// Where the sockets of a pool are made.
#[derive(Debug)]
pub(crate) struct Directory {
    /// `None` if all names are abstract.
    place: Option<Place>,
    /// The user whose programs are accepted, besides root's.
    user: u32,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// The directory itself, wherever its path leads now.
    file: File,
    /// The process that made it, since a fork copies this.
    owner: u32,
}

impl Directory {
    /// For programs of this user.
    pub(crate) fn make(user: u32) -> Directory {
        let is_ours = user == geteuid().as_raw();
        let runtime = env::var_os("RUNTIME_DIRECTORY").and_then(|list| env::split_paths(&list).next());
        let candidates = [runtime, env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from), Some(env::temp_dir())];
        let candidates = candidates.into_iter().flatten().chain([PathBuf::from("/tmp")]);
        let place =
            candidates.filter(|base| base.is_absolute() && (is_ours || is_open_to_all(base))).find_map(|base| {
                Place::make(&base, is_ours)
                    .inspect_err(|error| debug!("cannot make notification sockets in {}: {error}", base.display()))
                    .ok()
            });
        Directory { place, user }
    }

    /// Makes a socket for one program.
    pub(crate) fn socket(self: &Rc<Directory>) -> io::Result<Notified> {
        let name = format!("{:016x}{:016x}", random(), random());
        let (socket, address) = match &self.place {
            Some(place) => {
                let socket = sys::fds::bind_for_all(&place.inside(&name))?;
                (socket, place.path.join(&name).into_os_string())
            }
            None => {
                let name = format!("forkpool-{name}");
                let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
                (socket, format!("@{name}").into())
            }
        };
        let file = Name { name, directory: Rc::clone(self) };
        socket.set_nonblocking(true)?;
        sys::fds::name_senders(socket.as_fd())?;
        Ok(Notified { socket, address, file })
    }
}

/// Whether every user can reach the contents of a directory.
fn is_open_to_all(directory: &Path) -> bool {
    directory.ancestors().all(|it| fs::metadata(it).is_ok_and(|found| found.mode() & 0o001 != 0))
}

/// Cannot be guessed.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Place {
    fn make(base: &Path, is_ours: bool) -> io::Result<Place> {
        let path = mkdtemp(&base.join("forkpool-XXXXXX"))?;
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(&path);
        let place = Place { file: opened?, path, owner: process::id() };
        let found = place.file.metadata()?;
        // The owner of the parent directory may have replaced it.
        if found.uid() != geteuid().as_raw() || found.mode() & 0o7777 != 0o700 {
            return Err(ErrorKind::PermissionDenied.into());
        }
        if place.path.as_os_str().len() + 1 + 32 > NAME_MAX {
            return Err(io::Error::other("the path is too long for a socket"));
        }
        // Without /proc, it can only be named by its path.
        fs::metadata(place.inside("."))?;
        if !is_ours {
            // Others may use names in it, but not list them.
            place.file.set_permissions(Permissions::from_mode(0o711))?;
        }
        Ok(place)
    }

    /// The path of a name in the directory.
    fn inside(&self, name: &str) -> PathBuf {
        Path::new("/proc/self/fd").join(self.file.as_raw_fd().to_string()).join(name)
    }
}

impl Drop for Place {
    /// Only in the process that made it, not in a worker that drops its copy.
    fn drop(&mut self) {
        if process::id() == self.owner {
            // Removed only if it is empty.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// A program's socket. Its name exists until this is dropped.
#[derive(Debug)]
pub(crate) struct Notified {
    socket: UnixDatagram,
    address: OsString,
    file: Name,
}

/// The name of a socket in a directory, removed when this is dropped.
#[derive(Debug)]
struct Name {
    name: String,
    directory: Rc<Directory>,
}

/// What was received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notification {
    /// `READY=1`.
    Ready,
    /// Anything else, or from another sender.
    Other,
    /// Nothing yet.
    Nothing,
    /// The next one has descriptors, and not enough are free; it stays in the queue.
    NoRoom,
}

impl Notified {
    /// The value of `NOTIFY_SOCKET`.
    pub(crate) fn address(&self) -> &OsString {
        &self.address
    }

    /// Receives the next notification. Descriptors that come with it (`FDSTORE=1`, or `BARRIER=1`, whose sender waits
    /// until they are closed) are added to `fds`.
    ///
    /// If there are not enough free descriptors, nothing is received.
    pub(crate) fn receive(&self, fds: &mut Vec<OwnedFd>) -> Notification {
        let mut message = [0; 4096];
        match sys::fds::receive_whole(self.socket.as_fd(), &mut message, sys::fds::MAX) {
            Ok(WholeMessage::Received(received)) => {
                fds.extend(received.fds);
                let is_theirs = received.user.is_some_and(|user| user == 0 || user == self.file.directory.user);
                let mut lines = message[..received.len].split(|byte| *byte == b'\n');
                let is_ready = is_theirs && lines.any(|line| line == b"READY=1");
                if is_ready {
                    Notification::Ready
                } else {
                    Notification::Other
                }
            }
            Ok(WholeMessage::NoRoom | WholeMessage::TooMany) => Notification::NoRoom,
            Err(error) if error.kind() == ErrorKind::Interrupted => Notification::Other,
            Err(_) => Notification::Nothing,
        }
    }

    /// Accepts no more. Descriptors may be in the socket's queue, which closing it would close.
    pub(crate) fn end(self) -> OwnedFd {
        // Fails if the socket is already shut down.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Read);
        self.socket.into()
    }
}

impl AsFd for Notified {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Notified {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

impl Drop for Name {
    /// Only in the process that made it, not in a worker that drops its copy.
    fn drop(&mut self) {
        if let Some(place) = self.directory.place.as_ref().filter(|place| place.owner == process::id()) {
            // If it has already gone, that is fine.
            let _ = fs::remove_file(place.inside(&self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readiness(directory: Directory, message: &[u8]) -> Notification {
        let socket = Rc::new(directory).socket().expect("a socket can be made");
        let address = socket.address().to_str().expect("text").to_owned();
        let client = UnixDatagram::unbound().expect("a socket");
        let address = match address.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&address),
        };
        client.send_to_addr(message, &address.expect("an address")).expect("it is there");
        let mut fds = Vec::new();
        let first = socket.receive(&mut fds);
        assert_eq!(socket.receive(&mut fds), Notification::Nothing);
        first
    }

    #[test]
    fn a_program_says_that_it_is_ready_and_nothing_stays_behind() {
        let me = geteuid().as_raw();
        let directory = Directory::make(me);
        let path = directory.place.as_ref().map(|place| place.path.clone());
        assert_eq!(readiness(directory, b"STATUS=here\nREADY=1\n"), Notification::Ready);
        assert!(path.is_none_or(|path| !path.exists()));
        assert_eq!(readiness(Directory { place: None, user: me }, b"READY=1"), Notification::Ready);
        assert_eq!(readiness(Directory { place: None, user: me }, b"READY=10"), Notification::Other);
    }

    #[test]
    fn what_another_user_sends_counts_for_nothing() {
        // Root may send for every user.
        if !geteuid().is_root() {
            let directory = Directory { place: None, user: geteuid().as_raw() + 1 };
            assert_eq!(readiness(directory, b"READY=1"), Notification::Other);
        }
    }

    #[test]
    fn a_directory_in_which_nobody_can_look_serves_nobody_else() {
        assert!(is_open_to_all(Path::new("/")));
        assert!(!is_open_to_all(Path::new("/no such directory")));
    }
}
