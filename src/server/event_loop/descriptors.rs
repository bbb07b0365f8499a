//! The descriptors of a worker: connections leave some of them to files and to the application.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::eventfd::EventFd;
use nix::sys::resource::{getrlimit, Resource};

/// Connections leave an eighth of the worker's descriptors to others, but at most this many.
const LEFT: u64 = 64;

/// Which descriptors are left to others, and whether they are needed.
#[derive(Debug)]
pub(super) struct Descriptors {
    /// The first that is left. The kernel assigns the lowest free number, so a connection with this number or a higher
    /// one has taken one of them.
    first_left: i32,
    /// The number of connections when one of them took the last descriptor that is not left to others.
    tight_at: Option<usize>,
    /// Whether a file has taken one of those that are left.
    is_low: bool,
}

impl Descriptors {
    pub(super) fn new() -> Descriptors {
        Descriptors::of(getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft))
    }

    /// In a process that may have this many.
    fn of(limit: u64) -> Descriptors {
        let first_left = i32::try_from(limit - (limit / 8).min(LEFT)).unwrap_or(i32::MAX);
        Descriptors { first_left, tight_at: None, is_low: false }
    }

    /// A connection has taken this descriptor; `count` is the number of the others.
    pub(super) fn took(&mut self, descriptor: i32, count: usize) {
        if descriptor >= self.first_left - 1 {
            self.tight_at = Some(count);
        }
    }

    /// Whether the next connection may take a descriptor that is left to others; `count` is the number of connections.
    pub(super) fn is_tight(&self, count: usize) -> bool {
        self.tight_at.is_some_and(|tight| count >= tight - tight / 8)
    }

    /// Whether the next descriptor is one of those that are left to others, or there is none.
    pub(super) fn is_short(&self) -> bool {
        EventFd::new().map_or(true, |next| next.as_fd().as_raw_fd() >= self.first_left)
    }

    /// A file is being sent.
    pub(super) fn sends(&mut self, file: BorrowedFd<'_>) {
        self.is_low |= file.as_raw_fd() >= self.first_left;
    }

    /// Whether a file has taken one of those that are left, since the last call.
    pub(super) fn take_low(&mut self) -> bool {
        std::mem::take(&mut self.is_low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_left() {
        let first_left = |limit| Descriptors::of(limit).first_left;
        assert_eq!([4, 40, 512, 1_000_000].map(first_left), [4, 35, 448, 999_936]);
        assert_eq!(first_left(u64::MAX), i32::MAX);
    }

    #[test]
    fn they_are_looked_for_where_there_are_as_many_connections_as_when_they_were_few() {
        let mut descriptors = Descriptors::of(64);
        assert_eq!(descriptors.first_left, 56);
        descriptors.took(54, 40);
        assert!(!descriptors.is_tight(1000));
        descriptors.took(55, 40);
        assert!(descriptors.is_tight(35) && !descriptors.is_tight(34));
    }
}
