//! Reads the system's clocks. The pure parts get the results as arguments.

use nix::sys::time::TimeSpec;
use nix::time::{clock_gettime, ClockId};

use crate::time::Time;

/// The current time. Needs no system call (vdso(7)).
pub(crate) fn now() -> Time {
    Time::from_millis(millis(read(ClockId::CLOCK_MONOTONIC)))
}

/// The current time as of the kernel's last tick, a few milliseconds ago at most. Takes a quarter of the time of
/// [`now`].
pub(crate) fn coarse_now() -> Time {
    Time::from_millis(millis(read(ClockId::CLOCK_MONOTONIC_COARSE)))
}

/// The current time in microseconds, for spans shorter than the resolution of [`Time`].
pub(crate) fn now_micros() -> u64 {
    let t = read(ClockId::CLOCK_MONOTONIC);
    t.tv_sec() as u64 * 1_000_000 + t.tv_nsec() as u64 / 1000
}

/// Milliseconds since 1970, for people and for the `Date` field.
pub(crate) fn unix_millis() -> u64 {
    millis(read(ClockId::CLOCK_REALTIME))
}

fn read(clock: ClockId) -> TimeSpec {
    // Fails only for a clock that the kernel does not know, and these are older than epoll.
    clock_gettime(clock).expect("every Linux has these clocks")
}

fn millis(t: TimeSpec) -> u64 {
    t.tv_sec() as u64 * 1000 + t.tv_nsec() as u64 / 1_000_000
}
