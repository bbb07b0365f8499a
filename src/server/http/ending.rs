//! PURE. How a connection ends, as far as its last response decides that.
#![forbid(unsafe_code)]

/// How a connection ends, in one byte, since each connection has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ending(u8);

const LAST: u8 = 1;
const UNREAD: u8 = 2;
const DELIMITS: u8 = 4;
const STAYS: u8 = 8;

impl Ending {
    /// The last response was given. `is_unread`: the client may still be sending; `delimits`: only the end of the
    /// connection marks the end of the response.
    #[inline]
    pub(super) fn last(is_unread: bool, delimits: bool) -> Ending {
        Ending(LAST | if is_unread { UNREAD } else { 0 } | if delimits { DELIMITS } else { 0 })
    }

    #[inline]
    pub(super) fn is_last(self) -> bool {
        self.0 & LAST != 0
    }

    pub(super) fn is_unread(self) -> bool {
        self.0 & UNREAD != 0
    }

    pub(super) fn delimits(self) -> bool {
        self.0 & DELIMITS != 0
    }

    /// Nobody else can serve the connection if this process does not.
    pub(super) fn stay(&mut self) {
        self.0 |= STAYS;
    }

    pub(super) fn stays(self) -> bool {
        self.0 & STAYS != 0
    }

    /// The same, but the client may still be sending, or not.
    pub(super) fn with_unread(self, is_unread: bool) -> Ending {
        Ending::last(is_unread, self.delimits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unread_changes_nothing_else() {
        let mut ending = Ending::default();
        ending.stay();
        assert!(ending.stays() && !ending.is_last());
        for delimits in [false, true] {
            let ending = Ending::last(false, delimits);
            assert!(ending.is_last() && !ending.is_unread() && ending.delimits() == delimits);
            assert_eq!(ending.with_unread(true), Ending::last(true, delimits));
            assert_eq!(ending.with_unread(true).with_unread(false), ending);
            assert!(!ending.stays());
        }
    }
}
