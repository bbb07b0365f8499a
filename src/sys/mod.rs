//! The only unsafe code: what no library wraps safely for a process that forks.
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
