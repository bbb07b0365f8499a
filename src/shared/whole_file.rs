//! Reads files that settings name: whole, bounded, and without waiting for anybody.

use std::fs::{FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Reads a file. If it is longer than `max`, returns one byte more than that, and no more.
///
/// Refuses what is no regular file: to open or read a pipe could take for ever, a device may have no end, and neither
/// could be read again at a restart.
///
/// # Errors
///
/// That of the system, or what the file is.
pub(crate) fn read_whole(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| {
        match error.raw_os_error() {
            // open(2): a socket.
            Some(libc::ENXIO) => irregular("a socket"),
            _ => error,
        }
    })?;
    let metadata = file.metadata()?;
    if let Some(kind) = other_kind(metadata.file_type()) {
        return Err(kind);
    }
    // With room for all and for what shows the end: what grows leaves copies behind, perhaps of a key.
    let len = usize::try_from(metadata.len()).unwrap_or(max).min(max);
    let mut bytes = Vec::with_capacity(len + 64);
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Why a file of this type is refused.
fn other_kind(kind: FileType) -> Option<io::Error> {
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some(io::Error::from_raw_os_error(libc::EISDIR)),
        () if kind.is_fifo() => Some(irregular("a pipe")),
        () => Some(irregular("a device")),
    }
}

fn irregular(what: &str) -> io::Error {
    let problem = format!("it is {what}; it must be a regular file, since it is read again at each restart");
    io::Error::new(ErrorKind::InvalidInput, problem)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::{env, fs, process};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_regular_files_are_read_and_no_more_of_them_than_wanted() {
        let directory = env::temp_dir().join(format!("forkpool-whole-{}", process::id()));
        fs::create_dir(&directory).expect("a directory");
        let [file, link, pipe, socket] = ["file", "link", "pipe", "socket"].map(|name| directory.join(name));
        fs::write(&file, "12345").expect("written");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
        let _listener = UnixListener::bind(&socket).expect("a socket");
        let read = |path: &Path, max| read_whole(path, max).map_err(|error| error.to_string());
        assert_eq!(read(&file, 5), Ok(b"12345".to_vec()));
        assert_eq!(read(&link, 4), Ok(b"12345".to_vec()), "one byte more");
        assert_eq!(read(&link, 1), Ok(b"12".to_vec()), "one byte more");
        for (path, what) in [
            (pipe.as_path(), "it is a pipe; it must be a regular file"),
            (&socket, "it is a socket; it must be a regular file"),
            (Path::new("/dev/zero"), "it is a device; it must be a regular file"),
            (&directory, "Is a directory"),
            (&directory.join("none"), "No such file"),
        ] {
            let said = read(path, 9).expect_err(what);
            assert!(said.contains(what), "{said}");
        }
        fs::remove_dir_all(&directory).expect("removed");
    }
}
