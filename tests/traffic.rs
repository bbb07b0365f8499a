//! Which worker gets a connection, and what is lost under load.

mod support;

#[path = "traffic/calls.rs"]
mod calls;
#[path = "traffic/load.rs"]
mod load;
#[path = "traffic/lossless.rs"]
mod lossless;
#[path = "traffic/places.rs"]
mod places;
#[path = "traffic/skew.rs"]
mod skew;
#[path = "traffic/sockets.rs"]
mod sockets;
#[path = "traffic/steer.rs"]
mod steer;
