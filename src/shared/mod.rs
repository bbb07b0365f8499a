//! What two processes of a pool agree on.

pub(crate) mod channel;
pub(crate) mod config;
pub(crate) mod credentials;
pub(crate) mod listener;
pub(crate) mod log_writer;
pub(crate) mod message;
pub(crate) mod outlet;
pub(crate) mod scoreboard;
pub(crate) mod signals;
pub(crate) mod steer;
