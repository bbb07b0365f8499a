//! PURE. Interprets /proc for a process that may wait for connections (proc(5)).
#![forbid(unsafe_code)]

/// The call in which a thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitingCall {
    /// accept(2) on this descriptor.
    Accept(u64),
    /// poll(2), for this number of descriptors, listed at this address of its memory.
    Poll {
        list: u64,
        count: u64,
    },
    /// select(2), for descriptors below a number that are in the set at this address.
    Select {
        set: u64,
        below: u64,
    },
    Elsewhere,
}

/// accept(2), accept4(2); poll(2), ppoll(2); select(2), pselect6(2).
#[cfg(target_arch = "x86_64")]
const CALLS: [&[u64]; 3] = [&[43, 288], &[7, 271], &[23, 270]];
/// The numbers on all newer architectures.
#[cfg(not(target_arch = "x86_64"))]
const CALLS: [&[u64]; 3] = [&[202, 242], &[73], &[72]];

/// The maximum number of bytes of a list or set that are examined.
pub(super) const LIST_MAX: usize = 64 * 1024;

/// Parses `/proc/PID/task/TID/syscall`.
pub(super) fn waits(syscall: &str) -> WaitingCall {
    let mut words = syscall.split_ascii_whitespace();
    let number: Option<u64> = words.next().and_then(|word| word.parse().ok());
    let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (Some(number), Some(first), Some(second)) = (number, argument(), argument()) else {
        return WaitingCall::Elsewhere;
    };
    let [accept, poll, select] = CALLS.map(|calls| calls.contains(&number));
    match () {
        () if accept => WaitingCall::Accept(first),
        () if poll => WaitingCall::Poll { list: first, count: second },
        () if select => WaitingCall::Select { set: second, below: first },
        () => WaitingCall::Elsewhere,
    }
}

/// Whether a list of poll(2) contains one of these descriptors.
pub(super) fn is_polled(list: &[u8], descriptors: &[u64]) -> bool {
    let entries = list.chunks_exact(8).filter_map(|entry| entry.split_first_chunk());
    entries.filter_map(|(fd, _)| u64::try_from(i32::from_ne_bytes(*fd)).ok()).any(|fd| descriptors.contains(&fd))
}

/// Whether a set of select(2) contains one of these descriptors.
pub(super) fn is_selected(set: &[u8], descriptors: &[u64]) -> bool {
    // A set consists of longs; on little-endian machines, its bytes are in the same order.
    let has = |fd: u64| {
        let (word, bit) = (usize::try_from(fd / 64).ok()?, fd % 64);
        let word = set.get(word * 8..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*word) >> bit & 1 == 1)
    };
    descriptors.iter().any(|fd| has(*fd) == Some(true))
}

/// What an epoll(7) instance watches, by its `/proc/PID/fdinfo/FD`: descriptors of the process that has added them, and
/// inodes.
pub(super) fn watched(fdinfo: &str) -> impl Iterator<Item = (u64, u64)> + '_ {
    fdinfo.lines().filter_map(|line| {
        let fd = line.strip_prefix("tfd:")?.split_ascii_whitespace().next()?.parse().ok()?;
        let inode = u64::from_str_radix(line.split("ino:").nth(1)?.split(' ').next()?, 16).ok()?;
        Some((fd, inode))
    })
}

/// A socket of the pool's, for which a program may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PoolSocket {
    pub(super) inode: u64,
    /// The descriptor by which processes have inherited the socket without using it; `None` if they may use it.
    pub(super) unused: Option<u64>,
}

impl PoolSocket {
    /// Whether a process that has an inode open at a descriptor can accept from this socket.
    pub(super) fn is_held_at(&self, (fd, inode): (u64, u64)) -> bool {
        inode == self.inode && self.unused != Some(fd)
    }
}

/// What a descriptor is, by its link in `/proc/PID/fd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenFile {
    Socket(u64),
    Epoll,
    Ring,
    Other,
}

pub(super) fn open(link: &str) -> OpenFile {
    let socket = link.strip_prefix("socket:[").and_then(|link| link.strip_suffix(']')?.parse().ok());
    match (socket, link) {
        (Some(inode), _) => OpenFile::Socket(inode),
        (None, "anon_inode:[eventpoll]") => OpenFile::Epoll,
        (None, "anon_inode:[io_uring]") => OpenFile::Ring,
        _ => OpenFile::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn what_a_thread_waits_in() {
        for (line, expected) in [
            ("43 0x3 0x7ffd 0x7ffe 0x0 0x0 0x0 0x7ffc 0x7f00\n", WaitingCall::Accept(3)),
            ("288 0x12 0x0 0x0 0x80000 0x0 0x0 0x7ffc 0x7f00\n", WaitingCall::Accept(18)),
            ("7 0x7ffd10 0x2 0xffffffff 0x0 0x0 0x0 0x7 0x7\n", WaitingCall::Poll { list: 0x7f_fd10, count: 2 }),
            ("23 0x4 0x1000 0x0 0x0 0x0 0x0 0x7 0x7\n", WaitingCall::Select { set: 0x1000, below: 4 }),
            ("232 0x3 0x0 0x0 0x0 0x0 0x0 0x0 0x0\n", WaitingCall::Elsewhere),
            ("-1 0x7ffd 0x7f00\n", WaitingCall::Elsewhere),
            ("running\n", WaitingCall::Elsewhere),
            ("43 0x3", WaitingCall::Elsewhere),
            ("", WaitingCall::Elsewhere),
        ] {
            assert_eq!(waits(line), expected, "{line}");
        }
    }

    #[test]
    fn lists_and_sets_are_read() {
        let entry = |fd: i32| [&fd.to_ne_bytes()[..], &[1, 0, 0, 0]].concat();
        let list = [entry(-1), entry(7)].concat();
        assert!(is_polled(&list, &[3, 7]) && !is_polled(&list, &[3]) && !is_polled(&list[..12], &[7]));
        let set: Vec<u8> = [1_u64 << 5, 1].iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert!(is_selected(&set, &[5]) && is_selected(&set, &[64]));
        assert!(!is_selected(&set, &[4, 65, 128, u64::MAX]) && !is_selected(&set[..7], &[5]));
    }

    #[test]
    fn an_epoll_instance_says_what_it_watches() {
        let fdinfo = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t2057\n\
                      tfd:       10 events:       19 data: ffffffff0000000a  pos:0 ino:1a2b sdev:8\n";
        assert!(watched(fdinfo).eq([(10, 0x1a2b)]));
        assert_eq!(watched("tfd: 1\ntfd: ino:x y\ntfd: 1 ino:x\nino:1").count(), 0);
    }

    #[test]
    fn a_socket_that_was_inherited_and_is_not_used_is_not_held() {
        let used = PoolSocket { inode: 7, unused: None };
        let bound = PoolSocket { inode: 7, unused: Some(3) };
        assert!(used.is_held_at((3, 7)) && !used.is_held_at((3, 8)));
        assert!(bound.is_held_at((18, 7)) && !bound.is_held_at((3, 7)) && !bound.is_held_at((18, 8)));
    }

    #[test]
    fn a_link_says_what_is_open() {
        assert_eq!(open("socket:[123]"), OpenFile::Socket(123));
        assert_eq!(open("anon_inode:[eventpoll]"), OpenFile::Epoll);
        assert_eq!(open("anon_inode:[io_uring]"), OpenFile::Ring);
        for other in ["/dev/null", "socket:[]", "pipe:[1]", ""] {
            assert_eq!(open(other), OpenFile::Other);
        }
    }
}
