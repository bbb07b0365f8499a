//! PURE. Classic BPF programs that choose one of the allowed seats: at random, by CPU, or by client. They need no
//! privilege.
//!
//! The kernel runs the program for each new connection of the group (socket(7), `SO_ATTACH_REUSEPORT_CBPF`). The result
//! is the index of a socket, in the order in which the sockets began to listen. For an index out of range, the kernel
//! chooses by hash.
#![forbid(unsafe_code)]

use crate::shared::seats::Seats;
use crate::sys::cbpf::{self, plain, Instruction, JUMP_IF_AT_LEAST, JUMP_IF_EQUAL, LOAD_WORD, RETURN};

/// How to choose among the allowed seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    Random,
    /// By the CPU that received the packet. Seats that have its number here are preferred.
    Cpu(&'a [usize]),
    /// By the client's address: a client returns to its previous seat, out of this number of seats, while that is
    /// allowed.
    Client {
        seats: usize,
    },
}

// From linux/filter.h and linux/bpf_common.h; the others are in `cbpf`.
const LOAD_BYTE: u16 = 0x30;
const LOAD_KEPT: u16 = 0x60;
const KEEP: u16 = 0x02;
const TO_INDEX: u16 = 0x07;
const ADD: u16 = 0x04;
const MULTIPLY: u16 = 0x24;
const SHIFT_RIGHT: u16 = 0x74;
const MODULO: u16 = 0x94;
const XOR_INDEX: u16 = 0xac;
const RETURN_ACCUMULATOR: u16 = 0x16;
/// The places of a random number and of the CPU's number in every packet (`SKF_AD_OFF + SKF_AD_RANDOM`, `_CPU`).
const RANDOM: u32 = (-0x1000_i32 + 56) as u32;
const CPU: u32 = (-0x1000_i32 + 36) as u32;
/// The place of the packet's IP header (`SKF_NET_OFF`).
const IP: u32 = -0x10_0000_i32 as u32;

/// The maximum number of seats for one CPU; the distance of a jump is a byte.
const PER_CPU: usize = 100;

/// The maximum number of CPUs to distinguish, so that the program stays below the kernel's 4096 instructions.
const CPUS: usize = 256;

/// The program for a set of seats. Its length grows with the gaps in the set and with the number of CPUs, but not with
/// the group.
pub(crate) fn program(allowed: &Seats, key: Key<'_>) -> Vec<Instruction> {
    let mut program = match key {
        Key::Random => Vec::new(),
        Key::Cpu(cpus) => by_cpu(allowed, cpus),
        Key::Client { seats } => by_client(allowed, seats),
    };
    match key {
        // The same number for the same client.
        Key::Client { .. } => program.push(plain(LOAD_KEPT, 0)),
        _ => program.push(plain(LOAD_WORD, RANDOM)),
    }
    program.extend(nth_of(allowed));
    program
}

/// Returns the seat whose number among the allowed ones is the accumulator modulo their count. Takes three instructions
/// for each run of seats without a gap.
fn nth_of(allowed: &Seats) -> Vec<Instruction> {
    let ranges = allowed.ranges();
    let count: usize = ranges.iter().map(|(start, end)| end - start).sum();
    let mut program = vec![plain(MODULO, word(count.max(1)))];
    // The number of allowed seats in earlier runs.
    let mut before = 0;
    for (start, end) in &ranges {
        let (offset, last) = (start - before, before + end - start == count);
        before += end - start;
        if !last {
            // Not in this run: skip the next two instructions.
            program.push(jump(JUMP_IF_AT_LEAST, before, 2, 0));
        }
        program.push(plain(ADD, word(offset)));
        program.push(plain(RETURN_ACCUMULATOR, 0));
    }
    if ranges.is_empty() {
        program.push(plain(RETURN_ACCUMULATOR, 0));
    }
    program
}

/// Returns one of the CPU's own seats at random, if one is allowed; otherwise continues.
fn by_cpu(allowed: &Seats, cpus: &[usize]) -> Vec<Instruction> {
    let mut program = Vec::new();
    let mut numbers: Vec<usize> = cpus.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    for cpu in numbers.into_iter().take(CPUS) {
        let own = cpus.iter().enumerate().filter(|(seat, it)| **it == cpu && allowed.contains(*seat));
        let own: Vec<usize> = own.map(|(seat, _)| seat).take(PER_CPU).collect();
        let Some((last, others)) = own.split_last() else { continue };
        let mut block = Vec::new();
        if !others.is_empty() {
            block.extend([plain(LOAD_WORD, RANDOM), plain(MODULO, word(own.len()))]);
            for (turn, seat) in others.iter().enumerate() {
                block.extend([jump(JUMP_IF_EQUAL, turn, 0, 1), plain(RETURN, word(*seat))]);
            }
        }
        block.push(plain(RETURN, word(*last)));
        program.push(plain(LOAD_WORD, CPU));
        program.push(jump(JUMP_IF_EQUAL, cpu, 0, block.len()));
        program.extend(block);
    }
    program
}

/// Keeps a hash of the client's address, and returns its seat if that is allowed; otherwise continues.
fn by_client(allowed: &Seats, seats: usize) -> Vec<Instruction> {
    let mut program = vec![
        plain(LOAD_BYTE, IP),
        plain(SHIFT_RIGHT, 4),
        jump(JUMP_IF_EQUAL, 4, 0, 2),
        // IPv4 (RFC 791): the source address is at 12.
        plain(LOAD_WORD, IP.wrapping_add(12)),
        jump(JUMP_IF_AT_LEAST, 0, 10, 10),
        // IPv6 (RFC 8200): four words from 8 on.
        plain(LOAD_WORD, IP.wrapping_add(8)),
    ];
    for place in [12, 16, 20] {
        program.extend([plain(TO_INDEX, 0), plain(LOAD_WORD, IP.wrapping_add(place)), plain(XOR_INDEX, 0)]);
    }
    // Neighbouring addresses differ in few bits. A multiplication spreads them upwards, and the upper bits decide.
    program.extend([
        plain(MULTIPLY, 0x9e37_79b1),
        plain(SHIFT_RIGHT, 12),
        plain(KEEP, 0),
        plain(MODULO, word(seats.max(1))),
    ]);
    for (start, end) in allowed.ranges() {
        program.push(jump(JUMP_IF_AT_LEAST, start, 0, 2));
        program.push(jump(JUMP_IF_AT_LEAST, end, 1, 0));
        program.push(plain(RETURN_ACCUMULATOR, 0));
    }
    program
}

fn jump(code: u16, value: usize, jump_true: usize, jump_false: usize) -> Instruction {
    let distance = |instructions: usize| u8::try_from(instructions).unwrap_or(u8::MAX);
    cbpf::jump(code, word(value), distance(jump_true), distance(jump_false))
}

fn word(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::random::random_below;
    use crate::shared::seats::SEATS_MAX;

    /// The fields of a packet that a program reads.
    #[derive(Clone, Copy)]
    struct Packet<'a> {
        random: u32,
        cpu: u32,
        ip: &'a [u8],
    }

    const ANY: Packet<'static> = Packet { random: 0, cpu: 0, ip: &[] };

    /// Interprets a program as the kernel does, and returns its result.
    fn run(program: &[Instruction], packet: Packet<'_>) -> usize {
        let (mut a, mut x, mut kept, mut at) = (0_u32, 0_u32, 0_u32, 0);
        let ip = |place: u32, len: usize| {
            let start = place.wrapping_sub(IP) as usize;
            packet.ip[start..start + len].iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
        };
        loop {
            let instruction = program[at];
            at += 1;
            let mut jump = |taken: bool| {
                at += usize::from(if taken { instruction.jump_true } else { instruction.jump_false });
            };
            let k = instruction.value;
            match instruction.code {
                LOAD_WORD if k == RANDOM => a = packet.random,
                LOAD_WORD if k == CPU => a = packet.cpu,
                LOAD_WORD => a = ip(k, 4),
                LOAD_BYTE => a = ip(k, 1),
                LOAD_KEPT => a = kept,
                KEEP => kept = a,
                TO_INDEX => x = a,
                ADD => a += k,
                MULTIPLY => a = a.wrapping_mul(k),
                SHIFT_RIGHT => a >>= k,
                MODULO => a %= k,
                XOR_INDEX => a ^= x,
                JUMP_IF_EQUAL => jump(a == k),
                JUMP_IF_AT_LEAST => jump(a >= k),
                RETURN => return k as usize,
                RETURN_ACCUMULATOR => return a as usize,
                code => panic!("{code:#x}"),
            }
        }
    }

    fn seats(list: &[usize]) -> Seats {
        let mut seats = Seats::default();
        list.iter().for_each(|seat| seats.insert(*seat));
        seats
    }

    #[test]
    fn every_allowed_seat_is_picked_alike_and_no_other() {
        let all: Vec<usize> = (0..SEATS_MAX).collect();
        let odd: Vec<usize> = (0..SEATS_MAX).filter(|seat| seat % 2 == 1).collect();
        for list in [&[0][..], &[5], &[0, 1, 2], &[0, 2], &[1, 2, 5, 9, 10, 11], &[1023], &all, &odd] {
            let program = program(&seats(list), Key::Random);
            assert!(program.len() <= 4096);
            let pick = |random: usize| run(&program, Packet { random: random as u32, ..ANY });
            assert_eq!((0..list.len()).map(pick).collect::<Vec<_>>(), list);
            assert_eq!(pick(list.len()), list[0], "and around again");
        }
    }

    #[test]
    fn a_whole_group_costs_four_instructions() {
        let all: Vec<usize> = (0..256).collect();
        assert_eq!(program(&seats(&all), Key::Random).len(), 4);
    }

    #[test]
    fn nobody_allowed_is_still_a_program() {
        for key in [Key::Random, Key::Cpu(&[0, 1]), Key::Client { seats: 2 }] {
            assert!(run(&program(&Seats::default(), key), Packet { ip: &V4, ..ANY }) < 2);
        }
    }

    #[test]
    fn a_processor_has_its_own_seats() {
        // Six workers on four CPUs.
        let cpus = [0, 2, 4, 6, 0, 2];
        let on = |allowed: &[usize], cpu: u32| {
            let program = program(&seats(allowed), Key::Cpu(&cpus));
            let mut picked: Vec<_> = (0..60).map(|random| run(&program, Packet { random, cpu, ..ANY })).collect();
            picked.sort_unstable();
            picked.dedup();
            picked
        };
        let all = [0, 1, 2, 3, 4, 5];
        assert_eq!(on(&all, 0), [0, 4]);
        assert_eq!(on(&all, 4), [2]);
        assert_eq!(on(&all, 5), all, "another's goes to any");
        assert_eq!(on(&[1, 3, 4], 0), [4]);
        assert_eq!(on(&[1, 3], 0), [1, 3], "as does one whose workers are away");
        let many: Vec<usize> = (0..SEATS_MAX).map(|seat| seat % 300).collect();
        let all: Vec<usize> = (0..SEATS_MAX).collect();
        assert!(program(&seats(&all), Key::Cpu(&many)).len() <= 4096);
        assert!(program(&seats(&all), Key::Cpu(&[0; SEATS_MAX])).len() <= 4096);
    }

    const V4: [u8; 20] = [0x45, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 7, 0, 0, 0, 0];

    #[test]
    fn a_client_comes_back_to_its_seat() {
        let clients: Vec<Vec<u8>> = (0..200_u8)
            .map(|n| match n % 2 {
                0 => [&V4[..15], &[n], &V4[16..]].concat(),
                _ => [&[0x60][..], &[0; 7], &[0x20, 1, 0xd, 0xb8], &[0; 11], &[n], &[0; 16]].concat(),
            })
            .collect();
        let homes = |allowed: &[usize]| {
            let program = program(&seats(allowed), Key::Client { seats: 4 });
            let home = |(random, ip): (u32, &Vec<u8>)| run(&program, Packet { random, cpu: random, ip });
            (0..).zip(&clients).map(home).collect::<Vec<_>>()
        };
        let all = homes(&[0, 1, 2, 3]);
        for seat in 0..4 {
            let count = all.iter().filter(|home| **home == seat).count();
            assert!((30..70).contains(&count), "{count} of 200 on seat {seat}");
        }
        // While one seat is missing its clients are spread, and no other client moves.
        let without = homes(&[0, 1, 3]);
        for (before, meanwhile) in all.iter().zip(&without) {
            assert!(if *before == 2 { [0, 1, 3].contains(meanwhile) } else { meanwhile == before });
        }
        assert_eq!(without.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    }

    #[test]
    fn whoever_is_away_nobody_gets_a_connection_who_may_not_and_no_other_client_moves() {
        for seed in 1..=40_u64 {
            let mut random = random_below(seed);
            let mut below = |bound: u64| random(bound) as usize;
            let count = 1 + below([4, 64, SEATS_MAX as u64][seed as usize % 3]);
            let cpus: Vec<usize> = (0..count).map(|_| below(16)).collect();
            let percent = [5, 50, 95][below(3)];
            let allowed: Vec<usize> = (0..count).filter(|_| below(100) < percent).collect();
            let everybody: Vec<usize> = (0..count).collect();
            let at = |list: &[usize], key: Key<'_>| {
                let program = program(&seats(list), key);
                assert!(program.len() <= 4096, "the kernel takes no more, seed {seed}");
                program
            };
            let by_client = Key::Client { seats: count };
            let [random, cpu, client, home] = [
                at(&allowed, Key::Random),
                at(&allowed, Key::Cpu(&cpus)),
                at(&allowed, by_client),
                at(&everybody, by_client),
            ];
            for _ in 0..500 {
                let mut ip = V4;
                ip[12..16].copy_from_slice(&(below(1 << 31) as u32).to_be_bytes());
                let packet = Packet { random: below(1 << 31) as u32, cpu: below(20) as u32, ip: &ip };
                let picked = [&random, &cpu, &client].map(|program| run(program, packet));
                if allowed.is_empty() {
                    continue;
                }
                assert!(picked.iter().all(|seat| allowed.contains(seat)), "{picked:?} of {allowed:?}, seed {seed}");
                let own = run(&home, packet);
                assert!(!allowed.contains(&own) || picked[2] == own, "a client has moved, seed {seed}");
                let on_cpu: Vec<&usize> = allowed.iter().filter(|seat| cpus[**seat] == packet.cpu as usize).collect();
                assert!(on_cpu.is_empty() || on_cpu.contains(&&picked[1]), "another processor's, seed {seed}");
            }
        }
    }
}
