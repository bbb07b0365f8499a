//! Logs a backtrace when a process is aborted, from within the signal handler. It has addresses only: finding the names
//! of functions would allocate, and the signal may have interrupted the allocator.

use std::ffi::{c_int, c_void};
use std::{fs, io};

use nix::sys::signal::Signal;
use signal_hook::low_level;

/// The number of frames logged, innermost first.
const FRAMES: usize = 48;
/// The length that a pipe accepts whole (pipe(7), `PIPE_BUF`).
const LINE: usize = 4096;

/// The unwinder of the C compiler, which every Rust program has for its panics.
mod unwind {
    use super::{c_int, c_void};
    pub(super) type Callback = extern "C" fn(context: *mut c_void, argument: *mut c_void) -> c_int;
    unsafe extern "C" {
        pub(super) fn _Unwind_Backtrace(callback: Callback, argument: *mut c_void) -> c_int;
        pub(super) fn _Unwind_GetIP(context: *mut c_void) -> usize;
    }
}

/// A program or library in memory.
struct Object {
    start: usize,
    end: usize,
    name: String,
}

struct Frames {
    addresses: [usize; FRAMES],
    count: usize,
}

/// Makes SIGABRT log to stderr where this process is, before it dies of the signal: `PROGRAM+0xOFFSET` for each frame,
/// as addr2line(1) reads it.
pub(crate) fn tell_where(tag: &str) -> io::Result<()> {
    let (head, objects) = (format!("{tag} aborted here:"), objects());
    // Runs the unwinder once, since it may allocate at its first use.
    frames();
    let tell = move || {
        let (mut line, mut len) = ([0_u8; LINE], 0);
        put(&mut line, &mut len, head.as_bytes());
        let frames = frames();
        for address in &frames.addresses[..frames.count] {
            put(&mut line, &mut len, b" ");
            let object = objects.iter().find(|object| (object.start..object.end).contains(address));
            if let Some(object) = object {
                put(&mut line, &mut len, object.name.as_bytes());
                put(&mut line, &mut len, b"+");
            }
            put_hex(&mut line, &mut len, address - object.map_or(0, |object| object.start));
        }
        put(&mut line, &mut len, b"\n");
        // SAFETY: `line` has this many bytes.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), len) };
        // Acts as if there were no handler; dumps core if that is enabled. Does not return.
        let _ = low_level::emulate_default_handler(libc::SIGABRT);
    };
    // SAFETY: the handler reads what was made before, writes to its stack, and makes async-signal-safe system calls
    // (signal-safety(7)). The unwinder does not allocate. With a glibc older than 2.35 it takes the dynamic linker's
    // lock: if the interrupted code holds that lock the process hangs here, and the sender of the signal kills it.
    unsafe { low_level::register(Signal::SIGABRT as c_int, tell) }?;
    Ok(())
}

fn frames() -> Frames {
    extern "C" fn note(context: *mut c_void, argument: *mut c_void) -> c_int {
        // SAFETY: it is the argument passed below, which nothing else uses meanwhile.
        let frames = unsafe { &mut *argument.cast::<Frames>() };
        if let Some(place) = frames.addresses.get_mut(frames.count) {
            // SAFETY: the unwinder passes a context that is valid during this call.
            *place = unsafe { unwind::_Unwind_GetIP(context) };
            frames.count += 1;
        }
        // _URC_NO_REASON continues, anything else ends the walk.
        c_int::from(frames.count == FRAMES)
    }
    let mut frames = Frames { addresses: [0; FRAMES], count: 0 };
    // SAFETY: it calls `note` with the address of `frames`, which outlives the call.
    unsafe { unwind::_Unwind_Backtrace(note, (&raw mut frames).cast()) };
    frames
}

/// The files that are mapped into memory now (proc_pid_maps(5)).
fn objects() -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::new();
    for line in fs::read_to_string("/proc/self/maps").unwrap_or_default().lines() {
        let (Some(range), Some(path)) = (line.split(' ').next(), line.find('/').map(|at| &line[at..])) else {
            continue;
        };
        let Some((start, end)) = range.split_once('-') else { continue };
        let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)) else { continue };
        match objects.last_mut().filter(|object| object.name == path) {
            Some(object) => object.end = end,
            None => objects.push(Object { start, end, name: path.to_owned() }),
        }
    }
    objects
}

/// Appends as much as there is space for.
fn put(line: &mut [u8; LINE], len: &mut usize, bytes: &[u8]) {
    for (place, byte) in line.iter_mut().skip(*len).zip(bytes) {
        *place = *byte;
        *len += 1;
    }
}

fn put_hex(line: &mut [u8; LINE], len: &mut usize, number: usize) {
    put(line, len, b"0x");
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        put(line, len, &[b"0123456789abcdef"[number >> (4 * digit) & 15]]);
    }
}
