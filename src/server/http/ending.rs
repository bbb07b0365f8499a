//! PURE. How a connection ends, as far as its last response decides that.
#![forbid(unsafe_code)]

/// How a connection ends, in one byte, since each connection has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ending(u8);

const LAST: u8 = 1;
const UNREAD: u8 = 2;
const DELIMITS: u8 = 4;
const STAYS: u8 = 8;

impl Ending {
    /// The last response was given. `is_unread`: the client may still be sending; `delimits`: only the end of the
    /// connection marks the end of the response.
    #[inline]
    pub(crate) fn last(is_unread: bool, delimits: bool) -> Ending {
        Ending(LAST | if is_unread { UNREAD } else { 0 } | if delimits { DELIMITS } else { 0 })
    }

    /// Whether the last response was given.
    #[inline]
    pub(crate) fn is_last(self) -> bool {
        self.0 & LAST != 0
    }

    /// Whether the client may have been sending when the last response was given.
    #[inline]
    pub(crate) fn is_unread(self) -> bool {
        self.0 & UNREAD != 0
    }

    /// Whether only the end of the connection marks the end of its last response, so that a client cannot notice that
    /// it is incomplete.
    #[inline]
    pub(crate) fn delimits(self) -> bool {
        self.0 & DELIMITS != 0
    }

    /// Nobody else can serve the connection if this process does not.
    pub(crate) fn stay(&mut self) {
        self.0 |= STAYS;
    }

    #[inline]
    pub(crate) fn stays(self) -> bool {
        self.0 & STAYS != 0
    }

    /// Whether the client may still be sending; this changes nothing else.
    pub(crate) fn set_unread(&mut self, is_unread: bool) {
        *self = Ending::last(is_unread, self.delimits());
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
            let mut changed = ending;
            changed.set_unread(true);
            assert_eq!(changed, Ending::last(true, delimits));
            changed.set_unread(false);
            assert_eq!(changed, ending);
            assert!(!ending.stays());
        }
    }
}
