//! TLS: the certificates of a pool, and the tickets by which clients resume their sessions with any worker.
//!
//! The parent reads certificates and keys with its own rights, at the start and at each restart, and checks them.
//! Workers inherit them by fork(2). So a certificate is renewed by a rolling restart, and a pair of files that does not
//! fit aborts it before the first worker is replaced.
//!
//! # Files
//!
//! - `settings.rs`: PURE. What the pool is told; all that is there without the feature `tls`
//! - `files.rs`: reads the files that settings name
//! - `pem.rs`: PURE. Certificates and keys in PEM, and what to do with other files
//! - `keyring.rs`: checks certificates and keys; the configuration for rustls
//! - `der.rs`: PURE. The few fields of a certificate that the pool needs: names, issuer, times
//! - `choice.rs`: which certificate a client gets
//! - `tickets.rs`: seals and opens tickets; `secrets.rs`: the secrets from which their keys follow, in shared memory
//!
//! # Decisions
//!
//! - **Secrets of tickets lie in memory that the parent writes and workers read.** rustls draws the keys of its own
//!   tickets in each process, so a client would only resume with the worker that it has had before: one of N, and none
//!   after a restart. Here a secret has a number, which is in the ticket. The parent draws the next one long before it
//!   is used, so all workers have it when the first of them uses it, whenever they were started.
//! - **A ticket is valid for one to two periods**: its secret is used for new tickets for one period, and opens old
//!   ones for another one. Its age is limited to one period by itself.
//! - **Each ticket has a key of its own**, by HKDF from the secret, a random salt, and a digest of the certificates'
//!   names and of how clients are authenticated. So a renewed certificate for the same names goes on resuming, and
//!   sessions that were made under other rules do not. No nonce can repeat.
//! - **At an upgrade the secrets are passed on in a sealed file in memory**, like the sockets.

#[cfg(feature = "tls")]
mod choice;
#[cfg(feature = "tls")]
mod der;
#[cfg(feature = "tls")]
mod files;
#[cfg(feature = "tls")]
mod keyring;
#[cfg(feature = "tls")]
mod pem;
#[cfg(feature = "tls")]
mod secrets;
mod settings;
#[cfg(feature = "tls")]
mod tickets;

#[cfg(feature = "tls")]
pub(crate) use self::choice::take_server_name;
#[cfg(all(feature = "tls", any(fuzzing, test)))]
pub(crate) use self::keyring::server_config_for;
#[cfg(feature = "tls")]
pub(crate) use self::keyring::Keyring;
#[cfg(feature = "tls")]
pub(crate) use self::secrets::{check_secret, SecretBoard, Secrets};
pub(crate) use self::settings::{IdentityConfig, TicketConfig};
pub use self::settings::{TlsClientAuth, TlsVersion};
