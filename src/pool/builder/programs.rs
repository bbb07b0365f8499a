//! How the programs are run that workers execute by [`Worker::exec`](crate::Worker::exec).

use std::ffi::OsStr;
use std::path::PathBuf;

use super::Builder;
use crate::error::Result;
use crate::shared::config::{Adopt, Readiness, StopSignal};

impl Builder {
    /// Sets whether a program that a worker runs by [`Worker::exec`](crate::Worker::exec), and that binds one of the
    /// pool's TCP addresses itself, gets the worker's socket for that address. Default [`Adopt::Auto`].
    ///
    /// The keeper answers the program's bind(2) and listen(2) by seccomp_unotify(2). The socket takes the place of the
    /// program's own, so options that were set on that one before bind(2) are lost. An address fits if the port is the
    /// same and the IP address is the same, a wildcard, or loopback for loopback; a wildcard address of the pool fits
    /// every address of its family. A program that binds an IPv4 address gets no IPv6 socket, whose addresses it would
    /// misread: bind the pool to `0.0.0.0:8000` instead of `:8000` for it, as `forkpool exec` does.
    ///
    /// What is not seen: a program that binds through io_uring(7), or whose memory is hidden, gets no socket; one in a
    /// network namespace of its own gets the pool's.
    ///
    /// A program not started by root then gains no privileges, as by sudo(8) (`PR_SET_NO_NEW_PRIVS`, prctl(2)), and
    /// nothing in it can answer system calls itself, as container runtimes may. In processes that outlive the keeper,
    /// bind(2) fails with `ENOSYS`.
    pub fn adopt(self, adopt: Adopt) -> Builder {
        self.put("adopt", |config| config.program.adopt = adopt)
    }

    /// Sets when the program counts as ready that a worker runs by [`Worker::exec`](crate::Worker::exec). Default
    /// [`Readiness::Auto`].
    pub fn ready(self, readiness: Readiness) -> Builder {
        self.put("ready", |config| config.program.ready = readiness)
    }

    /// Sets the signal that asks the program of [`Worker::exec`](crate::Worker::exec), and every process that it has
    /// started, to finish and exit. Default `TERM`, [`StopSignal::Term`].
    pub fn stop_signal(self, signal: StopSignal) -> Builder {
        self.put("stop-signal", |config| config.program.stop_signal = signal)
    }

    /// Sets whether each line that the programs of [`Worker::exec`](crate::Worker::exec) write to stdout and stderr
    /// begins with `worker=ID pid=PID `. Default `false`. Workers that run no program write as they are.
    ///
    /// The program's stdout and stderr are then pipes to its keeper, which passes them on line by line; a line of more
    /// than 64 KiB comes in parts. While nobody reads the pool's output, the program waits.
    pub fn prefix(self, prefix: bool) -> Builder {
        self.put("prefix", |config| config.program.prefix = prefix)
    }

    /// The workers run nothing but programs, by [`Worker::exec`](crate::Worker::exec). Then a setting of the built-in
    /// server in the [file of variables](Builder::env_file) is an error, since it would have no effect. And `:PORT`
    /// means IPv4, except with [`Adopt::Off`]: a program for IPv4 would misread the addresses of an IPv6 socket.
    pub fn programs_only(mut self) -> Builder {
        self.config.program.are_all = true;
        self
    }

    /// Returns the file that a worker would execute for this name by [`Worker::exec`](crate::Worker::exec), in the
    /// environment and the working directory that this builder describes: PATH is searched unless the name has a slash.
    /// So a missing program is noticed before the pool starts.
    ///
    /// # Errors
    ///
    /// As [`check`](Builder::check), and when there is no such file or it cannot be executed. Whether the workers' user
    /// may execute it is not checked.
    pub fn find_program(&self, name: impl AsRef<OsStr>) -> Result<PathBuf> {
        self.resolved()?.find_program(name.as_ref())
    }
}
