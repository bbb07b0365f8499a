//! A pre-fork worker pool for Linux.

mod config;
mod error;
mod http;
mod supervisor;
mod time;

pub use error::{Error, Result};
