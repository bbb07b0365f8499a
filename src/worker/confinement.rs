//! How a worker enters its sandbox.

use std::os::fd::AsRawFd;
use std::path::PathBuf;

use log::{log, Level};

use crate::error::{Error, Result};
use crate::server::files::Files;
use crate::shared::config::Sandbox;
use crate::worker::sandbox;

use super::Worker;

impl Worker {
    /// Lets this worker read what `files` serves, also in its [`Sandbox`], which nothing else can be read in. Call it
    /// before the worker is [`ready`](Worker::ready).
    ///
    /// # Errors
    ///
    /// When no descriptor is free.
    pub fn allow_files(&self, files: &Files) -> Result<()> {
        if let Some(readable) = &mut *self.readable.borrow_mut() {
            let reach = files.reach().map_err(|source| Error::system("copy a directory with fcntl(2)", source))?;
            readable.push(reach);
        }
        Ok(())
    }

    /// The files under the pool's root, opened by its path now, as this worker's settings say: what
    /// [`Builder::files`](crate::Builder::files) has, but for what was changed since then in the directory's path or the
    /// [file of variables](crate::Builder::env_file). `None` when no root was said.
    ///
    /// # Errors
    ///
    /// As [`Files::open`].
    pub fn files(&self) -> Result<Option<Files>> {
        let open = |path: &PathBuf| Files::open_with(path.clone(), self.place.files.clone());
        self.place.root.as_ref().map(open).transpose()
    }

    /// Enters the sandbox, once. Where that fails, the worker is not confined, and so must not serve.
    pub(crate) fn confine(&self) -> Result<()> {
        let mut outside = self.readable.borrow_mut();
        let Some(readable) = &*outside else { return Ok(()) };
        let mut own = vec![self.lifeline.stream().as_raw_fd()];
        own.extend(self.messages.as_ref().map(|messages| messages.as_raw_fd()));
        let missed = sandbox::enter(self.sandbox, readable, &own, self.page.is_fixed())?;
        *outside = None;
        for missed in missed {
            // It is the same in all of them.
            let level = if (self.id, self.generation) == (0, 1) { Level::Info } else { Level::Debug };
            log!(level, "{}: sandbox: goes on without: {missed}", self.tag());
        }
        Ok(())
    }

    /// What this worker gives up.
    pub(crate) fn sandbox(&self) -> Sandbox {
        self.sandbox
    }
}
