//! Texts that several processes log in the same words.

use std::any::Any;
use std::fmt::Display;

/// How the log names the process of a worker.
pub(crate) fn tag(slot: usize, generation: u64, pid: impl Display) -> String {
    format!("worker={slot} gen={generation} pid={pid}")
}

/// The message of a caught panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}
