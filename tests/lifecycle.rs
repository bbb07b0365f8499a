//! How a pool starts, replaces its workers, upgrades and stops. These tests mostly wait, so they are one program and
//! wait at the same time.

mod support;

#[path = "lifecycle/crash.rs"]
mod crash;
#[path = "lifecycle/drain.rs"]
mod drain;
#[path = "lifecycle/last_request.rs"]
mod last_request;
#[path = "lifecycle/paths.rs"]
mod paths;
#[path = "lifecycle/replace.rs"]
mod replace;
#[path = "lifecycle/service.rs"]
mod service;
#[path = "lifecycle/signals.rs"]
mod signals;
#[path = "lifecycle/upgrade.rs"]
mod upgrade;
