//! How many workers there are, what they do when one fails, and when they are replaced.

use std::time::Duration;

use super::Builder;
use crate::shared::config::{OnPanic, OnStall, Readiness};

impl Builder {
    /// Worker processes, 1 to 1024. Default `auto`: one for each CPU that affinity (sched_getaffinity(2)) and the cgroup's CPU
    /// quota leave, which is also said by `set("workers", "auto")`.
    pub fn workers(self, count: usize) -> Builder {
        self.put("workers", |config| config.workers = Some(count))
    }

    /// Whether each worker stays on one of the CPUs that affinity (sched_setaffinity(2)) leaves. Default `false`.
    pub fn pin(self, pin: bool) -> Builder {
        self.put("pin", |config| config.pin = pin)
    }

    /// How long a worker told to stop may finish its requests before it is killed. Default 25 s: Kubernetes kills
    /// everything 30 s after its SIGTERM, and the parent wants to see the end of its workers and say so.
    pub fn drain_timeout(self, timeout: Duration) -> Builder {
        self.put("drain-timeout", |config| config.drain_timeout = timeout)
    }

    /// How long a worker may take from its fork until it is ready, before it is replaced. Default 60 s, as some load
    /// much data.
    pub fn boot_timeout(self, timeout: Duration) -> Builder {
        self.put("boot-timeout", |config| config.boot_timeout = timeout)
    }

    /// How long a worker may be busy with one request before it counts as hung and is replaced. Default 60 s; at least
    /// 100 ms. It watches workers that run [`Worker::serve`](crate::Worker::serve).
    pub fn stall_timeout(self, timeout: Duration) -> Builder {
        self.put("stall-timeout", |config| config.stall_timeout = timeout)
    }

    /// What a panic in a handler ends. Default [`OnPanic::Answer`]: a worker has many clients, and most panics concern
    /// one.
    pub fn on_panic(self, end: OnPanic) -> Builder {
        self.put("on-panic", |config| config.server.on_panic = end)
    }

    /// How a worker that hangs is ended. Default [`OnStall::Kill`].
    ///
    /// With [`OnStall::Abort`] the log gets an address for each frame, as `PATH+0xOFFSET`, since naming functions takes memory, and the handler may
    /// have been interrupted while it was getting some. `addr2line -Cfpie PATH 0xOFFSET ...` (binutils) names them, where the
    /// program has not been stripped.
    pub fn on_stall(self, end: OnStall) -> Builder {
        self.put("on-stall", |config| config.on_stall = end)
    }

    /// Workers that a rolling restart replaces at a time. Default 1: the least memory, and the least that a bad new
    /// version can break. The new ones start while the old ones serve.
    pub fn surge(self, workers: usize) -> Builder {
        self.put("surge", |config| config.surge = workers)
    }

    /// How long to go on serving after SIGTERM or SIGQUIT, as not ready any more, before the drain begins, so that
    /// balancers look elsewhere first. Default 0, not at all.
    pub fn lame_duck(self, delay: Duration) -> Builder {
        self.put("lame-duck", |config| config.lame_duck = delay)
    }

    /// Workers of one slot in a row that end the pool with [`Error::GaveUp`](crate::Error::GaveUp) if they fail and have never served, after the
    /// others have drained. Default 0, never: the others serve, and the slot is tried again every few seconds. A worker
    /// that has served does not count, so that no client can end the pool by what it sends.
    pub fn give_up(self, failures: u32) -> Builder {
        self.put("give-up", |config| config.give_up = failures)
    }

    /// Requests after which a worker is replaced, or up to a tenth fewer, so that not all are due at once. Default 0,
    /// no limit. The replacement starts first, and one worker is replaced at a time, in each slot at most about once a
    /// second. It counts what [`Worker::serve`](crate::Worker::serve) serves.
    pub fn max_requests(self, requests: u64) -> Builder {
        self.put("max-requests", |config| config.max_requests = requests)
    }

    /// Time after which a worker is replaced as by [`max_requests`](Builder::max_requests), or up to a tenth less.
    /// Default 0, no limit.
    pub fn max_age(self, age: Duration) -> Builder {
        self.put("max-age", |config| config.max_age = age)
    }

    /// Bytes of resident memory, shared ones included, beyond which a worker is replaced as by
    /// [`max_requests`](Builder::max_requests). Default 0, no limit; otherwise the parent looks once a second.
    pub fn max_rss(self, bytes: usize) -> Builder {
        self.put("max-rss", |config| config.max_rss = bytes)
    }

    /// Files for whose changes there is a rolling restart, once they have been quiet for 200 ms: for development. Default:
    /// none. Each call adds a pattern: a directory with all below it, a file, or a path in which `*` and `?` are parts of a
    /// name and `**` any directories.
    ///
    /// A restart that fails leaves the workers as they are, and the next change tries again. What a worker writes itself
    /// had better not be among them.
    pub fn watch(self, pattern: impl Into<String>) -> Builder {
        self.put("watch", |config| config.watch.push(pattern.into()))
    }

    /// When the program counts as ready that a worker becomes by [`Worker::exec`](crate::Worker::exec). Default [`Readiness::Listen`].
    pub fn readiness(self, readiness: Readiness) -> Builder {
        self.put("readiness", |config| config.readiness = readiness)
    }

    /// Has every line that workers, or the programs that they execute, write to stdout and stderr begin with
    /// `worker=ID pid=PID `. Default `false`.
    ///
    /// The two are pipes to the parent then, from the start of each worker on. The parent passes on line by line; one of
    /// more than 64 KiB comes in parts. When nobody reads the parent's output, writers wait. Once the parent has died,
    /// writing fails (EPIPE), and so it does for what a process leaves behind that has ended some seconds ago.
    pub fn prefix_output(self, prefix: bool) -> Builder {
        self.put("prefix-output", |config| config.prefix = prefix)
    }

    /// Whether workers may send descriptors up with their messages ([`Worker::send_with`](crate::Worker::send_with)), as
    /// [`Event::Message`](crate::Event::Message) gives them to the [hook](Builder::on_event). Default `false`: a worker that sends one all the
    /// same gets an error, or is killed on a kernel before Linux 6.16.
    ///
    /// A hook that keeps a copy closes it in the parent, and close(2) may wait there: for a socket with SO_LINGER, which
    /// the worker can set. The parent's own copy never makes it wait. A message waits while the parent has no descriptor
    /// free for the one that comes with it, and the log says so.
    pub fn accept_descriptors(self, take: bool) -> Builder {
        self.put("accept-descriptors", |config| config.accept_descriptors = take)
    }

    /// Percent of the parent's time that reading the messages of one worker may take; what the [hook](Builder::on_event)
    /// does with them is its own affair. Default 2, which is some 20 000 short messages a second, and what has not been used
    /// of it for five seconds may come at once: a worker that was broken into and floods the parent costs it next to nothing.
    /// Who sends more gets [`MessageError::Full`](crate::MessageError::Full) until they are read.
    ///
    /// Where workers are to send more, and are trusted, say more; 100 and above is no limit. Signals, exits and other workers
    /// never wait for more than a few milliseconds of one worker's messages.
    pub fn message_share(self, percent: u32) -> Builder {
        self.put("message-share", |config| config.message_share = percent)
    }
}
