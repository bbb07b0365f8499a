//! Tests in the kernel: where connections really arrive. The tests write the shared words as workers and parent do.

use std::cell::Cell;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use socket2::{Domain, SockRef, Socket, Type};

use super::*;
use crate::shared::scoreboard::Scoreboard;
use crate::sys::clock;
use crate::sys::shared::{self, Writable};

/// A word of the group table.
fn seat(slot: u32, row: u32) -> u64 {
    u64::from(slot) << 32 | u64::from(row)
}

const LONG_AGO: u64 = 1;
/// A time that no clock has reached yet.
const NOT_YET: u64 = u64::MAX / 2;

/// A steered pool without processes.
struct Bed {
    /// The words of the workers, and those of the parent and the program.
    rows: Writable,
    decided: Writable,
    layout: Layout,
    ebpf: Ebpf,
    /// By address, then by slot.
    groups: Vec<Vec<Option<TcpListener>>>,
    /// How many connections have come in each millisecond for a long time, as far as the program knows.
    pace: Cell<u64>,
}

impl Bed {
    /// Without the privilege for eBPF, says so and returns `None`.
    fn new(addresses: usize, slots: usize) -> Option<Bed> {
        match Bed::try_new(addresses, slots) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                println!("skipped: {error}");
                None
            }
            bed => Some(bed.expect("a program that the verifier takes")),
        }
    }

    fn try_new(addresses: usize, slots: usize) -> io::Result<Bed> {
        let (layout, memories) = (Scoreboard::layout(SLOTS), Memories::new(SLOTS)?);
        let ((rows, _), (decided, _)) = (shared::map(&memories.rows)?, shared::map(&memories.decided)?);
        let ebpf = Ebpf::load(&layout, &memories, addresses)?;
        let groups: Vec<_> = (0..addresses).map(|_| group(slots)).collect();
        for (address, group) in groups.iter().enumerate() {
            for (slot, listener) in group.iter().flatten().enumerate() {
                ebpf.put(address, slot, listener.as_fd())?;
            }
            ebpf.attach(address, group[0].as_ref().expect("a listener").as_fd())?;
        }
        let bed = Bed { rows, decided, layout, ebpf, groups, pace: Cell::new(0) };
        // Not in the order of the slots.
        bed.seats(&(0..slots).map(|slot| seat(slot as u32, row(slots, slot) as u32)).collect::<Vec<_>>());
        Ok(bed)
    }

    fn seats(&self, seats: &[u64]) {
        for (index, seat) in seats.iter().enumerate() {
            self.seat(index, *seat);
        }
        self.count_seats(seats.len() as u64);
    }

    fn seat(&self, index: usize, seat: u64) {
        self.decided.words()[self.layout.group + 1 + index].store(seat, Relaxed);
    }

    fn count_seats(&self, count: u64) {
        self.decided.words()[self.layout.group].store(count, Relaxed);
    }

    /// A word that the slot's worker writes.
    fn word(&self, slot: usize, word: usize) -> &AtomicU64 {
        &self.rows.words()[row(self.groups[0].len(), slot) * self.layout.row_words + word]
    }

    /// A word of its notes.
    fn note(&self, slot: usize, note: usize) -> &AtomicU64 {
        self.note_of_row(row(self.groups[0].len(), slot), note)
    }

    fn note_of_row(&self, row: usize, note: usize) -> &AtomicU64 {
        &self.decided.words()[self.layout.notes + row * self.layout.note_words + note]
    }

    fn assigned(&self, slot: usize) -> u64 {
        self.note(slot, self.layout.assigned).load(Relaxed)
    }

    fn address(&self, address: usize) -> SocketAddr {
        let listener = self.groups[address].iter().flatten().next().expect("a listener");
        listener.local_addr().expect("an address")
    }

    /// Lets the program find that connections have come at this pace since the machine was started, which is when its
    /// clock began.
    fn tell_pace(&self) {
        let word = |bytes: i16| &self.decided.words()[self.layout.counted + bytes as usize / WORD];
        word(PACED_AT).store(0, Relaxed);
        let millis = clock::now().as_millis();
        word(PACED_FROM).store(word(0).load(Relaxed).wrapping_sub(self.pace.get() * millis), Relaxed);
    }

    /// Connects and accepts; returns the slot that got the connection, and counts it there. The connection itself is
    /// closed at once, since only the words matter.
    fn connect(&self, address: usize) -> usize {
        self.tell_pace();
        let client = connect(self.address(address));
        let (slot, _accepted) = self.accept(address);
        // Dropped first, see `connect`.
        drop(client);
        slot
    }

    /// Accepts one connection, like a worker that finds no second one.
    fn accept(&self, address: usize) -> (usize, TcpStream) {
        let group = &self.groups[address];
        let (slots, listeners): (Vec<usize>, Vec<&TcpListener>) =
            group.iter().enumerate().filter_map(|(slot, l)| Some((slot, l.as_ref()?))).unzip();
        let mut waits: Vec<PollFd> = listeners.iter().map(|l| PollFd::new(l.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut waits, PollTimeout::from(10_000_u16)).expect("poll");
        let found = waits.iter().position(|wait| wait.any() == Some(true)).expect("a connection that arrives");
        let (accepted, _) = listeners[found].accept().expect("a connection");
        let slot = slots[found];
        self.word(slot, self.layout.accepted).fetch_add(1, Relaxed);
        self.settle(slot);
        (slot, accepted)
    }

    fn settle(&self, slot: usize) {
        self.word(slot, self.layout.settled).store(self.assigned(slot), Relaxed);
    }

    fn close(&self, slot: usize) {
        self.word(slot, self.layout.closed).fetch_add(1, Relaxed);
    }

    /// How many of this number of connections each slot gets.
    fn spread(&self, address: usize, connections: usize) -> Vec<usize> {
        let mut counts = vec![0; self.groups[address].len()];
        for _ in 0..connections {
            counts[self.connect(address)] += 1;
        }
        counts
    }
}

/// A connection that is reset when it is dropped. While a connection is in TIME_WAIT, the kernel may fail to find it,
/// take its last segment for one to the listener, and run the program for it.
fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).expect("a connection");
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("an option");
    client
}

fn row(slots: usize, slot: usize) -> usize {
    slots - slot
}

fn group(slots: usize) -> Vec<Option<TcpListener>> {
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listen = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_port(true).expect("an option");
        socket.bind(&address.into()).expect("an address");
        socket.listen(1024).expect("a listener");
        socket.set_nonblocking(true).expect("an option");
        let listener = TcpListener::from(socket);
        address = listener.local_addr().expect("an address");
        Some(listener)
    };
    (0..slots).map(listen).collect()
}

/// Pseudo-random numbers (xorshift64) from a seed.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state as usize
}

#[test]
fn connections_stay_even_while_others_close() {
    let Some(bed) = Bed::new(1, 8) else { return };
    let mut open: Vec<usize> = (0..400).map(|_| bed.connect(0)).collect();
    let mut seed = 0x5eed;
    for _ in 0..40 {
        let burst = 1 + random(&mut seed) % 40;
        for _ in 0..burst {
            bed.close(open.swap_remove(random(&mut seed) % open.len()));
        }
        open.extend((0..burst).map(|_| bed.connect(0)));
        let of = |slot| open.iter().filter(|on| **on == slot).count();
        assert_eq!((0..8).map(of).collect::<Vec<_>>(), [50; 8]);
    }
}

/// Connections that are not accepted yet count. Two that arrive at the same moment may both go to the same slot, so the
/// fullest has at most one more than its share.
#[test]
fn a_burst_is_even_before_anybody_accepts() {
    let Some(bed) = Bed::new(1, 8) else { return };
    let address = bed.address(0);
    let burst = || (0..200).map(|_| connect(address)).collect::<Vec<_>>();
    let clients = thread::scope(|scope| {
        let other = scope.spawn(burst);
        (burst(), other.join().expect("connections"))
    });
    let mut counts = [0; 8];
    (0..400).for_each(|_| counts[bed.accept(0).0] += 1);
    assert!(counts.iter().all(|count| *count <= 51), "{counts:?}");
    drop(clients);
}

#[test]
fn equals_take_turns_at_random() {
    let Some(bed) = Bed::new(1, 4) else { return };
    let mut counts = [0; 4];
    for _ in 0..200 {
        let slot = bed.connect(0);
        bed.close(slot);
        counts[slot] += 1;
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn the_unfit_are_chosen_only_when_nobody_is_better() {
    fn away(bed: &Bed, slot: usize) {
        bed.seat(slot, seat(slot as u32, 0));
    }
    fn full(bed: &Bed, slot: usize) {
        bed.word(slot, bed.layout.full).store(1, Relaxed);
    }
    fn busy(bed: &Bed, slot: usize) {
        bed.word(slot, bed.layout.busy_since).store(LONG_AGO, Relaxed);
    }
    fn just_busy(bed: &Bed, slot: usize) {
        bed.word(slot, bed.layout.busy_since).store(NOT_YET, Relaxed);
    }
    fn one_open(bed: &Bed, slot: usize) {
        bed.word(slot, bed.layout.accepted).store(1, Relaxed);
    }
    fn less_than_none(bed: &Bed, slot: usize) {
        bed.word(slot, bed.layout.closed).store(1000, Relaxed);
    }
    fn fit(_: &Bed, _: usize) {}

    type State = fn(&Bed, usize);
    let table: [(&str, [State; 4], [usize; 4]); 11] = [
        ("nothing is the matter", [fit, fit, fit, fit], [3, 3, 3, 3]),
        ("one is away", [away, fit, fit, fit], [0, 4, 4, 4]),
        ("one is full", [fit, full, fit, fit], [4, 0, 4, 4]),
        ("one has been busy for long", [fit, fit, fit, busy], [4, 4, 4, 0]),
        ("one has just become busy", [fit, fit, just_busy, fit], [3, 3, 3, 3]),
        ("one is left", [away, full, fit, busy], [0, 0, 12, 0]),
        ("all are busy", [busy, busy, busy, busy], [3, 3, 3, 3]),
        ("busy is better than full", [busy, full, full, busy], [6, 0, 0, 6]),
        ("all are full", [full, full, full, full], [3, 3, 3, 3]),
        ("full is better than away", [away, away, full, full], [0, 0, 6, 6]),
        ("more closed than accepted is none open", [one_open, one_open, less_than_none, one_open], [0, 0, 12, 0]),
    ];
    for (case, states, expected) in table {
        let Some(bed) = Bed::new(1, 4) else { return };
        for (slot, state) in states.iter().enumerate() {
            state(&bed, slot);
        }
        assert_eq!(bed.spread(0, 12), expected, "{case}");
    }
}

/// Where many connections come, a worker that is awake is preferred even if it has a few more than the others.
#[test]
fn who_is_awake_is_preferred_when_many_come() {
    // Connections per millisecond, how many more the second one has that is awake, and how many of twelve it gets.
    let table = [(3, 1, 0..=0), (400, 1, 12..=12), (400, 3, 12..=12), (400, 5, 0..=0), (8, 1, 12..=12), (8, 3, 0..=0)];
    for (pace, more, expected) in table {
        let Some(bed) = Bed::new(1, 4) else { return };
        bed.word(1, bed.layout.busy_since).store(NOT_YET, Relaxed);
        (0..4).for_each(|slot| bed.word(slot, bed.layout.accepted).store(10, Relaxed));
        bed.word(1, bed.layout.accepted).fetch_add(more, Relaxed);
        bed.pace.set(pace);
        let mut count = 0;
        for _ in 0..12 {
            let slot = bed.connect(0);
            bed.close(slot);
            count += usize::from(slot == 1);
        }
        assert!(expected.contains(&count), "{count} of 12, where {pace} come and it has {more} more");
    }
}

#[test]
fn without_a_choice_the_hash_chooses() {
    let Some(bed) = Bed::new(1, 4) else { return };
    let everybody = |counts: Vec<usize>| counts.iter().all(|count| *count > 0);
    for slot in 0..4 {
        bed.seat(slot, seat(slot as u32, 0));
    }
    assert!(everybody(bed.spread(0, 200)), "all are away");
    bed.count_seats(0);
    assert!(everybody(bed.spread(0, 200)), "the table is empty");
    bed.count_seats(u64::MAX);
    assert!(everybody(bed.spread(0, 200)), "the table is nonsense");
    assert_eq!((0..4).map(|slot| bed.assigned(slot)).sum::<u64>(), 0);
}

#[test]
fn a_removed_slot_is_not_chosen() {
    let Some(mut bed) = Bed::new(1, 4) else { return };
    bed.seats(&[seat(2, 2)]);
    assert_eq!(bed.spread(0, 100), [0, 0, 100, 0]);
    bed.ebpf.remove(0, 2).expect("a socket that was there");
    let by_hash = bed.spread(0, 100);
    assert!(by_hash.iter().all(|count| *count < 100), "{by_hash:?}");
    assert_eq!(bed.assigned(2), 100, "what the hash chooses is not counted");

    let listener = bed.groups[0][2].take().expect("a listener");
    bed.ebpf.put(0, 2, listener.as_fd()).expect("a place for the socket");
    let twice = bed.ebpf.put(0, 2, listener.as_fd()).expect_err("a socket has one place");
    assert_eq!(twice.raw_os_error(), Some(libc::EBUSY));
    bed.groups[0][2] = Some(listener);
    assert_eq!(bed.spread(0, 100), [0, 0, 100, 0]);

    let member = bed.groups[0][0].as_ref().expect("a listener");
    Ebpf::detach(member.as_fd()).expect("a group");
    let by_hash = bed.spread(0, 100);
    assert!(by_hash.iter().all(|count| *count < 100), "{by_hash:?}");
}

/// A worker's load are the connections of all its addresses, but each connection arrives at a socket of its own
/// address.
#[test]
fn addresses_have_groups_of_their_own() {
    let Some(bed) = Bed::new(2, 4) else { return };
    assert_ne!(bed.address(0), bed.address(1));
    bed.word(3, bed.layout.accepted).store(6, Relaxed);
    assert_eq!(bed.spread(0, 6), [2, 2, 2, 0]);
    assert_eq!(bed.spread(1, 16), [5, 5, 5, 1]);
}

#[test]
fn what_never_arrives_is_forgotten() {
    let Some(bed) = Bed::new(1, 4) else { return };
    bed.note(1, bed.layout.assigned).store(100, Relaxed);
    assert_eq!(bed.spread(0, 12), [4, 0, 4, 4]);
    bed.settle(1);
    assert_eq!(bed.spread(0, 8), [1, 5, 1, 1]);
}

/// Connections that wait for a worker move to another when its socket is closed, without `net.ipv4.tcp_migrate_req`.
/// Linux 5.14.
#[test]
fn closing_a_socket_loses_nobody() {
    let Some(mut bed) = Bed::new(1, 3) else { return };
    bed.seats(&[seat(0, 1)]);
    let address = bed.address(0);
    let clients: Vec<TcpStream> = (0..20).map(|_| connect(address)).collect();
    bed.seats(&[seat(0, 0), seat(1, 2), seat(2, 3)]);
    bed.groups[0][0] = None;
    let mut counts = [0; 3];
    clients.iter().for_each(|_| counts[bed.accept(0).0] += 1);
    assert_eq!(counts, [0, 10, 10]);
}

/// More seats than the program examines. Many share a socket here, but none share a row.
#[test]
fn a_thousand_seats_stay_even() {
    let Some(bed) = Bed::new(1, 4) else { return };
    bed.seats(&(0..SLOTS as u32).map(|seat_index| seat(seat_index % 4, seat_index + 1)).collect::<Vec<_>>());
    let assigned = |seat: usize| bed.note_of_row(seat + 1, bed.layout.assigned).load(Relaxed);
    for _ in 0..3 * SLOTS {
        drop(connect(bed.address(0)));
        // So that no queue is full, however short they are here.
        bed.groups[0].iter().flatten().for_each(|listener| drop(listener.accept()));
    }
    assert_eq!((0..SLOTS).map(assigned).sum::<u64>(), 3 * SLOTS as u64);
    let most = (0..SLOTS).map(assigned).max();
    assert!(most <= Some(5), "{most:?}");
}

#[test]
fn what_does_not_listen_is_refused() {
    let Some(bed) = Bed::new(1, 1) else { return };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    assert!(bed.ebpf.put(0, 0, socket.as_fd()).is_err());
    assert!(bed.ebpf.put(0, SLOTS, bed.groups[0][0].as_ref().expect("a listener").as_fd()).is_err());
}

/// The verifier would refuse a layout that does not fit the words; it does not even see it.
#[test]
fn a_layout_must_fit() {
    let Some(_) = Bed::new(1, 1) else { return };
    let memories = Memories::new(3).expect("memory");
    let error = Ebpf::load(&Scoreboard::layout(SLOTS), &memories, 1).expect_err("no room for the rows");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// Workers may write anything to their pages. One that claims to be idle gets at most twice its share. However many do,
/// each of the others gets half of its own share while it is free.
#[test]
fn claims_draw_no_more_than_twice_a_fair_share_and_leave_half_of_the_others() {
    for liars in 1..4 {
        let Some(bed) = Bed::new(1, 4) else { return };
        let mut open = Vec::new();
        for (case, accepted, closed, settled) in [
            ("none open", 0, 0, None),
            ("as many closed", 1 << 40, 1 << 40, None),
            ("more closed than accepted", 5, 1_000, None),
            ("more taken than given", 0, 0, Some(1_000)),
        ] {
            let mut drawn = [0; 4];
            // Whole windows.
            for _ in 0..512 {
                for liar in 0..liars {
                    let claims = [(bed.layout.accepted, accepted), (bed.layout.closed, closed)];
                    claims.iter().for_each(|(word, value)| bed.word(liar, *word).store(*value, Relaxed));
                    if let Some(settled) = settled {
                        bed.word(liar, bed.layout.settled).store(settled, Relaxed);
                    }
                    bed.word(liar, bed.layout.busy_since).store(0, Relaxed);
                }
                let client = connect(bed.address(0));
                let (slot, accepted) = bed.accept(0);
                drawn[slot] += 1;
                open.push((client, accepted));
            }
            eprintln!("{liars} of 4 with {case}: {drawn:?} of 512");
            // A quarter is fair. The kernel may also run the program for other segments than new connections.
            assert!(drawn.iter().all(|drawn| *drawn <= 256 + 8), "{case}: {drawn:?} of 512");
            assert!(drawn[liars..].iter().all(|drawn| *drawn >= 64 - 8), "{case}: {drawn:?} of 512");
        }
    }
}

/// A row with impossible numbers is passed over, and the other shares do not suffer.
#[test]
fn who_talks_nonsense_gets_nothing() {
    let Some(bed) = Bed::new(1, 4) else { return };
    for nonsense in [u64::MAX, 1 << 63, 1 << 40, 0xdead_beef_dead_beef] {
        for word in [bed.layout.accepted, bed.layout.closed, bed.layout.settled] {
            let before = bed.word(1, word).swap(nonsense, Relaxed);
            let settled = bed.word(1, bed.layout.settled).load(Relaxed);
            let counts = bed.spread(0, 12);
            // All ones is minus one, which is possible.
            if nonsense != u64::MAX {
                assert_eq!(counts[1], 0, "{nonsense:#x} {word}: {counts:?}");
            }
            bed.word(1, word).store(before, Relaxed);
            if word != bed.layout.settled {
                bed.word(1, bed.layout.settled).store(settled, Relaxed);
            }
        }
    }
    // If all rows are such, the hash decides.
    (0..4).for_each(|slot| bed.word(slot, bed.layout.closed).store(1 << 40, Relaxed));
    assert!(bed.spread(0, 200).iter().all(|count| *count > 0));
}
