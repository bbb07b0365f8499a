//! What the application does in the parent.

use std::time::Duration;

use super::Builder;
use crate::parent::event::{Event, Exit};
use crate::parent::handle::{Handle, Hook, OnExit};
use crate::parent::supervisor::Respawn;

impl Builder {
    /// Calls `hook` for every [`Event`], in the parent, on its only thread, one at a time and in their order. The
    /// [`Handle`] lets it restart, scale or stop the pool, and send its workers messages.
    ///
    /// While it runs the parent does nothing else: no worker is reaped or started. It must not block, start threads
    /// (fork(2) copies only one), or exit. A panic in it is logged and changes nothing. Workers do not run it: each
    /// drops its copy at its start, and so runs the `Drop` of what the closure owns; what is to happen once belongs
    /// elsewhere.
    ///
    /// ```no_run
    /// use forkpool::{Event, Pool, Response};
    ///
    /// fn main() -> forkpool::Result<()> {
    ///     Pool::bind(":8000")
    ///         .on_event(|event, pool| match event {
    ///             Event::Ready(process) => println!("worker {} is pid {}", process.worker, process.pid),
    ///             Event::Exited(exit) if exit.code() == Some(7) => pool.stop(),
    ///             _ => {}
    ///         })
    ///         .serve(|_request| Response::text("hello world\n"))
    /// }
    /// ```
    pub fn on_event(mut self, hook: impl FnMut(&Event<'_>, &Handle<'_>) + 'static) -> Builder {
        self.hooks.on_event = Some(Hook::new(hook));
        self
    }

    /// Has `policy` decide when the slot of a worker that has exited without being told to gets another one, in place of
    /// the pool's own backoff. It is asked before [`Event::Exited`] is told.
    ///
    /// An exit that it answers by anything but [`Respawn::Backoff`] does not count for [`give_up`](Builder::give_up),
    /// nor for the rule that a pool whose workers all fail before any was ready ends. It is not asked about a worker
    /// that the pool itself kills because it stalls or is late: the slot of such a one does not wait for its exit.
    ///
    /// A slot that is left empty ([`Respawn::Never`]) keeps its sockets, and its neighbours take what comes. It counts
    /// as wanted, and not as ready, in the [`Status`](crate::Status); a rolling restart and [`Handle::scale`] start it
    /// again, and an upgrade starts all slots anew. When all slots are empty the pool ends, as if it had been asked to
    /// stop: [`run`](Builder::run) returns `Ok`.
    ///
    /// As the hook of [`on_event`](Builder::on_event) it runs in the parent, and must not block. When it panics, that is
    /// logged and the answer is `Respawn::Backoff`.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use forkpool::{Pool, Respawn, Response};
    ///
    /// fn main() -> forkpool::Result<()> {
    ///     Pool::bind(":8000")
    ///         .on_exit(|exit| match exit.code() {
    ///             // It has done its part.
    ///             Some(0) => Respawn::Never,
    ///             // It has found what it cannot work with.
    ///             Some(78) => Respawn::Stop,
    ///             _ if exit.was_ready => Respawn::Now,
    ///             _ => Respawn::After(Duration::from_secs(5)),
    ///         })
    ///         .serve(|_request| Response::text("hello world\n"))
    /// }
    /// ```
    pub fn on_exit(mut self, policy: impl FnMut(&Exit<'_>) -> Respawn + 'static) -> Builder {
        self.hooks.on_exit = Some(OnExit(Box::new(policy)));
        self
    }

    /// Calls the [hook](Builder::on_event) with [`Event::Tick`] at this interval, 1 ms or more. Default never. Missed
    /// ticks are not made up for.
    pub fn tick(mut self, period: Duration) -> Builder {
        self.mistakes.retain(|mistake| mistake.name != "tick");
        self.tick = (!period.is_zero()).then_some(period);
        if !period.is_zero() && period < Duration::from_millis(1) {
            self.mistaken("tick", "tick".into(), "must be 1ms or more, or 0 for never".into());
        }
        self
    }
}
