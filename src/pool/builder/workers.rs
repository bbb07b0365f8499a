//! The number of workers, their timeouts, failures and replacement.

use std::time::Duration;

use super::Builder;
use crate::shared::config::{OnPanic, OnStall, Rebalance};

impl Builder {
    /// Sets the number of worker processes, 1 to 1024. Default `auto`, which is also what `set("workers", "auto")`
    /// sets: one worker for each CPU that the affinity mask (sched_getaffinity(2)) and the cgroup's CPU quota allow.
    pub fn workers(self, count: usize) -> Builder {
        self.put("workers", |config| config.workers.count = Some(count))
    }

    /// Sets whether each worker is pinned to one of the CPUs that the affinity mask allows (sched_setaffinity(2)).
    /// Default `false`.
    pub fn pin(self, pin: bool) -> Builder {
        self.put("pin", |config| config.workers.pin = pin)
    }

    /// Sets how long a stopping worker may take to finish its requests before it is killed. Default 25 s: Kubernetes
    /// kills everything 30 s after its SIGTERM, and the parent needs time to report the end of its workers.
    pub fn drain_timeout(self, timeout: Duration) -> Builder {
        self.put("drain-timeout", |config| config.lifecycle.drain_timeout = timeout)
    }

    /// Sets how long a worker may take from its fork to [`ready`](crate::Worker::ready) before it is killed and
    /// replaced. Default 60 s, since some workers load much data.
    pub fn boot_timeout(self, timeout: Duration) -> Builder {
        self.put("boot-timeout", |config| config.lifecycle.boot_timeout = timeout)
    }

    /// Sets how long a worker may be busy with one request before it is killed and replaced as hung. Default 60 s; at
    /// least 100 ms. It applies to workers that run [`Worker::serve`](crate::Worker::serve) or use a
    /// [`Meter`](crate::Meter).
    pub fn stall_timeout(self, timeout: Duration) -> Builder {
        self.put("stall-timeout", |config| config.lifecycle.stall_timeout = timeout)
    }

    /// Sets what a panic in a handler ends. Default [`OnPanic::Answer`]: a worker has many clients, and most panics
    /// concern one.
    pub fn on_panic(self, end: OnPanic) -> Builder {
        self.put("on-panic", |config| config.server.on_panic = end)
    }

    /// Sets whether the log names the request in which a worker hangs or dies, by its method and the beginning of its
    /// path, without the query. Default `true`. It is the request that the handler has at that time; what other threads
    /// do is not known. Other workers of the pool can read it while it lasts.
    pub fn name_requests(self, are_named: bool) -> Builder {
        self.put("name-requests", |config| config.server.name_requests = are_named)
    }

    /// Sets how long the application may take to answer a request before the log says so. Default 0, never.
    ///
    /// The time counts from when the handler gets the request to when the response is there, also a
    /// [deferred](crate::Response::deferred) one; not while a client sends its body or reads the response. The line
    /// names the request as [`name_requests`](Builder::name_requests) allows. At most ten are logged a second, with the
    /// number of the others.
    pub fn slow_request(self, limit: Duration) -> Builder {
        self.put("slow-request", |config| config.server.slow_request = limit)
    }

    /// Sets how a hung worker is ended. Default [`OnStall::Kill`].
    ///
    /// With [`OnStall::Abort`], the log gets a backtrace of addresses, as `PATH+0xOFFSET`. Function names would need
    /// memory, which is not safe to allocate in an interrupted handler. `addr2line -Cfpie PATH 0xOFFSET ...` (binutils)
    /// prints the names, unless the program is stripped.
    pub fn on_stall(self, end: OnStall) -> Builder {
        self.put("on-stall", |config| config.lifecycle.on_stall = end)
    }

    /// Sets whether workers pass kept connections to each other, between two requests, so that all have about as many.
    /// Default [`Rebalance::Auto`].
    ///
    /// New connections go to the workers that have the fewest, but clients that keep theirs make none. So after a pool
    /// was scaled up, its old workers would keep all the load. A worker that is busy most of the time, while another is
    /// not, also passes on a part of those of its connections that have had a request lately; this needs a stall
    /// timeout, as only then the parent sees which workers are busy. Concerns workers that run
    /// [`Worker::serve`](crate::Worker::serve).
    pub fn rebalance(self, rebalance: Rebalance) -> Builder {
        self.put("rebalance", |config| config.workers.rebalance = rebalance)
    }

    /// Sets how many workers a rolling restart replaces at a time. Default 1, which needs the least memory and exposes
    /// the fewest clients to a bad new version. The replacements start while the old workers still serve.
    pub fn surge(self, workers: usize) -> Builder {
        self.put("surge", |config| config.lifecycle.surge = workers)
    }

    /// Sets how long to go on serving after SIGTERM or SIGQUIT while reporting not ready, so that load balancers stop
    /// sending clients before the drain begins. Default 0, no delay.
    pub fn lame_duck(self, delay: Duration) -> Builder {
        self.put("lame-duck", |config| config.lifecycle.lame_duck = delay)
    }

    /// Ends the pool with [`Error::GaveUp`](crate::Error::GaveUp), after a drain, when this many workers of one slot in
    /// a row have failed without ever serving. Default 0, never: the other workers serve, and the slot is retried every
    /// few seconds.
    ///
    /// A worker that has served does not count, so no client can end the pool by its requests.
    pub fn give_up(self, failures: u32) -> Builder {
        self.put("give-up", |config| config.lifecycle.give_up = failures)
    }

    /// Replaces a worker after this many requests, or up to a tenth fewer, so that not all workers are due at once.
    /// Default 0, no limit.
    ///
    /// The replacement starts first. One worker is replaced at a time, and each slot at most about once a second. Only
    /// requests served by [`Worker::serve`](crate::Worker::serve) count.
    pub fn max_requests(self, requests: u64) -> Builder {
        self.put("max-requests", |config| config.recycling.max_requests = requests)
    }

    /// Replaces a worker after this time, or up to a tenth less, in the same way as
    /// [`max_requests`](Builder::max_requests). Default 0, no limit.
    pub fn max_age(self, age: Duration) -> Builder {
        self.put("max-age", |config| config.recycling.max_age = age)
    }

    /// Replaces a worker whose resident memory in bytes, shared memory included, exceeds this, in the same way as
    /// [`max_requests`](Builder::max_requests). Default 0, no limit; otherwise the parent checks once a second.
    pub fn max_rss(self, bytes: usize) -> Builder {
        self.put("max-rss", |config| config.recycling.max_rss = bytes)
    }

    /// For development: starts a rolling restart when files change and no further change follows for 200 ms. Default:
    /// none. Each call adds a pattern: a file, a directory with everything below it, or a path in which `*` and `?`
    /// match within a name and `**` matches any directories.
    ///
    /// A restart that fails leaves the workers as they are, and the next change tries again. Do not watch files that
    /// the workers write.
    pub fn watch(self, pattern: impl Into<String>) -> Builder {
        self.put("watch", |config| config.process.watch.push(pattern.into()))
    }

    /// Sets whether workers may send file descriptors with their messages
    /// ([`Worker::send_with`](crate::Worker::send_with)), which [`Event::Message`](crate::Event::Message) passes to the
    /// [hook](Builder::on_event). Default `false`: a worker that sends one anyway gets an error, or is killed on
    /// kernels before Linux 6.16.
    ///
    /// Closing a descriptor that the hook has kept may block the parent: close(2) waits on a socket with SO_LINGER,
    /// which the worker can set. The parent's own copy never blocks it. While the parent has no free descriptor,
    /// messages with a descriptor wait, and the log says so.
    pub fn accept_descriptors(self, take: bool) -> Builder {
        self.put("accept-descriptors", |config| config.application.accept_descriptors = take)
    }

    /// Sets what percentage of the parent's time may go into reading the messages of one worker; time spent in the
    /// [hook](Builder::on_event) does not count. Default 2, which is about 20 000 short messages a second; what was not
    /// used in the last five seconds may come at once. A worker that sends more gets
    /// [`MessageError::Full`](crate::MessageError::Full) until its messages are read.
    ///
    /// The limit keeps a worker that was broken into from flooding the parent. Raise it for trusted workers that send
    /// more; 100 and above is no limit. Signals, exits and other workers never wait for more than a few milliseconds of
    /// one worker's messages.
    pub fn message_share(self, percent: u32) -> Builder {
        self.put("message-share", |config| config.application.message_share = percent)
    }
}
