//! Steering by eBPF. For each new connection the kernel runs a program that chooses the slot with the fewest open
//! connections by the scoreboard, and passes over slots that are busy, full or not ready.
//!
//! A connection counts from its SYN: the program adds it to `assigned` of the process that it chooses, and when that
//! process accepts it, it adds it to its own `settled` and `accepted`. Some assigned connections never arrive: SYNs of
//! a flood, connections that are reset before the accept or taken by a neighbour, and stray segments of closed
//! connections, for which the kernel also runs the program. About once a second, a worker that finds its queue empty
//! settles those that were pending all the time, and the parent settles those that were pending for a second at an idle
//! worker.
//!
//! A worker may report anything about itself. A row with impossible numbers is not chosen. The program also counts, in
//! memory that no worker can write, what it has recently given to each process. A process that has had twice its fair
//! share gets nothing more while another one is free, however few connections it reports. A free process that lags
//! behind by half of its share comes first, so several processes with false reports cannot take everything together.
//!
//! Where connections come fast, an idle worker counts a few connections more than it has, since it has to be woken.
//!
//! The parent loads and attaches the program and updates the tables. Only the kernel does anything per connection.

mod assembler;

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use self::assembler::Condition::{Equal, Greater, Less, NotEqual, NotGreater, NotLess};
use self::assembler::Register::{self, R0, R1, R10, R2, R3, R4, R5, R6, R7, R8, R9};
use self::assembler::{
    add, and, assemble, atomic_add, call, copy, divide, exit, jump_if, label, load, lower_half, map, map_value, modulo,
    multiply, or, shift_right, shift_right_signed, store, store_half, subtract, xor, Line,
};
use crate::shared::scoreboard::{Layout, Memories};
use crate::sys::bpf::{self, Instruction, Sockets};

/// The maximum number of slots.
pub(crate) const SLOTS: usize = 1024;

/// The programs, one per address because each group has its own sockets, and their tables of sockets, keyed by slot.
#[derive(Debug)]
pub(crate) struct Ebpf {
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    sockets: Sockets,
    program: OwnedFd,
}

impl Ebpf {
    /// Loads a program for each address.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`] without CAP_BPF and CAP_NET_ADMIN; the verifier's message if it refuses the
    /// program.
    pub(crate) fn load(layout: &Layout, memories: &Memories, addresses: usize) -> io::Result<Ebpf> {
        let group = || {
            let sockets = Sockets::new(SLOTS as u32)?;
            let program = bpf::load(&Program::new(layout, memories, &sockets, STALLED)?.instructions())?;
            Ok(Group { sockets, program })
        };
        Ok(Ebpf { groups: (0..addresses).map(|_| group()).collect::<io::Result<_>>()? })
    }

    /// Lets a slot's listening socket be chosen. Call this once per socket: the socket stays while workers come and go,
    /// until it is removed or its last copy is closed.
    ///
    /// # Errors
    ///
    /// EBUSY for a socket that is already in the table, EINVAL for one that does not listen.
    pub(crate) fn put(&self, address: usize, slot: usize, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.groups[address].sockets.put(index(slot)?, socket)
    }

    /// Stops a slot's socket from being chosen, before it is closed.
    pub(crate) fn remove(&self, address: usize, slot: usize) -> io::Result<()> {
        self.groups[address].sockets.remove(index(slot)?)
    }

    /// Begins to steer the group of an address; `member` is any of its listening sockets.
    pub(crate) fn attach(&self, address: usize, member: BorrowedFd<'_>) -> io::Result<()> {
        bpf::attach(member, self.groups[address].program.as_fd())
    }

    /// Returns the group to the kernel's hash.
    #[cfg(test)]
    fn detach(member: BorrowedFd<'_>) -> io::Result<()> {
        bpf::detach(member)
    }
}

fn index(slot: usize) -> io::Result<u32> {
    u32::try_from(slot).map_err(|_| ErrorKind::InvalidInput.into())
}

/// How long a worker must have been busy to be passed over, in milliseconds. Times are truncated to milliseconds, so
/// this means more than one.
const STALLED: i32 = 2;

/// How many seats the program examines: all of a usual pool. In a larger pool it examines this many in a row from a
/// random one on. Each costs every new connection two cache lines of another CPU, and the least of these is hardly
/// worse than the least of all.
const EXAMINED: i32 = 64;

/// The program counts assignments in windows of this many per seat. While another process is free, no process gets more
/// than twice as many in a window, and no free process less than half. Correct workers hardly ever need more or less in
/// such a long window. A process's share is a word: the number of the window in the upper bits, the count in the lower
/// bits.
const WINDOW: i32 = 64;
const SHARE_BITS: i32 = 20;

/// How far a process lags behind its share of the window so far before it comes first.
const LAG: i32 = WINDOW / 2;

/// To wake an idle worker costs CPU time that one which is awake would not need. So an idle worker counts as if it had
/// more connections: as many as each worker gets in a millisecond, and at most this many. Where fewer than a thousand a
/// second come to each, that is none: an idle worker serves sooner, and one that is awake may be at something long.
const WAKE_MAX: i32 = 4;

/// No process can have more connections than this, or fewer than minus this. A row that claims so is not chosen.
const CREDIBLE: i32 = 1 << 26;

/// Added to the load of a row, so that the least of all is the choice. A process that lags behind is best; one that has
/// had its share is worse than any free one; a busy worker is worse, and a full one worse still, but better than none.
const IN_STEP: i32 = 1 << 27;
const SATED: i32 = 1 << 28;
const BUSY: i32 = 1 << 29;
const FULL: i32 = 1 << 30;

// The variables of the program. R0 to R5 do not survive a call, so nothing is called while seats are examined.
const LOAD: Register = R0;
const NOTES: Register = R1;
const SEAT: Register = R2;
const SEATS: Register = R3;
const IT: Register = R4;
const CHOICE: Register = R5;
/// The share from which a process has had enough.
const SATED_FROM: Register = R6;
const TABLE: Register = R7;
const LEAST: Register = R8;
const ROW: Register = R9;
const STACK: Register = R10;

// The variables on the stack, below its end.
const BUSY_BEFORE: i16 = -8;
const CHOSEN: i16 = -16;
const SLOT: i16 = -20;
const CONTEXT: i16 = -32;
const LAGS_BELOW: i16 = -40;
const SHARE: i16 = -48;
const WAKE: i16 = -56;

// The words of the program that follow the number of connections assigned: how many there were in a millisecond, and
// since when, and from which number on, that was counted.
const PACED_AT: i16 = 8;
const PACED_FROM: i16 = 16;
const PACE: i16 = 24;

// The kernel's helper functions and results (linux/bpf.h).
const KTIME_GET_NS: i32 = 5;
const GET_PRANDOM_U32: i32 = 7;
const SK_SELECT_REUSEPORT: i32 = 82;
const SK_PASS: i32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// These exist once for each examined seat.
    InTable(i32),
    NotFull(i32),
    NotSated(i32),
    Lags(i32),
    NotBusy(i32),
    NotChosen(i32),
    Paced,
    Limited,
    Choose,
    InWindow,
    Pass,
}

/// The parameters of the program: the layout in bytes, and descriptors.
#[derive(Debug)]
struct Program {
    /// The descriptors of the part that workers write, and of the other one.
    rows: i32,
    decided: i32,
    sockets: i32,
    stall: i32,
    /// The number of rows, row 0 included, the length of a row, and that of its notes.
    count: i32,
    row_bytes: i32,
    note_bytes: i32,
    /// The place of the group table, and the number of seats for which it has space.
    table: i32,
    seats: i32,
    counted: i32,
    notes: i32,
    busy_since: i16,
    accepted: i16,
    closed: i16,
    full: i16,
    settled: i16,
    assigned: i16,
    share: i16,
    returned: i16,
    crowded: i16,
}

impl Program {
    fn new(layout: &Layout, memories: &Memories, sockets: &Sockets, stall: i32) -> io::Result<Program> {
        let fits = layout.rows * layout.row_words <= memories.rows.len().get()
            && layout.notes + layout.rows * layout.note_words <= memories.decided.len().get()
            && layout.group + 1 + layout.seats <= layout.notes;
        if !fits {
            return Err(ErrorKind::InvalidInput.into());
        }
        Ok(Program {
            rows: memories.rows.as_fd().as_raw_fd(),
            decided: memories.decided.as_fd().as_raw_fd(),
            sockets: sockets.as_fd().as_raw_fd(),
            stall,
            count: number(layout.rows)?,
            row_bytes: number(layout.row_words * WORD)?,
            note_bytes: number(layout.note_words * WORD)?,
            table: number(layout.group * WORD)?,
            seats: number(layout.seats.min(SLOTS))?,
            counted: number(layout.counted * WORD)?,
            notes: number(layout.notes * WORD)?,
            busy_since: number(layout.busy_since * WORD)?,
            accepted: number(layout.accepted * WORD)?,
            closed: number(layout.closed * WORD)?,
            full: number(layout.full * WORD)?,
            settled: number(layout.settled * WORD)?,
            assigned: number(layout.assigned * WORD)?,
            share: number(layout.share * WORD)?,
            returned: number(layout.returned * WORD)?,
            crowded: number(layout.crowded * WORD)?,
        })
    }

    fn instructions(&self) -> Vec<Instruction> {
        let mut lines = self.begin();
        lines.extend((0..EXAMINED).flat_map(|looked| self.look(looked)));
        lines.extend(self.choose());
        assemble(&lines)
    }

    /// Reads the clock, and chooses a random seat to begin with, so that equal seats have equal chances.
    fn begin(&self) -> Vec<Line<Label>> {
        let mut lines = vec![
            store(STACK, CONTEXT, R1),
            call(KTIME_GET_NS),
            divide(R0, 1_000_000),
            subtract(R0, self.stall),
            store(STACK, BUSY_BEFORE, R0),
            call(GET_PRANDOM_U32),
            copy(SEAT, R0),
            map_value(TABLE, self.decided, self.table),
            load(SEATS, TABLE, 0),
            // Here and below, the verifier only accepts a number that has been compared with a constant.
            jump_if(SEATS, Greater, self.seats, Label::Pass),
            modulo(SEAT, SEATS),
            // The number of the window, shifted to its place in a share. Without seats the division gives zero.
            map_value(ROW, self.decided, self.counted),
            load(LOAD, ROW, 0),
            copy(IT, SEATS),
            multiply(IT, WINDOW),
            divide(LOAD, IT),
            multiply(LOAD, 1 << SHARE_BITS),
            copy(SATED_FROM, LOAD),
            add(SATED_FROM, 2 * WINDOW),
            // A smaller share lags behind. Zero, so that none does, until the window is old enough.
            load(IT, ROW, 0),
            copy(ROW, SEATS),
            multiply(ROW, WINDOW),
            modulo(IT, ROW),
            divide(IT, SEATS),
            subtract(IT, LAG),
            add(LOAD, IT),
            shift_right_signed(IT, 63),
            xor(IT, -1),
            and(LOAD, IT),
            store(STACK, LAGS_BELOW, LOAD),
        ];
        lines.extend(self.pace());
        lines.extend([
            // No choice yet, which has the greatest load: zero minus one. Computed, because with a constant the
            // verifier would follow each path from seat to seat to its end, and there are too many.
            copy(LEAST, R0),
            xor(LEAST, R0),
            store(STACK, CHOSEN, LEAST),
            subtract(LEAST, 1),
        ]);
        lines
    }

    /// Computes how many connections more an idle worker counts: as many as each seat gets in a millisecond. Where two
    /// CPUs begin a millisecond at once, the second finds none, and an idle worker counts none more until the next one.
    fn pace(&self) -> [Line<Label>; 19] {
        [
            map_value(ROW, self.decided, self.counted),
            load(IT, STACK, BUSY_BEFORE),
            load(CHOICE, ROW, PACED_AT),
            jump_if(IT, Equal, CHOICE, Label::Paced),
            // The mean since this was last done.
            store(ROW, PACED_AT, IT),
            subtract(IT, CHOICE),
            load(LOAD, ROW, 0),
            load(CHOICE, ROW, PACED_FROM),
            store(ROW, PACED_FROM, LOAD),
            subtract(LOAD, CHOICE),
            divide(LOAD, IT),
            store(ROW, PACE, LOAD),
            label(Label::Paced),
            load(IT, ROW, PACE),
            divide(IT, SEATS),
            jump_if(IT, NotGreater, WAKE_MAX, Label::Limited),
            copy(IT, WAKE_MAX),
            label(Label::Limited),
            store(STACK, WAKE, IT),
        ]
    }

    /// Examines a seat after this number of others, and keeps the one whose row has the least load.
    ///
    /// This is not a loop, because the verifier refuses any loop that it has to follow to its end, unless CAP_PERFMON
    /// lets it disregard what a processor does speculatively.
    fn look(&self, looked: i32) -> Vec<Line<Label>> {
        let mut lines = vec![
            jump_if(SEATS, NotGreater, looked, Label::Choose),
            // After the last seat comes the first.
            jump_if(SEAT, Less, SEATS, Label::InTable(looked)),
            subtract(SEAT, SEATS),
            label(Label::InTable(looked)),
            copy(IT, SEAT),
            multiply(IT, WORD as i32),
            jump_if(IT, NotLess, self.seats * WORD as i32, Label::Pass),
            add(IT, TABLE),
            load(CHOICE, IT, WORD as i16),
        ];
        lines.extend(self.row_of_choice(Label::NotChosen(looked)));
        lines.extend([
            // Open connections, and those on their way.
            load(LOAD, ROW, self.accepted),
            load(IT, ROW, self.closed),
            subtract(LOAD, IT),
            load(IT, NOTES, self.assigned),
            add(LOAD, IT),
            load(IT, ROW, self.settled),
            subtract(LOAD, IT),
            load(IT, NOTES, self.returned),
            subtract(LOAD, IT),
            copy(IT, LOAD),
            add(IT, CREDIBLE),
            jump_if(IT, NotLess, 2 * CREDIBLE, Label::NotChosen(looked)),
            // The words are not read at one moment, so the sum may be slightly negative.
            copy(IT, LOAD),
            shift_right_signed(IT, 63),
            xor(IT, -1),
            and(LOAD, IT),
            load(IT, NOTES, self.share),
            store(STACK, SHARE, IT),
            jump_if(IT, Less, SATED_FROM, Label::NotSated(looked)),
            or(LOAD, SATED),
            label(Label::NotSated(looked)),
            load(IT, NOTES, self.crowded),
            load(NOTES, ROW, self.full),
            or(IT, NOTES),
            jump_if(IT, Equal, 0, Label::NotFull(looked)),
            or(LOAD, FULL),
            label(Label::NotFull(looked)),
            load(IT, ROW, self.busy_since),
            load(ROW, STACK, BUSY_BEFORE),
            // Makes zero, which means idle, later than any time.
            subtract(IT, 1),
            jump_if(IT, NotLess, ROW, Label::NotBusy(looked)),
            or(LOAD, BUSY),
            label(Label::NotBusy(looked)),
            // All ones if it is idle.
            shift_right_signed(IT, 63),
            load(ROW, STACK, WAKE),
            and(IT, ROW),
            add(LOAD, IT),
            load(IT, STACK, SHARE),
            load(ROW, STACK, LAGS_BELOW),
            jump_if(IT, Less, ROW, Label::Lags(looked)),
            or(LOAD, IN_STEP),
            label(Label::Lags(looked)),
            jump_if(LOAD, NotLess, LEAST, Label::NotChosen(looked)),
            copy(LEAST, LOAD),
            store(STACK, CHOSEN, CHOICE),
            label(Label::NotChosen(looked)),
            add(SEAT, 1),
        ]);
        lines
    }

    /// Selects the socket of the chosen slot and counts the connection. If the kernel refuses the choice because the
    /// socket is gone, its hash decides.
    fn choose(&self) -> Vec<Line<Label>> {
        let mut lines = vec![label(Label::Choose), load(CHOICE, STACK, CHOSEN)];
        lines.extend(self.row_of_choice(Label::Pass));
        lines.extend([
            // The notes survive the call.
            copy(ROW, NOTES),
            shift_right(CHOICE, 32),
            store_half(STACK, SLOT, CHOICE),
            load(R1, STACK, CONTEXT),
            map(R2, self.sockets),
            copy(R3, STACK),
            add(R3, i32::from(SLOT)),
            copy(R4, 0),
            call(SK_SELECT_REUSEPORT),
            jump_if(R0, NotEqual, 0, Label::Pass),
            copy(IT, 1),
            atomic_add(ROW, self.assigned, IT),
            map_value(TABLE, self.decided, self.counted),
            atomic_add(TABLE, 0, IT),
            // Two connections at the same moment may count as one.
            subtract(SATED_FROM, 2 * WINDOW),
            load(IT, ROW, self.share),
            jump_if(IT, NotLess, SATED_FROM, Label::InWindow),
            copy(IT, SATED_FROM),
            label(Label::InWindow),
            add(IT, 1),
            store(ROW, self.share, IT),
            label(Label::Pass),
            copy(R0, SK_PASS),
            exit(),
        ]);
        lines
    }

    /// Sets ROW to the row of CHOICE, and NOTES to its notes; jumps to `nobody` if there is no row.
    fn row_of_choice(&self, nobody: Label) -> [Line<Label>; 10] {
        [
            lower_half(IT, CHOICE),
            // Rows count from 1; row 0 wraps around to the maximum.
            subtract(IT, 1),
            jump_if(IT, NotLess, self.count - 1, nobody),
            copy(LOAD, IT),
            multiply(IT, self.row_bytes),
            map_value(ROW, self.rows, self.row_bytes),
            add(ROW, IT),
            multiply(LOAD, self.note_bytes),
            map_value(NOTES, self.decided, self.notes + self.note_bytes),
            add(NOTES, LOAD),
        ]
    }
}

const WORD: usize = size_of::<u64>();

/// Converts a number to the size for which an instruction has space.
fn number<N: TryFrom<usize>>(number: usize) -> io::Result<N> {
    N::try_from(number).map_err(|_| ErrorKind::InvalidInput.into())
}
