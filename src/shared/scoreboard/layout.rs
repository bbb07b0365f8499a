//! Where the kernel's program, which has no types of ours, finds its words.
#![forbid(unsafe_code)]

/// Where the program finds what it needs in the two parts of the scoreboard; all are numbers of words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// How many rows there are; row 0 is nobody's.
    pub(crate) rows: usize,
    /// Length of a row, in the part that workers write.
    pub(crate) row_words: usize,
    /// In a row: since when the worker has been busy, in milliseconds of the monotonic clock; zero while it is idle.
    pub(crate) busy_since: usize,
    /// In a row: connections accepted.
    pub(crate) accepted: usize,
    /// In a row: connections closed.
    pub(crate) closed: usize,
    /// In a row: not zero while the worker takes no more connections.
    pub(crate) full: usize,
    /// In a row: of those assigned, how many have been accepted or will never come.
    pub(crate) settled: usize,
    /// The group table, in the other part: the number of seats, then the seats, with room for so many: in the upper half
    /// the slot, in the lower the row of the process that serves it; row 0 makes the slot one that is not to be chosen.
    pub(crate) group: usize,
    pub(crate) seats: usize,
    /// In that part: how many connections were assigned in all. Written by the program.
    pub(crate) counted: usize,
    /// In that part: the notes on row 0, and the length of those on each row.
    pub(crate) notes: usize,
    pub(crate) note_words: usize,
    /// In the notes: connections given to the process. Written by the program.
    pub(crate) assigned: usize,
    /// In the notes: how many of them in a window, see [`steer`](crate::shared::steer). Written by the program.
    pub(crate) share: usize,
    /// In the notes: how many of them will never come.
    pub(crate) returned: usize,
    /// In the notes: not zero while the process is to get no more connections.
    pub(crate) crowded: usize,
}
