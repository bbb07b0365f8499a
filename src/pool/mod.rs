//! What an application says of its pool, and the one place that forks.
//!
//! In goes a configuration, by [`Builder`], and the application's closures; out comes the pool's
//! result, in the parent, and a call of the closure in each worker. It may not know what the parent and the workers
//! do: it starts the one and the others.
//!
//! # Files
//!
//! - `builder/`: Pool and Builder: what a program says about its pool
//! - `run.rs`: the one place that forks, and where parent and worker part
//! - `typed.rs`: messages as values (feature `serde`)
//!
//! # How it works
//!
//! **Fork.** At the top of the stack, by value: the child drops the whole `Parent`, and with it every descriptor that
//! it must not hold, and never returns to the caller. All signals are blocked from before the fork until the child
//! has dropped the parent's handlers and installed its own, since a signal to the new child would otherwise wake the
//! parent's pipe.
//!
//! # Decisions
//!
//! - **Typed messages are JSON**: other languages, logs and people can read them; they are few and small.
//! - **A pool whose slots are all left empty ends with `Ok`**: its application has seen every exit and wanted no
//!   other worker.

mod builder;
pub(crate) mod run;
#[cfg(feature = "serde")]
mod typed;

pub use builder::{Builder, Pool};
#[cfg(feature = "serde")]
pub use typed::{decode, encode, TypedError};
