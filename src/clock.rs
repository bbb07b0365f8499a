//! Reads the system's clocks. The pure parts are given what it returns.

use nix::time::{clock_gettime, ClockId};

use crate::time::Time;

/// Now. It costs no system call (vdso(7)).
pub(crate) fn now() -> Time {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Seconds since 1970, for the `Date` field.
pub(crate) fn unix_seconds() -> u64 {
    clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or(0, |t| u64::try_from(t.tv_sec()).unwrap_or(0))
}

/// Milliseconds since 1970, for the access log.
pub(crate) fn unix_millis() -> u64 {
    read(ClockId::CLOCK_REALTIME).as_millis()
}

fn read(clock: ClockId) -> Time {
    // Fails only for a clock that the kernel does not know; these are older than epoll.
    let t = clock_gettime(clock).expect("every Linux has these clocks");
    Time::from_millis(t.tv_sec() as u64 * 1000 + t.tv_nsec() as u64 / 1_000_000)
}
