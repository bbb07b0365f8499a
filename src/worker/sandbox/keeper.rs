//! The system calls allowed to the keeper of a program.
//!
//! It reads what the program has in its memory and in /proc, which the program controls. Landlock could not confine it:
//! a process in a domain may neither read the memory of one outside, nor see which files that has open. So it may read
//! every file that its user may.

use super::calls::{one_of, INTRUDERS};
use super::program::Condition::{NoneOf, Null, OneOf, Without};
use super::program::Verdict::{self, Allow, AllowIf, Kill};

/// The facts about a keeper on which the verdicts depend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) pid: u32,
    pub(super) parent: i32,
    /// Whether it asks the program by HTTP whether it is ready.
    pub(super) asks: bool,
}

/// All verdicts for one process. Other calls fail with EPERM.
pub(super) fn of_a_keeper(caller: Caller) -> Vec<(u32, Verdict)> {
    let entry = |number: libc::c_long, verdict| (number as u32, verdict);
    let mut calls: Vec<_> = PLAIN.iter().chain(OLDER).map(|number| entry(*number, Allow)).collect();
    calls.extend(INTRUDERS.iter().map(|number| entry(*number, Kill)));
    let reads = |argument| AllowIf(vec![vec![Without { argument, bits: WRITES }]]);
    let data = || AllowIf(vec![vec![Without { argument: 2, bits: libc::PROT_EXEC as u32 }]]);
    let only = |argument, values: &[i32]| AllowIf(vec![vec![one_of(argument, values)]]);
    let requests = REQUESTS.iter().map(|request| *request as u32).collect();
    // 0 and -1 are many processes, 1 is init.
    let others = [caller.parent, -caller.parent, 0, -1, 1].map(|pid| pid as u32).to_vec();
    calls.extend([
        entry(libc::SYS_openat, reads(2)),
        entry(libc::SYS_mmap, data()),
        entry(libc::SYS_mprotect, data()),
        entry(libc::SYS_kill, AllowIf(vec![vec![NoneOf { argument: 0, values: others }]])),
        entry(libc::SYS_tgkill, only(0, &[caller.pid as i32])),
        entry(libc::SYS_prctl, only(0, &[libc::PR_SET_NAME, libc::PR_GET_NAME])),
        entry(libc::SYS_ioctl, AllowIf(vec![vec![OneOf { argument: 1, values: requests }]])),
        entry(libc::SYS_fcntl, only(1, COMMANDS)),
        // Its own limits: before it ends by the signal that has ended the program, it forbids a core dump.
        entry(
            libc::SYS_prlimit64,
            AllowIf(vec![vec![Null { argument: 2 }], vec![one_of(0, &[0]), one_of(1, &[libc::RLIMIT_CORE as i32])]]),
        ),
    ]);
    #[cfg(target_arch = "x86_64")]
    calls.push(entry(libc::SYS_open, reads(1)));
    // Who has accepted a connection.
    let mut sockets = vec![vec![one_of(0, &[libc::AF_NETLINK]), one_of(2, &[libc::NETLINK_SOCK_DIAG])]];
    if caller.asks {
        sockets.push(vec![one_of(0, &[libc::AF_INET, libc::AF_INET6])]);
        calls.push(entry(libc::SYS_connect, Allow));
    }
    calls.push(entry(libc::SYS_socket, AllowIf(sockets)));
    calls
}

/// The flags of open(2) with which a file could change.
const WRITES: u32 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u32;

/// Of descriptors in general, and of the program's calls that wait for an answer (seccomp_unotify(2)).
const REQUESTS: [libc::Ioctl; 8] = [
    libc::FIOCLEX,
    libc::FIONREAD,
    libc::TIOCOUTQ,
    libc::TCGETS,
    libc::SECCOMP_IOCTL_NOTIF_RECV as libc::Ioctl,
    libc::SECCOMP_IOCTL_NOTIF_SEND as libc::Ioctl,
    libc::SECCOMP_IOCTL_NOTIF_ID_VALID as libc::Ioctl,
    libc::SECCOMP_IOCTL_NOTIF_ADDFD as libc::Ioctl,
];

/// From fcntl(2). Flags may be cleared as well: a program gets a blocking socket if it had one.
const COMMANDS: &[libc::c_int] =
    &[libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL, libc::F_DUPFD, libc::F_DUPFD_CLOEXEC];

const PLAIN: &[libc::c_long] = &[
    // The program: its memory, what it has open, how it ends.
    libc::SYS_process_vm_readv,
    libc::SYS_getxattr,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_getpgid,
    // What it has open itself.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_splice,
    libc::SYS_fstat,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Itself.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrandom,
    libc::SYS_getcwd,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
];

/// Older forms of these calls, which some C libraries use.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] =
    &[libc::SYS_stat, libc::SYS_lstat, libc::SYS_readlink, libc::SYS_poll, libc::SYS_alarm, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::program::tests::allows;
    use super::*;

    const KEEPER: Caller = Caller { pid: 12, parent: 11, asks: false };

    fn may(caller: Caller, call: libc::c_long, arguments: [i32; 3]) -> bool {
        let [first, second, third] = arguments.map(|argument| argument as u64);
        allows(&of_a_keeper(caller), call as u32, [first, second, third, 0, 0, 0])
    }

    #[test]
    fn each_call_is_judged_once() {
        let mut numbers = BTreeSet::new();
        for (number, _) in of_a_keeper(Caller { asks: true, ..KEEPER }) {
            assert!(numbers.insert(number), "{number}");
        }
        for number in [libc::SYS_bind, libc::SYS_listen, libc::SYS_clone, libc::SYS_setuid, libc::SYS_unlinkat] {
            assert!(!numbers.contains(&(number as u32)), "{number}");
        }
    }

    #[test]
    fn files_are_only_read() {
        for (flags, expected) in [
            (libc::O_RDONLY | libc::O_CLOEXEC, true),
            (libc::O_RDONLY | libc::O_DIRECTORY, true),
            (libc::O_WRONLY, false),
            (libc::O_RDWR, false),
            (libc::O_RDONLY | libc::O_CREAT, false),
            (libc::O_RDONLY | libc::O_TRUNC, false),
        ] {
            assert_eq!(may(KEEPER, libc::SYS_openat, [libc::AT_FDCWD, 0, flags]), expected, "{flags:#o}");
        }
        assert!(!may(KEEPER, libc::SYS_openat2, [libc::AT_FDCWD, 0, 0]), "its flags cannot be seen");
    }

    #[test]
    fn the_parent_and_all_processes_at_once_are_not_signalled() {
        for (pid, expected) in [(13, true), (-13, true), (11, false), (-11, false), (0, false), (-1, false), (1, false)]
        {
            assert_eq!(may(KEEPER, libc::SYS_kill, [pid, 9, 0]), expected, "{pid}");
        }
    }

    #[test]
    fn only_a_probe_connects() {
        let asking = Caller { asks: true, ..KEEPER };
        for (domain, expected) in [(libc::AF_INET, true), (libc::AF_NETLINK, false), (libc::AF_UNIX, false)] {
            assert_eq!(may(asking, libc::SYS_socket, [domain, 1, 0]), expected, "{domain}");
            assert!(!may(KEEPER, libc::SYS_socket, [domain, 1, 0]), "{domain}");
        }
        for caller in [asking, KEEPER] {
            assert!(may(caller, libc::SYS_socket, [libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_SOCK_DIAG]));
        }
        assert!(may(asking, libc::SYS_connect, [3, 0, 0]) && !may(KEEPER, libc::SYS_connect, [3, 0, 0]));
    }

    #[test]
    fn it_limits_only_its_own_core_dump() {
        for (pid, resource, expected) in [
            (0, libc::RLIMIT_CORE as i32, true),
            (13, libc::RLIMIT_CORE as i32, false),
            (0, libc::RLIMIT_NOFILE as i32, false),
        ] {
            assert_eq!(may(KEEPER, libc::SYS_prlimit64, [pid, resource, 1]), expected, "{pid} {resource}");
        }
        assert!(may(KEEPER, libc::SYS_prlimit64, [13, libc::RLIMIT_NOFILE as i32, 0]), "reading is no harm");
    }
}
