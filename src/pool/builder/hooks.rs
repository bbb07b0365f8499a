//! The application's hooks in the parent.

use std::time::Duration;

use super::Builder;
use crate::parent::event::{Event, Exit};
use crate::parent::handle::{Handle, Hook, OnExit};
use crate::parent::supervisor::Respawn;

impl Builder {
    /// Calls `hook` for every [`Event`], in the parent, on its only thread, one at a time and in order. With the
    /// [`Handle`], the hook can restart, scale or stop the pool, and send messages to workers.
    ///
    /// While the hook runs, the parent does nothing else: it neither reaps nor starts workers. The hook must not block,
    /// start threads (fork(2) copies only one), or exit. A panic in it is logged and has no other effect. Workers do
    /// not run the hook, but each drops its copy when it starts, and so runs the `Drop` of the values that the closure
    /// owns. Do not rely on such a `Drop` to run only once.
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

    /// Lets `policy` decide when to replace a worker that has exited without being told to, instead of the pool's own
    /// backoff. It is called before [`Event::Exited`] is reported.
    ///
    /// Unless it returns [`Respawn::Backoff`], the exit does not count for [`give_up`](Builder::give_up), nor for the
    /// rule that the pool ends if all its first workers fail. It is not called for a worker that the pool kills because
    /// of a stall or a timeout: that slot gets its replacement before the worker has exited.
    ///
    /// A slot that is left empty ([`Respawn::Never`]) keeps its sockets, and its neighbours accept its connections. In
    /// the [`Status`](crate::Status) it counts as wanted and not as ready. A rolling restart and [`Handle::scale`]
    /// start it again, and an upgrade starts all slots. If all slots are empty, the pool ends as if it had been asked
    /// to stop: [`run`](Builder::run) returns `Ok`.
    ///
    /// Like the hook of [`on_event`](Builder::on_event), `policy` runs in the parent and must not block. If it panics,
    /// the panic is logged, and `Respawn::Backoff` applies.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use forkpool::{Pool, Respawn, Response};
    ///
    /// fn main() -> forkpool::Result<()> {
    ///     Pool::bind(":8000")
    ///         .on_exit(|exit| match exit.code() {
    ///             // The worker has finished its work.
    ///             Some(0) => Respawn::Never,
    ///             // The worker cannot run with this configuration.
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

    /// Calls the [hook](Builder::on_event) with [`Event::Tick`] at this interval, 1 ms or more. Default: never. Ticks
    /// that were missed are skipped.
    pub fn tick(mut self, period: Duration) -> Builder {
        self.invalid.retain(|it| it.name != "tick");
        self.tick = (!period.is_zero()).then_some(period);
        if !period.is_zero() && period < Duration::from_millis(1) {
            self.mistaken("tick", "tick".into(), "must be 1ms or more, or 0 for never".into());
        }
        self
    }
}
