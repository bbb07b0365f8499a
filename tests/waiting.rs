//! Tests of timeouts, long responses and disconnected clients. They mostly wait, so they are one program and wait at
//! the same time.

mod support;

#[path = "waiting/disconnects.rs"]
mod disconnects;
#[path = "waiting/freeze.rs"]
mod freeze;
#[path = "waiting/long_responses.rs"]
mod long_responses;
#[path = "waiting/memory.rs"]
mod memory;
#[path = "waiting/slow_clients.rs"]
mod slow_clients;
#[path = "waiting/vanished.rs"]
mod vanished;
