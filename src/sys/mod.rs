//! The only unsafe code: what no library wraps safely for a process that forks.
//!
//! In go values of ours, out come those of the system, or its error. It may not know what a call is made for.
//!
//! - `process.rs`: fork, exit, execute; `signal.rs`: signal actions; `memory.rs` and `shared.rs`: the allocator's spare pages, and
//!   memory that processes share; `fds.rs`: descriptors from elsewhere and for a program; `stat.rs`: statx(2); `options.rs`: socket options; `aborted.rs`: where a stalled
//!   worker was
//! - `bpf.rs`, `cbpf.rs` (PURE) and `filter.rs`: BPF, extended and classic; `sandbox.rs`: landlock(7) and seccomp(2)
//! - `clock.rs`: reading clocks; `epoll.rs`: what mio does not do with its epoll instance; `proc.rs`: what /proc says
#![allow(unsafe_code)]

pub(crate) mod aborted;
pub(crate) mod bpf;
pub(crate) mod cbpf;
pub(crate) mod clock;
pub(crate) mod epoll;
pub(crate) mod fds;
pub(crate) mod filter;
pub(crate) mod memory;
pub(crate) mod options;
pub(crate) mod proc;
pub(crate) mod process;
pub(crate) mod sandbox;
pub(crate) mod shared;
pub(crate) mod signal;
pub(crate) mod stat;
