//! The file that says which process the parent is.

use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use log::Level;
use nix::unistd::geteuid;

use crate::error::{Error, Result};
use crate::parent::journal::Journal;
use crate::parent::subject::Subject;
use crate::sys::clock;
use crate::time::Time;

/// How soon it is tried again to write it.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The pid file of a pool, if it has one, and when it is tried again to write it.
#[derive(Debug, Default)]
pub(super) struct Pid {
    file: Option<PidFile>,
    retry: Option<Time>,
}

impl Pid {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.retry
    }

    /// Writes the pid file of a pool that starts. That the disk is full ends no pool: it serves, and tries again. What
    /// does not pass by itself, as a directory that is missing, does.
    pub(super) fn write_first(&mut self, path: Option<&Path>, journal: &mut Journal) -> Result<()> {
        match self.write(path) {
            Err(Error::File { source, .. }) if is_full(&source) => {
                self.write_or_retry(path, journal);
                Ok(())
            }
            result => result,
        }
    }

    fn write(&mut self, path: Option<&Path>) -> Result<()> {
        self.file = path.map(PidFile::write).transpose()?;
        Ok(())
    }

    /// Writes the pid file, or says why it cannot, and tries again later.
    pub(super) fn write_or_retry(&mut self, path: Option<&Path>, journal: &mut Journal) {
        if let Err(error) = self.write(path) {
            let text = format!("{}; retrying every {} s", error.report(), RETRY_INTERVAL.as_secs());
            journal.log(Level::Error, Subject::pool("pid_file").because("error"), text);
            self.retry = Some(clock::now() + RETRY_INTERVAL);
        }
    }

    /// Writes the pid file that could not be written when this pool began, if it is time.
    pub(super) fn retry(&mut self, path: Option<&Path>, journal: &mut Journal, now: Time) {
        if self.retry.is_some_and(|due| due <= now) {
            let written = self.write(path);
            self.retry = written.is_err().then(|| now + RETRY_INTERVAL);
            if written.is_ok() {
                journal.log(Level::Info, Subject::pool("pid_file"), "pid file written".to_owned());
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Written once the addresses are reserved: only then is it certain that no other instance runs. Removed by the parent.
#[derive(Debug)]
struct PidFile {
    path: PathBuf,
    owner: u32,
}

impl PidFile {
    /// Replaces what a killed instance left, whole: a reader never sees half a number. On a full disk, where no other
    /// file can be written, an old one gets the new number in place of its own.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the directory does not exist or is not writable.
    fn write(path: &Path) -> Result<PidFile> {
        let owner = process::id();
        let text = format!("{owner}\n");
        let written = replace(path, &text).or_else(|error| overwrite(path, &text).map_err(|_| error));
        written.map_err(|source| Error::File {
            path: path.display().to_string(),
            action: "write the pid file",
            source,
        })?;
        Ok(PidFile { path: path.to_owned(), owner })
    }
}

/// Writes a draft beside it and renames that. Whoever else may write to the directory can neither guess the draft's
/// name nor have it lead elsewhere (open(2), O_EXCL).
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{:016x}", RandomState::new().hash_one(process::id())));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&draft)?;
    // Whatever the umask: it is for everybody to read, and says whom root is to signal.
    let written = file
        .set_permissions(Permissions::from_mode(0o644))
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&draft, path));
    written.inspect_err(|_| drop(fs::remove_file(&draft)))
}

/// Writes over the file, which takes no more room than it has.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let file = open(path, OpenOptions::new().write(true))?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

/// Opens it if it is a file of ours: no link, and nothing that waits for a reader.
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    match found.is_file() && found.uid() == geteuid().as_raw() && found.nlink() == 1 {
        true => Ok(file),
        false => Err(ErrorKind::PermissionDenied.into()),
    }
}

impl Drop for PidFile {
    /// Removes the file: in the process that wrote it, not in a worker that drops its copy, and only if it is still
    /// its own.
    fn drop(&mut self) {
        let ours = || {
            let mut text = String::new();
            let read = open(&self.path, OpenOptions::new().read(true))
                .and_then(|file| file.take(64).read_to_string(&mut text));
            read.is_ok() && text.trim() == self.owner.to_string()
        };
        if process::id() == self.owner && ours() {
            // Nothing to be done about a directory that has become read-only.
            let _ = fs::remove_file(&self.path);
        }
    }
}
