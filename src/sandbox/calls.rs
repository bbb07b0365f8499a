//! The system calls of a worker that serves what it has open.

use super::program::Condition::{Null, OneOf, With, Without};
use super::program::Verdict::{self, Allow, AllowIf, Fail, Kill};

/// How the kernel names the machine (linux/audit.h, `AUDIT_ARCH_*`); `None` where the calls are not known.
pub(super) const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

/// All verdicts for the process `pid`. What is not mentioned is refused with EPERM, as a server's own code may try it
/// for good reasons and can do without.
pub(super) fn of_a_server(pid: u32) -> Vec<(u32, Verdict)> {
    let entry = |number: libc::c_long, verdict| (number as u32, verdict);
    let mut calls: Vec<(u32, Verdict)> = PLAIN.iter().map(|number| entry(*number, Allow)).collect();
    calls.extend(OF_MACHINE.iter().map(|number| entry(*number, Allow)));
    calls.extend(INTRUDERS.iter().map(|number| entry(*number, Kill)));
    let own = || AllowIf(OneOf { argument: 0, values: vec![pid] });
    let data = || AllowIf(Without { argument: 2, bits: libc::PROT_EXEC as u32 });
    let names = vec![libc::PR_SET_NAME as u32, libc::PR_GET_NAME as u32];
    let commands = COMMANDS.iter().map(|command| *command as u32).collect();
    let ioctls = IOCTLS.iter().map(|request| *request as u32).collect();
    calls.extend([
        // Memory for data, and none for new code.
        entry(libc::SYS_mmap, data()),
        entry(libc::SYS_mprotect, data()),
        // Threads, and no processes. The flags of clone3 are behind a pointer; without it libraries use clone.
        entry(libc::SYS_clone, AllowIf(With { argument: 0, bits: libc::CLONE_THREAD as u32 })),
        entry(libc::SYS_clone3, Fail(libc::ENOSYS as u16)),
        // It may signal itself, as abort(3) does.
        entry(libc::SYS_kill, own()),
        entry(libc::SYS_tgkill, own()),
        // Thread names, and what does not type into a terminal (TIOCSTI).
        entry(libc::SYS_prctl, AllowIf(OneOf { argument: 0, values: names })),
        entry(libc::SYS_ioctl, AllowIf(OneOf { argument: 1, values: ioctls })),
        // Flags, copies and locks, but nobody else told by a signal of its choice (F_SETOWN, F_SETSIG).
        entry(libc::SYS_fcntl, AllowIf(OneOf { argument: 1, values: commands })),
        // It may read limits.
        entry(libc::SYS_prlimit64, AllowIf(Null { argument: 2 })),
    ]);
    calls
}

const IOCTLS: [libc::Ioctl; 5] = [libc::FIONBIO, libc::FIOCLEX, libc::FIONCLEX, libc::FIONREAD, libc::TCGETS];

/// Of fcntl(2).
const COMMANDS: [libc::c_int; 13] = [
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
    libc::F_GETPIPE_SZ,
];

/// What no server does, and what one does first that somebody has got into.
const INTRUDERS: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
];

const PLAIN: &[libc::c_long] = &[
    // Sockets that there are.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendfile,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // Descriptors.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
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
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Files: which, landlock says.
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
    libc::SYS_mremap,
    libc::SYS_madvise,
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
    // What it is, and when.
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

/// Older forms of those, which some C libraries call.
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
    libc::SYS_dup2,
    libc::SYS_alarm,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OF_MACHINE: &[libc::c_long] = &[];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_call_is_judged_once() {
        let mut numbers = BTreeSet::new();
        for (number, _) in of_a_server(1) {
            assert!(numbers.insert(number), "{number}");
        }
        for number in [libc::SYS_socket, libc::SYS_connect, libc::SYS_setuid, libc::SYS_bpf, libc::SYS_io_uring_setup] {
            assert!(!numbers.contains(&(number as u32)), "{number}");
        }
    }

    #[test]
    fn nobody_else_is_signalled_by_way_of_a_descriptor() {
        // linux/fcntl.h: F_SETOWN, F_SETSIG, F_SETLEASE, F_NOTIFY, F_SETOWN_EX; and FIOSETOWN, SIOCSPGRP of ioctl(2).
        for (call, number) in [(libc::SYS_fcntl, &[8, 10, 1024, 1026, 15][..]), (libc::SYS_ioctl, &[0x8901, 0x8902])] {
            let verdicts = of_a_server(1);
            let verdict = verdicts.iter().find(|(number, _)| *number == call as u32);
            let Some((_, AllowIf(OneOf { argument: 1, values }))) = verdict else { panic!("{verdict:?}") };
            assert!(number.iter().all(|number| !values.contains(number)), "{values:?}");
        }
    }
}
