//! What an application says of its pool, and the one place that forks.

mod builder;
pub(crate) mod run;
#[cfg(feature = "serde")]
mod typed;

pub use builder::{Builder, Pool};
#[cfg(feature = "serde")]
pub use typed::{decode, encode, TypedError};
