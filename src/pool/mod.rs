//! What an application configures, and the one place that forks.
//!
//! Its input: a configuration from [`Builder`], and the application's closures. Its output: the result of the pool, in
//! the parent, and a call of the closure, in each worker. It starts the parent and the workers, but does not know what
//! they do.
//!
//! # Files
//!
//! - `builder/`: `Pool` and `Builder`
//! - `run.rs`: forks, and separates parent and worker
//! - `typed.rs`: typed messages (feature `serde`)
//!
//! # How it works
//!
//! **Fork.** The fork happens at the top of the stack, and the parent is a value there. The child drops the whole
//! `Parent`, and with it every descriptor that it must not keep, and never returns to the caller. All signals are
//! blocked from before the fork until the child has dropped the parent's handlers and installed its own; otherwise a
//! signal to the new child would wake the parent through its pipe.
//!
//! # Decisions
//!
//! - **Typed messages are JSON**: other languages, logs and people can read it, and the messages are few and small.
//! - **A pool whose slots are all left empty returns `Ok`**: the application has seen every exit and asked for no
//!   replacement.

mod builder;
pub(crate) mod run;
#[cfg(feature = "serde")]
mod typed;

pub use builder::{Builder, Pool};
#[cfg(feature = "serde")]
pub use typed::{decode, encode, TypedError};
