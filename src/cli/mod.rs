//! The binary: reads arguments and variables, runs a pool, and controls a running one through its admin process.
//!
//! Its input: the command line and the environment. Its output: text, exit codes, and calls of the library. It uses
//! nothing of the library that is not public.
//!
//! # Files
//!
//! - `parse.rs`: parses the command line; `flags.rs`: the settings of a pool, from flags and variables
//! - `variables.rs`: PURE. Variables that were probably meant to be settings
//! - `verbs.rs`: the table of verbs
//! - `client.rs`: the HTTP client for the admin process
//! - `operate.rs`, `top.rs`: carry out the verbs; `table.rs` (PURE): what `top` shows
//! - `exec.rs`: a program as the worker
//! - `output.rs`, `log.rs`: prints, and logs
//! - `text.rs`, `man.rs`, `shell.rs`: help, man page and completions, made from the table of verbs and the settings
//!
//! # Decisions
//!
//! - **lexopt splits the arguments.** Everything else follows from the table of settings, which the library needs for
//!   its variables anyway: help, defaults, checks, precedence.
//! - **A verb learns the outcome of its command from the events**, and reads the status only for what no event says.
//! - **A verb does not trust the address**: any program may listen there. The verb recognizes an admin process by its
//!   Server field, bounds what it reads in bytes and time, and sends the token only with a command. If the pool is down
//!   and another program has bound its port, that program still gets the token; with a Unix socket, the directory's
//!   permissions prevent that.

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
mod variables;
mod verbs;

pub(crate) use self::parse::{parse, Invocation, Options};
pub(crate) use self::variables::misspelt;

#[cfg(test)]
mod tests;
