//! Steering by eBPF: for each new connection the kernel runs a program that gives it to the slot with the fewest open
//! connections, as the scoreboard tells them, and passes over slots that are busy, full or not ready.
//!
//! A connection counts from its SYN: the program adds it to `assigned` of the process that it chose, and that one, when it
//! has accepted it, to its own `settled` and `accepted`. About once a second a worker that finds its queue empty also
//! settles what is pending all the time, and the parent what is pending for a second at one that is idle: SYNs of a flood,
//! connections reset before the accept or taken by a neighbour, and stray segments of closed connections, for which the
//! kernel runs the program too.
//!
//! What a worker says of itself may be a lie. A row whose numbers cannot be is not chosen. And the program counts, where
//! no worker can write, what it has given to each process of late: who has had twice its fair share gets nothing more while
//! another one is free, however few connections it claims to have; and who is free and lags behind by half of it comes
//! first, so that several who claim so together cannot take everything.
//!
//! The parent loads and attaches, and changes the tables; nobody runs anything for a connection but the kernel.

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

/// Most slots of a pool that is steered so.
pub(crate) const SLOTS: usize = 1024;

/// The programs, one per address because a group's sockets are its own, and their tables of sockets, keyed by slot.
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
    /// Loads a program for each of so many addresses.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`] without CAP_BPF and CAP_NET_ADMIN; what the verifier says where it refuses.
    pub(crate) fn load(layout: &Layout, memories: &Memories, addresses: usize) -> io::Result<Ebpf> {
        let group = || {
            let sockets = Sockets::new(SLOTS as u32)?;
            let program = bpf::load(&Program::new(layout, memories, &sockets, STALLED)?.instructions())?;
            Ok(Group { sockets, program })
        };
        Ok(Ebpf { groups: (0..addresses).map(|_| group()).collect::<io::Result<_>>()? })
    }

    /// Makes a slot's listening socket one that can be chosen. Once per socket: it stays while workers come and go,
    /// until it is removed or closed by the last who holds it.
    ///
    /// # Errors
    ///
    /// A socket that is here already is refused (EBUSY), and one that does not listen (EINVAL).
    pub(crate) fn put(&self, address: usize, slot: usize, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.groups[address].sockets.put(index(slot)?, socket)
    }

    /// Makes a slot's socket one that cannot be chosen, before it is closed.
    pub(crate) fn remove(&self, address: usize, slot: usize) -> io::Result<()> {
        self.groups[address].sockets.remove(index(slot)?)
    }

    /// Begins to steer the group of an address; `member` is any of its listening sockets.
    pub(crate) fn attach(&self, address: usize, member: BorrowedFd<'_>) -> io::Result<()> {
        bpf::attach(member, self.groups[address].program.as_fd())
    }

    /// Leaves the group to the kernel's hash again.
    #[cfg(test)]
    fn detach(member: BorrowedFd<'_>) -> io::Result<()> {
        bpf::detach(member)
    }
}

fn index(slot: usize) -> io::Result<u32> {
    u32::try_from(slot).map_err(|_| ErrorKind::InvalidInput.into())
}

/// How far a busy worker's row must lie back for it to be passed over, in milliseconds: times are cut to the
/// millisecond, so this is more than one.
const STALLED: i32 = 2;

/// How many seats the program looks at: all of a usual pool. In a larger one it looks at so many in a row, from a random
/// one on: each costs every new connection two cache lines of another processor, and the least of these is hardly worse
/// than the least of all.
const LOOKS: i32 = 64;

/// The program counts assignments in windows of so many for each seat, of which nobody gets more than twice as many while
/// another one is free, and nobody who is free less than half of them. Honest claims hardly ever ask for more or less in
/// so long a window. A process's share is a word: the window's number in the upper bits, its count in the lower ones.
const WINDOW: i32 = 64;
const SHARE_BITS: i32 = 20;

/// How far behind its share of the window so far a process is before it comes first.
const LAG: i32 = WINDOW / 2;

/// More connections than this, or less than none by as many, no process can have: what claims that is not chosen.
const CREDIBLE: i32 = 1 << 26;

/// Added to the load of a row, so that the least of all is the choice: one that lags behind is the best, one that has had
/// its share is worse than any that is free, a worker that is busy is worse, and one that is full is worse still, but
/// better than nobody.
const IN_STEP: i32 = 1 << 27;
const SATED: i32 = 1 << 28;
const BUSY: i32 = 1 << 29;
const FULL: i32 = 1 << 30;

// The program's variables. R0 to R5 do not survive a call, so nothing is called while seats are looked at.
const LOAD: Register = R0;
const NOTES: Register = R1;
const SEAT: Register = R2;
const SEATS: Register = R3;
const IT: Register = R4;
const CHOICE: Register = R5;
/// What a process's share is at least when it has had enough.
const SATED_FROM: Register = R6;
const TABLE: Register = R7;
const LEAST: Register = R8;
const ROW: Register = R9;
const STACK: Register = R10;

// What is on the stack, below its end.
const BUSY_BEFORE: i16 = -8;
const CHOSEN: i16 = -16;
const SLOT: i16 = -20;
const CONTEXT: i16 = -32;
const LAGS_BELOW: i16 = -40;
const SHARE: i16 = -48;

// The kernel's helpers and results (linux/bpf.h).
const KTIME_GET_NS: i32 = 5;
const GET_PRANDOM_U32: i32 = 7;
const SK_SELECT_REUSEPORT: i32 = 82;
const SK_PASS: i32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// These are there once for each seat that is looked at.
    InTable(i32),
    NotFull(i32),
    NotSated(i32),
    Lags(i32),
    NotBusy(i32),
    NotChosen(i32),
    Choose,
    InWindow,
    Pass,
}

/// What the program is made from: the layout in bytes, and descriptors.
#[derive(Debug)]
struct Program {
    /// The part that workers write, and the other one.
    rows: i32,
    decided: i32,
    sockets: i32,
    stall: i32,
    /// How many rows there are, row 0 included, the length of one, and of its notes.
    count: i32,
    row_bytes: i32,
    note_bytes: i32,
    /// Where the group table is, and for how many seats it has room.
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
        lines.extend((0..LOOKS).flat_map(|looked| self.look(looked)));
        lines.extend(self.choose());
        assemble(&lines)
    }

    /// Reads the clock, and takes a random seat to begin with, so that equals have equal chances.
    fn begin(&self) -> Vec<Line<Label>> {
        vec![
            store(STACK, CONTEXT, R1),
            call(KTIME_GET_NS),
            divide(R0, 1_000_000),
            subtract(R0, self.stall),
            store(STACK, BUSY_BEFORE, R0),
            call(GET_PRANDOM_U32),
            copy(SEAT, R0),
            map_value(TABLE, self.decided, self.table),
            load(SEATS, TABLE, 0),
            // The verifier believes no number that it has not seen compared with a constant, here and below.
            jump_if(SEATS, Greater, self.seats, Label::Pass),
            modulo(SEAT, SEATS),
            // The number of the window, shifted to where it is in a share. Without seats the division gives zero.
            map_value(ROW, self.decided, self.counted),
            load(LOAD, ROW, 0),
            copy(IT, SEATS),
            multiply(IT, WINDOW),
            divide(LOAD, IT),
            multiply(LOAD, 1 << SHARE_BITS),
            copy(SATED_FROM, LOAD),
            add(SATED_FROM, 2 * WINDOW),
            // A share below this lags behind. Zero, below which is none, until the window is old enough.
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
            // Nobody yet, whose load is the greatest: zero, and zero less one. Computed, because for a constant the
            // verifier would follow each way from seat to seat to its end, and there are too many.
            copy(LEAST, R0),
            xor(LEAST, R0),
            store(STACK, CHOSEN, LEAST),
            subtract(LEAST, 1),
        ]
    }

    /// Looks at one seat, of which it has seen so many, and keeps the one whose row has the least load.
    ///
    /// This is not a loop: the verifier refuses every loop that it has to follow to its end, unless CAP_PERFMON lets it
    /// disregard what a processor does speculatively.
    fn look(&self, looked: i32) -> Vec<Line<Label>> {
        let mut lines = vec![
            jump_if(SEATS, NotGreater, looked, Label::Choose),
            // Behind the last seat is the first.
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
            // The words are not read at one moment, so the sum may be a little less than nothing.
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
            // Makes zero, which is idle, later than any time.
            subtract(IT, 1),
            jump_if(IT, NotLess, ROW, Label::NotBusy(looked)),
            or(LOAD, BUSY),
            label(Label::NotBusy(looked)),
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

    /// Selects the chosen slot's socket and counts the connection. A choice that the kernel refuses, because the socket
    /// is gone, is left to its hash.
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
            // Two at one moment may count as one.
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

    /// Sets ROW to the row of CHOICE, and NOTES to the notes on it; goes to `nobody` if there is none.
    fn row_of_choice(&self, nobody: Label) -> [Line<Label>; 10] {
        [
            lower_half(IT, CHOICE),
            // From row 1 on; row 0 becomes greater than any.
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

/// A number that fits where an instruction has room for it.
fn number<N: TryFrom<usize>>(number: usize) -> io::Result<N> {
    N::try_from(number).map_err(|_| ErrorKind::InvalidInput.into())
}
