//! Tests that mostly wait: for slow clients, late responses, long-lived connections, lost machines, and a pool that stands still. They
//! are one program, so that they wait at the same time.

mod support;

#[path = "waiting/ending.rs"]
mod ending;
#[path = "waiting/freeze.rs"]
mod freeze;
#[path = "waiting/gone.rs"]
mod gone;
#[path = "waiting/lost.rs"]
mod lost;
#[path = "waiting/memory.rs"]
mod memory;
#[path = "waiting/patience.rs"]
mod patience;
