//! The one place that forks. Here parent and worker part.

use crate::error::{Error, Result};
use crate::parent::handle::Hooks;
use crate::parent::{Child, NextStep, Parent};
use crate::shared::config::{Config, Layers};
use crate::shared::signals;
use crate::sys::process::{fork, Fork};
use crate::sys::title::{arguments, Title};
use crate::worker::{self, Main};

/// Runs a pool to its end in this process, and `main` in each worker. `config` is the current result of `layers`.
///
/// The fork happens at the top of the stack, so the child owns the `Parent` and drops it whole, with every descriptor
/// in it. `main` is moved into the one child of each fork, which never returns to the caller.
pub(crate) fn run(layers: Layers, config: Config, hooks: Hooks, main: Main<'_>) -> Result<()> {
    let is_titled = config.process.titles;
    let mut parent = Parent::start(layers, config, hooks)?;
    // Not all kernels can. A worker replaces it, and a process that goes on after the pool has its own again.
    let _title = is_titled.then(|| Title::set(&format!("parent, {}", arguments().to_string_lossy())));
    loop {
        match parent.turn()? {
            NextStep::Finished(result) => return result,
            NextStep::Fork(child) => {
                let masked = signals::block_all()
                    .map_err(|source| Error::system("block signals for a fork with sigprocmask(2)", source))?;
                match fork() {
                    Ok(Fork::Parent(pid)) => parent.forked(pid),
                    Ok(Fork::Child) => {
                        drop(parent);
                        match child {
                            Child::Worker(seed) => worker::start(*seed, masked, main),
                            Child::Admin(seed, desk) => {
                                worker::start(*seed, masked, Box::new(|worker| desk.serve(worker)))
                            }
                        }
                    }
                    Err(error) => parent.fork_failed(&error),
                }
            }
        }
    }
}
