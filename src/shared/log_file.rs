//! The file of the access log. The parent opens it, with rights that workers do not have.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{eaccess, AccessFlags};

use crate::error::{Error, Result};
use crate::shared::credentials::Credentials;

/// Opens the file at `path`, or standard output for `-` and its other names. Refuses symbolic links. If root opens the
/// file for workers of another user, only root may be able to replace it.
///
/// # Errors
///
/// [`Error::File`].
pub(crate) fn open(path: &Path, workers: Option<&Credentials>) -> Result<File> {
    let opened = match stream(path) {
        Some(Stream::Stdout) => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        Some(Stream::Stderr) => io::stderr().as_fd().try_clone_to_owned().map(File::from),
        None => open_file(path, workers),
    };
    opened.map_err(|source| failed(path, source))
}

/// Whether [`open`] would succeed, without creating a file. `writable` checks a path where no file exists.
///
/// # Errors
///
/// As [`open`].
pub(crate) fn check(
    path: &Path,
    workers: Option<&Credentials>,
    writable: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<()> {
    let checked = match stream(path) {
        Some(_) => Ok(()),
        None if path.is_symlink() => Err(io::Error::from_raw_os_error(libc::ELOOP)),
        None if path.exists() && !path.is_dir() => eaccess(path, AccessFlags::W_OK).map_err(io::Error::from),
        None => writable(path),
    };
    let checked = checked.and_then(|()| if stream(path).is_none() { place(path, workers).map(drop) } else { Ok(()) });
    checked.map_err(|source| failed(path, source))
}

enum Stream {
    Stdout,
    Stderr,
}

/// Recognizes the names of standard streams. They may link to a file that cannot be opened again: a socket, or somebody
/// else's terminal.
fn stream(path: &Path) -> Option<Stream> {
    match path.to_str()? {
        "-" | "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => Some(Stream::Stdout),
        "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => Some(Stream::Stderr),
        _ => None,
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    let source = match source.raw_os_error() {
        Some(libc::ELOOP) => io::Error::other("it is a symbolic link; name the file that it leads to"),
        Some(libc::ENXIO) => io::Error::other(match path.symlink_metadata().is_ok_and(|it| it.file_type().is_fifo()) {
            true => "it is a FIFO that nobody reads; start its reader first",
            false => "it is a socket or a device that is not there; name a file, a FIFO or -",
        }),
        _ => source,
    };
    Error::File { path: path.display().to_string(), action: "open the access log", source }
}

/// Opens the file. The mode lets only the group read it, since it holds the addresses of clients.
fn open_file(path: &Path, workers: Option<&Credentials>) -> io::Result<File> {
    let place = place(path, workers)?;
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK, open(2) would wait for the reader of a FIFO; with it, it fails if there is no reader. Workers
    // share this file description, so they do not wait for a reader either.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
    options.append(true).create(true).mode(0o640).custom_flags(flags);
    let file = options.open(&place)?;
    let found = file.metadata()?;
    if workers.is_some() && found.file_type().is_file() {
        let directory = fs::metadata(place.parent().unwrap_or(Path::new("/")))?;
        if let Some(weakness) = weakness_of_file(found.uid(), found.nlink(), directory.mode()) {
            return Err(io::Error::other(weakness));
        }
    }
    Ok(file)
}

/// Resolves the symbolic links of a path, except its last component. If root opens the file for workers of another
/// user, no directory on the way may belong to them or be writable by others: a link there could lead root to any file,
/// whenever the log is reopened.
fn place(path: &Path, workers: Option<&Credentials>) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = fs::canonicalize(parent)?;
    if let Some(workers) = workers {
        for ancestor in directory.ancestors() {
            let found = fs::metadata(ancestor)?;
            let group = (found.gid() == workers.group()).then_some(found.gid());
            if let Some(weakness) = weakness_of_directory(found.uid(), found.mode(), group.is_some()) {
                return Err(io::Error::other(format!("{}: {weakness}", ancestor.display())));
            }
        }
    }
    Ok(directory.join(name))
}

const STICKY: u32 = 0o1000;

/// Returns who other than root could replace a file in a directory, and what to do about it. `is_group_of_workers` says
/// whether the group of the directory is the workers'.
fn weakness_of_directory(owner: u32, mode: u32, is_group_of_workers: bool) -> Option<String> {
    let writes = |bit| mode & bit != 0 && mode & STICKY == 0;
    match () {
        () if owner != 0 => Some(format!(
            "user {owner} owns the directory and could replace the log, which root opens, by a link; give the \
             directory to root"
        )),
        () if writes(0o002) => {
            Some("every user may write to the directory; prevent that, for example by chmod o-w".to_owned())
        }
        () if writes(0o020) && is_group_of_workers => {
            Some("the workers' group may write to the directory; prevent that, for example by chmod g-w".to_owned())
        }
        () => None,
    }
}

/// The same check for the file in the directory.
fn weakness_of_file(owner: u32, links: u64, directory: u32) -> Option<String> {
    match () {
        () if links > 1 => Some("the file has other names (hard links); remove it".to_owned()),
        // In a sticky directory, everybody can remove his own files.
        () if directory & STICKY != 0 && directory & 0o022 != 0 && owner != 0 => {
            Some(format!("user {owner} could replace the file, which is his, by a link; remove it"))
        }
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_s_log_is_where_nobody_else_can_exchange_it() {
        for (owner, mode, is_group_of_workers, is_safe) in [
            (0, 0o755, false, true),
            (0, 0o775, false, true),
            (0, 0o1777, false, true),
            (0, 0o1777, true, true),
            (0, 0o775, true, false),
            (0, 0o777, false, false),
            (65534, 0o755, false, false),
            (65534, 0o1777, false, false),
        ] {
            let weakness = weakness_of_directory(owner, mode, is_group_of_workers);
            assert_eq!(weakness.is_none(), is_safe, "{owner} {mode:o} {is_group_of_workers}: {weakness:?}");
        }
        for (owner, links, directory, is_safe) in [
            (0, 1, 0o755, true),
            // As the option `create` of logrotate leaves it.
            (65534, 1, 0o755, true),
            (0, 1, 0o1777, true),
            (65534, 1, 0o1777, false),
            (0, 2, 0o755, false),
        ] {
            let weakness = weakness_of_file(owner, links, directory);
            assert_eq!(weakness.is_none(), is_safe, "{owner} {links} {directory:o}: {weakness:?}");
        }
    }

    #[test]
    fn names_of_standard_streams_are_not_opened_again() {
        for (path, is_stream) in [("-", true), ("/dev/stdout", true), ("/dev/stderr", true), ("./-", false)] {
            assert_eq!(stream(Path::new(path)).is_some(), is_stream, "{path}");
        }
    }
}
