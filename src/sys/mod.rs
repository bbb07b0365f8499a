//! The only unsafe code: system calls for a process that forks that no library wraps safely.
//!
//! Takes and returns plain values, or the system's error. It does not know what a call is made for.
//!
//! - `process.rs`: fork, exit, execute; `signal.rs`: signal actions; `memory.rs`, `shared.rs`: the allocator's free
//!   memory, and memory that processes share; `fds.rs`: descriptors from and for other processes; `stat.rs`: statx(2);
//!   `options.rs`: socket options; `aborted.rs`: the backtrace of a stalled worker
//! - `notification/`: seccomp_unotify(2); its `filter.rs` (PURE) selects the calls
//! - `bpf.rs`, `cbpf.rs` (PURE), `filter.rs`: extended and classic BPF; `sandbox.rs`: landlock(7) and seccomp(2)
//! - `scan/`, `array.rs`: bytes in steps of vector instructions; an array that is filled from the front
//! - `local.rs`: values that stay on their thread
//! - `clock.rs`: clocks; `epoll.rs`: calls on mio's epoll instance that mio does not make; `proc.rs`: reads /proc;
//!   `title.rs`: the titles of processes
#![allow(unsafe_code)]

pub(crate) mod aborted;
pub(crate) mod array;
pub(crate) mod bpf;
pub(crate) mod cbpf;
pub(crate) mod clock;
pub(crate) mod epoll;
pub(crate) mod fds;
pub(crate) mod filter;
pub(crate) mod local;
pub(crate) mod memory;
pub(crate) mod notification;
pub(crate) mod options;
pub(crate) mod proc;
pub(crate) mod process;
pub(crate) mod sandbox;
pub(crate) mod scan;
pub(crate) mod shared;
pub(crate) mod signal;
pub(crate) mod stat;
pub(crate) mod title;
