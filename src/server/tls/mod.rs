//! TLS between a client's socket and its codec.
//!
//! Its input: ciphertext, and what the codec answers. Its output: what clients ask, and ciphertext. The only
//! HTTP it knows is its answer to a client that speaks HTTP without TLS.
//!
//! # Files
//!
//! - `session.rs`: a connection's records, in memory: ciphertext in and plaintext out, and the other way round
//! - `stream.rs`: a socket with its session: what a [`Client`](super::client::Client) is for TCP
//! - `endpoint.rs`: what the sessions of a worker share: the configuration, buffers, counters
//! - `socket.rs`: a connection that the application has taken over
//! - `absent.rs`: the same names without the feature `tls`, for values that cannot exist
//!
//! # How it works
//!
//! A session keeps no buffers between two records: the worker's are lent to it, through the library's unbuffered
//! interface. It only keeps bytes of a record that is incomplete, or that the client's socket has not accepted.
//!
//! **Writing.** Plaintext counts as sent when the socket has accepted the last byte of its records, so a connection
//! that must wait offers the same bytes again. That keeps all of the server's accounting as it is over TCP.
//!
//! **Handshakes** take as long as hundreds of requests. A worker takes few steps of them in each turn, so that others
//! have theirs meanwhile. While some wait for the next turn, it accepts no more connections with TLS, and counts as
//! busy, so that other workers get them. At the limit of handshakes in progress, the one that has waited longest for
//! its client makes room for a new one. Their time counts towards the head timeout.

mod endpoint;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod session;
mod socket;
mod stream;
#[cfg(test)]
mod tests;

#[cfg(feature = "hyper-tls")]
pub(crate) use self::endpoint::{completed, ended_by, STEPS};
pub(crate) use self::endpoint::{Endpoint, CLIENT_TURN_MAX};
#[cfg(feature = "hyper-tls")]
pub(crate) use self::session::describe;
pub use self::socket::TlsSocket;
#[cfg(feature = "hyper-tls")]
pub(crate) use self::stream::NO_TLS;
pub(crate) use self::stream::{Awaited, Stream};
