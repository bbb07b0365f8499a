//! How a worker enters its sandbox.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use log::{log, Level};

use crate::error::{Error, Result};
use crate::server::files::Files;
use crate::shared::config::Sandbox;
use crate::worker::sandbox;

use super::Worker;

#[derive(Debug)]
pub(super) struct Confinement {
    sandbox: Sandbox,
    /// What may be read in the sandbox; `None` once the sandbox was entered.
    readable: RefCell<Option<Vec<OwnedFd>>>,
}

impl Confinement {
    pub(super) fn new(sandbox: Sandbox) -> Confinement {
        Confinement { sandbox, readable: RefCell::new(Some(Vec::new())) }
    }
}

impl Worker {
    /// Lets this worker read the directory of `files` in its [`Sandbox`]. Call this before the worker is
    /// [`ready`](Worker::ready).
    ///
    /// # Errors
    ///
    /// If no descriptor is free.
    pub fn allow_files(&self, files: &Files) -> Result<()> {
        if let Some(readable) = &mut *self.confinement.readable.borrow_mut() {
            let reach = files.reach().map_err(|source| Error::system("copy a directory with fcntl(2)", source))?;
            readable.push(reach);
        }
        Ok(())
    }

    /// Opens the files under the pool's root, by the current settings of this worker. Like
    /// [`Builder::files`](crate::Builder::files), but with the directory to which the path leads now, and with the
    /// current [file of variables](crate::Builder::env_file). Returns `None` without a root.
    ///
    /// # Errors
    ///
    /// As [`Files::open`].
    pub fn files(&self) -> Result<Option<Files>> {
        let open = |path: &PathBuf| Files::open_with(path.clone(), self.place.files.clone());
        self.place.root.as_ref().map(open).transpose()
    }

    /// Enters the sandbox, once. If this fails, the worker is not confined and must not serve.
    pub(crate) fn confine(&self) -> Result<()> {
        let mut outside = self.confinement.readable.borrow_mut();
        let Some(readable) = &*outside else { return Ok(()) };
        let mut own = vec![self.lifeline.stream().as_raw_fd()];
        own.extend(self.messaging.end().map(|messages| messages.as_raw_fd()));
        let missed = sandbox::enter(self.confinement.sandbox, readable, &own, self.page.is_fixed())?;
        *outside = None;
        for missed in missed {
            // All workers log the same, so only the first one does at this level.
            let level = if (self.id(), self.generation()) == (0, 1) { Level::Info } else { Level::Debug };
            log!(level, "{}: sandbox: continuing without: {missed}", self.tag());
        }
        Ok(())
    }

    /// The sandbox of this worker.
    pub(crate) fn sandbox(&self) -> Sandbox {
        self.confinement.sandbox
    }
}
