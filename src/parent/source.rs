//! PURE. The sources of events for the parent, and their encoding as epoll's data.
#![forbid(unsafe_code)]

use crate::parent::supervisor::Pid;

/// Something that becomes readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Signals,
    /// A worker's reports.
    Reports(Pid),
    /// A worker's messages to the application.
    Messages(Pid),
    /// A program's notifications.
    Notification(Pid),
    /// The new binary.
    Successor,
    /// The old pool, in an upgrade.
    Predecessor,
    /// A listener of a worker with its own server.
    QueueWatch,
    /// Sockets that were shut down.
    Hangups,
    /// Watched files.
    Files,
    /// The admin process's reports.
    Admin,
    /// The commands of clients of the admin process.
    AdminLink,
}

/// The bits that tell the kind; those above are a number.
const KIND: u32 = 4;

impl Source {
    pub(super) fn encode(self) -> usize {
        let number = |pid: Pid| usize::try_from(pid.0).unwrap_or_default();
        let (kind, number) = match self {
            Source::Signals => (0, 0),
            Source::Reports(pid) => (1, number(pid)),
            Source::Messages(pid) => (2, number(pid)),
            Source::Notification(pid) => (3, number(pid)),
            Source::Successor => (4, 0),
            Source::Predecessor => (5, 0),
            Source::QueueWatch => (6, 0),
            Source::Hangups => (7, 0),
            Source::Files => (8, 0),
            Source::Admin => (9, 0),
            Source::AdminLink => (10, 0),
        };
        number << KIND | kind
    }

    /// `None` for a number that [`encode`](Source::encode) does not make.
    pub(super) fn decode(token: usize) -> Option<Source> {
        let number = token >> KIND;
        let pid = || i32::try_from(number).ok().map(Pid);
        Some(match token & ((1 << KIND) - 1) {
            1 => Source::Reports(pid()?),
            2 => Source::Messages(pid()?),
            3 => Source::Notification(pid()?),
            kind if number == 0 => match kind {
                0 => Source::Signals,
                4 => Source::Successor,
                5 => Source::Predecessor,
                6 => Source::QueueWatch,
                7 => Source::Hangups,
                8 => Source::Files,
                9 => Source::Admin,
                10 => Source::AdminLink,
                _ => return None,
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_comes_back_and_each_has_a_number_of_its_own() {
        // The maximum pid (`PID_MAX_LIMIT`, proc_sys_kernel(5)).
        let pids = [1, 2, 15, 16, 4711, 1 << 22].map(Pid);
        let mut sources: Vec<Source> =
            pids.into_iter().flat_map(|it| [Source::Reports(it), Source::Messages(it)]).collect();
        sources.extend(pids.map(Source::Notification));
        sources.extend([Source::Signals, Source::Successor, Source::Predecessor, Source::QueueWatch]);
        sources.extend([Source::Hangups, Source::Files, Source::Admin, Source::AdminLink]);
        let mut tokens: Vec<usize> = sources.iter().map(|source| source.encode()).collect();
        for (source, token) in sources.iter().zip(&tokens) {
            assert_eq!(Source::decode(*token), Some(*source), "{token}");
        }
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), sources.len());
    }

    #[test]
    fn other_numbers_are_none() {
        for token in [11, 15, 1 << KIND, usize::MAX, usize::MAX - 1] {
            assert_eq!(Source::decode(token), None, "{token}");
        }
    }
}
