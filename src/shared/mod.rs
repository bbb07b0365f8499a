//! What two processes of a pool agree on.

pub(crate) mod channel;
pub(crate) mod config;
pub(crate) mod counters;
pub(crate) mod credentials;
pub(crate) mod latency;
pub(crate) mod listener;
pub(crate) mod log_file;
pub(crate) mod log_text;
pub(crate) mod log_writer;
pub(crate) mod message;
pub(crate) mod outlet;
pub(crate) mod scoreboard;
pub(crate) mod seats;
pub(crate) mod signals;
pub(crate) mod state;
pub(crate) mod steer;
