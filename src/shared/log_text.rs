//! What several processes say in the same words in the log.

use std::any::Any;
use std::fmt::Display;

/// How the log names a worker's process.
pub(crate) fn tag(slot: usize, generation: u64, pid: impl Display) -> String {
    format!("worker={slot} gen={generation} pid={pid}")
}

/// What a caught panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}
