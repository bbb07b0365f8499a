//! The system calls allowed to a worker that serves what it has open.

use std::os::fd::RawFd;

use super::program::Case;
use super::program::Condition::{self, NoneOf, Null, OneOf, With, Without};
use super::program::Verdict::{self, Allow, AllowIf, Fail, Kill};

/// The kernel's name of the architecture (linux/audit.h, `AUDIT_ARCH_*`); `None` if its calls are not known here.
pub(super) const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

/// The facts about a process on which the verdicts depend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller<'a> {
    pub(super) pid: u32,
    /// The descriptors of its sockets to the parent, whose reading side it may shut down. The numbers always refer to
    /// these sockets, since the worker can neither close nor replace them.
    pub(super) own: &'a [RawFd],
    /// All descriptors for standard streams that are sockets. The parent shares these sockets, and could no longer
    /// write to one that was shut down. So the worker can neither shut them down nor copy them.
    pub(super) streams: &'a [RawFd],
    /// Whether its page of shared memory is protected from mremap(2).
    pub(super) is_fixed: bool,
}

/// All verdicts for one process. Other calls fail with EPERM, since the code of a server may try them for good reasons
/// and can do without.
pub(super) fn of_a_server(caller: Caller<'_>) -> Vec<(u32, Verdict)> {
    let entry = |number: libc::c_long, verdict| (number as u32, verdict);
    let mut calls: Vec<(u32, Verdict)> = PLAIN.iter().map(|number| entry(*number, Allow)).collect();
    calls.extend(OF_MACHINE.iter().map(|number| entry(*number, Allow)));
    #[cfg(target_arch = "x86_64")]
    calls.push(entry(libc::SYS_dup2, AllowIf(vec![vec![none_of(0, caller.streams), none_of(1, caller.own)]])));
    // Without this call, realloc(3) copies.
    calls.extend(caller.is_fixed.then(|| entry(libc::SYS_mremap, Allow)));
    // A keeper reads its program's memory; a server reads nobody's.
    calls.extend(INTRUDERS.iter().chain(&[libc::SYS_process_vm_readv]).map(|number| entry(*number, Kill)));
    let own = || AllowIf(vec![vec![one_of(0, &[caller.pid as i32])]]);
    let data = || AllowIf(vec![vec![Without { argument: 2, bits: libc::PROT_EXEC as u32 }]]);
    let ioctls = IOCTLS.iter().map(|request| *request as u32).collect();
    calls.extend([
        // Memory for data, but not for new code.
        entry(libc::SYS_mmap, data()),
        entry(libc::SYS_mprotect, data()),
        // Threads, but no processes. The flags of clone3 are behind a pointer, and libraries use clone without it.
        entry(libc::SYS_clone, AllowIf(vec![vec![With { argument: 0, bits: libc::CLONE_THREAD as u32 }]])),
        entry(libc::SYS_clone3, Fail(libc::ENOSYS as u16)),
        // It may signal itself, as abort(3) does.
        entry(libc::SYS_kill, own()),
        entry(libc::SYS_tgkill, own()),
        // Thread names; and a list of ioctl(2) requests. It omits TIOCSTI, which types into a terminal, and FIONBIO,
        // which can clear O_NONBLOCK and whose argument is behind a pointer.
        entry(libc::SYS_prctl, AllowIf(vec![vec![one_of(0, &[libc::PR_SET_NAME, libc::PR_GET_NAME])]])),
        entry(libc::SYS_ioctl, AllowIf(vec![vec![OneOf { argument: 1, values: ioctls }]])),
        entry(libc::SYS_fcntl, AllowIf(flags(caller.streams))),
        // close_range(2) is not allowed, since it would close these as well. Libraries then close descriptors one by
        // one.
        entry(libc::SYS_close, AllowIf(vec![vec![none_of(0, caller.own)]])),
        entry(libc::SYS_dup, AllowIf(vec![vec![none_of(0, caller.streams)]])),
        entry(libc::SYS_dup3, AllowIf(vec![vec![none_of(0, caller.streams), none_of(1, caller.own)]])),
        entry(libc::SYS_setsockopt, AllowIf(options())),
        entry(libc::SYS_shutdown, AllowIf(ways_to_shut_down(caller))),
        // It may read limits, but not set them.
        entry(libc::SYS_prlimit64, AllowIf(vec![vec![Null { argument: 2 }]])),
    ]);
    calls
}

pub(super) fn one_of(argument: u8, values: &[i32]) -> Condition {
    OneOf { argument, values: values.iter().map(|value| *value as u32).collect() }
}

fn none_of(argument: u8, values: &[i32]) -> Condition {
    NoneOf { argument, values: values.iter().map(|value| *value as u32).collect() }
}

/// Flags, copies and locks, but no signals to other processes (F_SETOWN, F_SETSIG). Flags belong to the file
/// description, which others share. O_NONBLOCK must stay set, since a listener without it would block the worker's
/// replacement in accept(2). O_DIRECT must not be set, since a log file would then refuse lines.
fn flags(streams: &[RawFd]) -> Vec<Case> {
    let stays = With { argument: 2, bits: libc::O_NONBLOCK as u32 };
    let harmless = Without { argument: 2, bits: (libc::O_DIRECT | libc::O_ASYNC | libc::O_NOATIME) as u32 };
    vec![
        vec![one_of(1, COMMANDS)],
        vec![one_of(1, COPIES), none_of(0, streams)],
        vec![one_of(1, &[libc::F_SETFL]), stays, harmless],
    ]
}

/// The options that servers set on connections. The worker shares listeners with its replacement, and the kernel does
/// not say here which socket is meant. So the list has no option that attaches programs, changes who shares the port,
/// or cannot be undone by the parent before it passes the socket on.
fn options() -> Vec<Case> {
    OPTIONS.iter().map(|(level, options)| vec![one_of(1, &[*level]), one_of(2, options)]).collect()
}

/// The writing side, which listeners do not have (inet_shutdown() leaves them alone), and the reading side of the
/// worker's own two sockets, by their numbers. Not that of standard streams, to which the parent writes as well:
/// service managers often make them sockets to their journal.
fn ways_to_shut_down(caller: Caller<'_>) -> Vec<Case> {
    let mut cases = vec![vec![one_of(1, &[libc::SHUT_WR]), none_of(0, caller.streams)]];
    if !caller.own.is_empty() {
        cases.push(vec![one_of(0, caller.own), one_of(1, &[libc::SHUT_RD])]);
    }
    cases
}

/// From socket(7), tcp(7), ip(7), ipv6(7). Connections inherit the options of a listener. So the list has no option
/// that delays or breaks off the responses of siblings that accept from it (`TCP_CORK`, `TCP_USER_TIMEOUT`,
/// `TCP_NOTSENT_LOWAT`).
const OPTIONS: &[(libc::c_int, &[libc::c_int])] = &[
    (libc::SOL_SOCKET, &[libc::SO_KEEPALIVE, libc::SO_LINGER, libc::SO_RCVTIMEO, libc::SO_SNDTIMEO]),
    (
        libc::IPPROTO_TCP,
        &[libc::TCP_NODELAY, libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT, libc::TCP_QUICKACK],
    ),
];

const IOCTLS: [libc::Ioctl; 5] = [libc::FIOCLEX, libc::FIONCLEX, libc::FIONREAD, libc::TIOCOUTQ, libc::TCGETS];

/// From fcntl(2).
const COPIES: &[libc::c_int] = &[libc::F_DUPFD, libc::F_DUPFD_CLOEXEC];
const COMMANDS: &[libc::c_int] = &[
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
    libc::F_GETPIPE_SZ,
];

/// Calls that neither a server nor a keeper makes, and that an intruder would make first.
pub(super) const INTRUDERS: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
];

const PLAIN: &[libc::c_long] = &[
    // Existing sockets.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendfile,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    // Descriptors.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_flock,
    libc::SYS_copy_file_range,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_pipe2,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Files; landlock decides which.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    // Memory.
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Threads and signals.
    libc::SYS_gettid,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_setitimer,
    // Identity and time.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
];

/// Older forms of these calls, which some C libraries use.
#[cfg(target_arch = "x86_64")]
const OF_MACHINE: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_alarm,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OF_MACHINE: &[libc::c_long] = &[];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::program::tests::allows;
    use super::*;

    /// A process whose lifeline is descriptor 7.
    fn verdicts() -> Vec<(u32, Verdict)> {
        of_a_server(Caller { pid: 1, own: &[7], streams: &[1, 2, 9], is_fixed: true })
    }

    #[test]
    fn each_call_is_judged_once() {
        let mut numbers = BTreeSet::new();
        for (number, _) in verdicts() {
            assert!(numbers.insert(number), "{number}");
        }
        for number in [libc::SYS_socket, libc::SYS_connect, libc::SYS_setuid, libc::SYS_bpf, libc::SYS_io_uring_setup] {
            assert!(!numbers.contains(&(number as u32)), "{number}");
        }
    }

    #[test]
    fn no_page_is_stretched_over_those_of_others() {
        for is_fixed in [true, false] {
            let verdicts = of_a_server(Caller { pid: 1, own: &[], streams: &[], is_fixed });
            assert_eq!(allows(&verdicts, libc::SYS_mremap as u32, [0; 6]), is_fixed);
            assert!(!allows(&verdicts, libc::SYS_remap_file_pages as u32, [0; 6]));
        }
    }

    #[test]
    fn nobody_else_is_signalled_by_way_of_a_descriptor() {
        // From linux/fcntl.h: F_SETOWN, F_SETSIG, F_SETLEASE, F_NOTIFY, F_SETOWN_EX; and FIOSETOWN, SIOCSPGRP of
        // ioctl(2).
        for (call, values) in [(libc::SYS_fcntl, &[8, 10, 1024, 1026, 15][..]), (libc::SYS_ioctl, &[0x8901, 0x8902])] {
            for value in values {
                assert!(!allows(&verdicts(), call as u32, [3, *value, 0x800, 0, 0, 0]), "{call} {value}");
            }
        }
    }

    #[test]
    fn a_log_stays_writable_for_whoever_shares_it() {
        let try_one = |call: libc::c_long, arguments: [i32; 3]| {
            let [first, second, third] = arguments.map(|argument| argument as u64);
            allows(&verdicts(), call as u32, [first, second, third, 0, 0, 0])
        };
        for flag in [libc::O_DIRECT, libc::O_ASYNC, libc::O_NOATIME] {
            assert!(!try_one(libc::SYS_fcntl, [3, libc::F_SETFL, libc::O_NONBLOCK | flag]), "{flag:#x}");
        }
        assert!(try_one(libc::SYS_fcntl, [3, libc::F_SETFL, libc::O_NONBLOCK | libc::O_APPEND]));
        for (fd, allowed) in [(0, true), (1, false), (2, false), (3, true), (9, false)] {
            assert_eq!(try_one(libc::SYS_shutdown, [fd, libc::SHUT_WR, 0]), allowed, "{fd}");
            assert_eq!(try_one(libc::SYS_dup, [fd, 0, 0]), allowed, "{fd}");
            assert_eq!(try_one(libc::SYS_dup3, [fd, 8, 0]), allowed, "{fd}");
            assert_eq!(try_one(libc::SYS_fcntl, [fd, libc::F_DUPFD_CLOEXEC, 3]), allowed, "{fd}");
        }
    }

    #[test]
    fn a_listener_keeps_what_its_next_owner_needs() {
        let try_one = |call: libc::c_long, arguments: [i32; 3]| {
            let [first, second, third] = arguments.map(|argument| argument as u64);
            allows(&verdicts(), call as u32, [first, second, third, 0, 0, 0])
        };
        // It stays non-blocking.
        for (flags, allowed) in
            [(libc::O_NONBLOCK, true), (libc::O_RDWR | libc::O_NONBLOCK, true), (libc::O_RDWR, false)]
        {
            assert_eq!(try_one(libc::SYS_fcntl, [3, libc::F_SETFL, flags]), allowed, "{flags:#x}");
        }
        assert!(try_one(libc::SYS_fcntl, [3, libc::F_GETFL, 0]));
        assert!(!try_one(libc::SYS_ioctl, [3, libc::FIONBIO as i32, 0]));
        // It keeps listening.
        for (fd, how, allowed) in
            [(3, 0, false), (3, 1, true), (3, 2, false), (7, 0, true), (7, 1, true), (7, 2, false)]
        {
            assert_eq!(try_one(libc::SYS_shutdown, [fd, how, 0]), allowed, "{fd} {how}");
        }
        // Nothing can replace the sockets that it may shut down.
        for (call, arguments, allowed) in [
            (libc::SYS_close, [7, 0, 0], false),
            (libc::SYS_close, [8, 0, 0], true),
            (libc::SYS_close_range, [3, -1, 0], false),
            (libc::SYS_dup3, [3, 7, 0], false),
            (libc::SYS_dup3, [3, 8, 0], true),
        ] {
            assert_eq!(try_one(call, arguments), allowed, "{call} {arguments:?}");
        }
        // It keeps its group, its programs and its keys.
        for (level, option, allowed) in [
            (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, false),
            (libc::SOL_SOCKET, libc::SO_ATTACH_BPF, false),
            (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, false),
            (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF, false),
            (libc::SOL_SOCKET, libc::SO_DETACH_REUSEPORT_BPF, false),
            (libc::SOL_SOCKET, libc::SO_DETACH_FILTER, false),
            (libc::SOL_SOCKET, libc::SO_LOCK_FILTER, false),
            (libc::SOL_SOCKET, libc::SO_REUSEPORT, false),
            (libc::SOL_SOCKET, libc::SO_REUSEADDR, false),
            (libc::SOL_SOCKET, libc::SO_BUSY_POLL, false),
            (libc::SOL_SOCKET, libc::SO_RCVLOWAT, false),
            (libc::SOL_SOCKET, libc::SO_RCVBUF, false),
            (libc::SOL_SOCKET, libc::SO_BINDTODEVICE, false),
            (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, false),
            (libc::IPPROTO_TCP, libc::TCP_ULP, false),
            (libc::IPPROTO_TCP, libc::TCP_CORK, false),
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, false),
            (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, false),
            (libc::IPPROTO_TCP, libc::TCP_MD5SIG, false),
            (libc::IPPROTO_TCP, libc::TCP_REPAIR, false),
            (libc::IPPROTO_IP, libc::IP_MINTTL, false),
            // The options that servers set on connections.
            (libc::SOL_SOCKET, libc::SO_LINGER, true),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE, true),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY, true),
            (libc::IPPROTO_TCP, libc::TCP_QUICKACK, true),
        ] {
            assert_eq!(try_one(libc::SYS_setsockopt, [3, level, option]), allowed, "{level} {option}");
        }
    }
}
