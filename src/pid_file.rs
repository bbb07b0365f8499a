//! The file that says which process the parent is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use crate::error::{Error, Result};

/// Written once the addresses are reserved: only then is it certain that no other instance runs. Removed by the parent.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    owner: u32,
}

impl PidFile {
    /// Replaces what a killed instance left, whole: a reader never sees half a number.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the directory does not exist or is not writable.
    pub(crate) fn write(path: &Path) -> Result<PidFile> {
        let owner = process::id();
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{owner}"));
        let written = fs::write(&draft, format!("{owner}\n")).and_then(|()| fs::rename(&draft, path));
        written.map_err(|source| {
            // It is there only when the renaming failed.
            let _ = fs::remove_file(&draft);
            Error::File { path: path.display().to_string(), action: "write the pid file", source }
        })?;
        Ok(PidFile { path: path.to_owned(), owner })
    }
}

impl Drop for PidFile {
    /// Removes the file: in the process that wrote it, not in a worker that drops its copy, and only if it is still
    /// its own.
    fn drop(&mut self) {
        let ours = || fs::read_to_string(&self.path).is_ok_and(|text| text.trim() == self.owner.to_string());
        if process::id() == self.owner && ours() {
            // Nothing to be done about a directory that has become read-only.
            let _ = fs::remove_file(&self.path);
        }
    }
}
