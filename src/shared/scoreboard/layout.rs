//! Where the eBPF program, which cannot use our types, finds its words.
#![forbid(unsafe_code)]

/// The places in the two parts of the scoreboard. All are numbers of words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// The number of rows; row 0 belongs to no process.
    pub(crate) rows: usize,
    /// The length of a row, in the part that workers write.
    pub(crate) row_words: usize,
    /// In a row: since when the worker has been busy, in milliseconds of the monotonic clock; zero if it is idle.
    pub(crate) busy_since: usize,
    /// In a row: connections accepted.
    pub(crate) accepted: usize,
    /// In a row: connections closed.
    pub(crate) closed: usize,
    /// In a row: not zero if the worker accepts no more connections.
    pub(crate) full: usize,
    /// In a row: how many of the assigned connections have been accepted or will never arrive.
    pub(crate) settled: usize,
    /// In the other part: the group table. It begins with the number of seats, followed by the seats, with space for
    /// this many. A seat has the slot in its upper half, and in its lower half the row of the process that serves it;
    /// with row 0 the slot must not be chosen.
    pub(crate) group: usize,
    pub(crate) seats: usize,
    /// In that part: the total number of connections assigned. Three words follow by which the program knows how many
    /// come in a millisecond. All are written by the program.
    pub(crate) counted: usize,
    /// In that part: the notes on row 0, and the length of the notes on a row.
    pub(crate) notes: usize,
    pub(crate) note_words: usize,
    /// In the notes: connections given to the process. Written by the program.
    pub(crate) assigned: usize,
    /// In the notes: how many of them in the current window, see [`steer`](crate::shared::steer). Written by the
    /// program.
    pub(crate) share: usize,
    /// In the notes: how many of them will never arrive.
    pub(crate) returned: usize,
    /// In the notes: not zero if the process must get no more connections.
    pub(crate) crowded: usize,
}
