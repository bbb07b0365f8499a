//! How the programs are run that workers execute by [`Worker::exec`](crate::Worker::exec).

use super::Builder;
use crate::shared::config::{Readiness, StopSignal};

impl Builder {
    /// Sets when the program counts as ready that a worker runs by [`Worker::exec`](crate::Worker::exec). Default
    /// [`Readiness::Auto`].
    pub fn ready(self, readiness: Readiness) -> Builder {
        self.put("ready", |config| config.ready = readiness)
    }

    /// Sets the signal that asks the program of [`Worker::exec`](crate::Worker::exec), and every process that it has started, to
    /// finish and exit. Default `TERM`, [`StopSignal::Term`].
    pub fn stop_signal(self, signal: StopSignal) -> Builder {
        self.put("stop-signal", |config| config.stop_signal = signal)
    }

    /// Sets whether each line that the programs of [`Worker::exec`](crate::Worker::exec) write to stdout and stderr begins
    /// with `worker=ID pid=PID `. Default `false`. Workers that run no program write as they are.
    ///
    /// The program's stdout and stderr are then pipes to its keeper, which passes them on line by line; a line of more
    /// than 64 KiB comes in parts. While nobody reads the pool's output, the program waits.
    pub fn prefix(self, prefix: bool) -> Builder {
        self.put("prefix", |config| config.prefix = prefix)
    }
}
