//! The built-in server: a mio loop over listeners, connections and their deadlines. Knows no processes.

pub(crate) mod acceptor;
pub(crate) mod access_log;
pub(crate) mod adoption;
pub(crate) mod answer;
pub(crate) mod client;
pub(crate) mod connection;
pub(crate) mod context;
pub(crate) mod deadlines;
pub(crate) mod event_loop;
pub(crate) mod files;
pub(crate) mod http;
pub(crate) mod inbox;
#[cfg(test)]
mod instructions;
pub(crate) mod mailbox;
pub(crate) mod outgoing;
pub(crate) mod station;
#[cfg(test)]
mod tests;
