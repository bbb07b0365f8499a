//! The binary: it reads arguments and variables, runs a pool, and asks a running one by its admin process.
//!
//! In go the command line and the environment; out come text, exit codes, and calls of the library. It may know
//! nothing of the library but what everybody may use.
//!
//! # Files
//!
//! - `parse.rs`: the command line becomes what is asked for; `flags.rs`: what it says of a pool, over the variables
//! - `verbs.rs`: the one table of verbs
//! - `client.rs`: HTTP to an admin process
//! - `operate.rs` and `top.rs`: what the verbs do; `table.rs` (PURE): what `top` shows
//! - `exec.rs`: a program as the worker
//! - `output.rs` and `log.rs`: what it prints, and its log
//! - `text.rs`, `man.rs` and `shell.rs`: help, man page and completions, all of that table and the settings
//!
//! # Decisions
//!
//! - **The binary's arguments are split by lexopt**, and everything else about them follows from the one table of
//!   settings, which the library needs for its variables anyway: help, defaults, checks, precedence.
//! - **A verb learns from the events what has become of its command**, and looks at the status only for what no event
//!   says.
//! - **A verb trusts nobody**: it may be anything that has the address. It takes an answer for an admin process's by
//!   its Server field, bounds what it reads in bytes and time, and shows its token only when it commands. Whoever has
//!   bound the port of a pool that is down is still shown it then: only a Unix socket's directory says who can be
//!   there.

mod client;
mod exec;
mod flags;
pub(crate) mod log;
mod man;
mod operate;
pub(crate) mod output;
mod parse;
mod shell;
mod table;
mod text;
mod top;
mod verbs;

pub(crate) use self::parse::{parse, Asked, Options};

#[cfg(test)]
mod tests;
