//! PURE. The classic BPF program that picks one of the allowed seats at random: it needs no privilege.
//!
//! The kernel runs it for each new connection of the group (socket(7), `SO_ATTACH_REUSEPORT_CBPF`) and takes what it
//! returns as the index of a socket, in the order in which they began to listen. An index that is out of range makes
//! the kernel pick by hash.
#![forbid(unsafe_code)]

use super::plan::Seats;

/// An instruction as the kernel has it (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jump_true: u8,
    pub(crate) jump_false: u8,
    pub(crate) value: u32,
}

// linux/filter.h, linux/bpf_common.h.
const LOAD_ABSOLUTE: u16 = 0x20;
const MODULO: u16 = 0x94;
const ADD: u16 = 0x04;
const JUMP_IF_NOT_LESS: u16 = 0x35;
const RETURN_ACCUMULATOR: u16 = 0x16;
/// A random number is at this place of every packet (`SKF_AD_OFF + SKF_AD_RANDOM`).
const RANDOM: u32 = (-0x1000_i32 + 56) as u32;

/// Three instructions for each run of allowed seats without a gap, so that its length does not grow with the group; at
/// most 4096, the kernel's limit, for any set of 1024 seats.
pub(crate) fn program(allowed: &Seats) -> Vec<Instruction> {
    let ranges = allowed.ranges();
    let count: usize = ranges.iter().map(|(start, end)| end - start).sum();
    let mut program = vec![plain(LOAD_ABSOLUTE, RANDOM), plain(MODULO, word(count.max(1)))];
    // The accumulator is the number of the pick among the allowed seats; `before` of these are in earlier ranges.
    let mut before = 0;
    for (start, end) in &ranges {
        let (offset, last) = (start - before, before + end - start == count);
        before += end - start;
        if !last {
            // Not in this range: over the next two.
            program.push(Instruction { code: JUMP_IF_NOT_LESS, jump_true: 2, jump_false: 0, value: word(before) });
        }
        program.push(plain(ADD, word(offset)));
        program.push(plain(RETURN_ACCUMULATOR, 0));
    }
    if ranges.is_empty() {
        program.push(plain(RETURN_ACCUMULATOR, 0));
    }
    program
}

fn plain(code: u16, value: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, value }
}

fn word(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steer::plan::SEATS_MAX;

    /// What the kernel's interpreter would return for this random number.
    fn run(program: &[Instruction], random: u32) -> u32 {
        let (mut accumulator, mut at) = (0_u32, 0);
        loop {
            let instruction = program[at];
            at += 1;
            match instruction.code {
                LOAD_ABSOLUTE => accumulator = random,
                MODULO => accumulator %= instruction.value,
                ADD => accumulator += instruction.value,
                JUMP_IF_NOT_LESS if accumulator >= instruction.value => at += usize::from(instruction.jump_true),
                JUMP_IF_NOT_LESS => at += usize::from(instruction.jump_false),
                RETURN_ACCUMULATOR => return accumulator,
                code => panic!("{code:#x}"),
            }
        }
    }

    #[test]
    fn every_allowed_seat_is_picked_alike_and_no_other() {
        let all: Vec<usize> = (0..SEATS_MAX).collect();
        let odd: Vec<usize> = (0..SEATS_MAX).filter(|seat| seat % 2 == 1).collect();
        for list in [&[0][..], &[5], &[0, 1, 2], &[0, 2], &[1, 2, 5, 9, 10, 11], &[1023], &all, &odd] {
            let mut seats = Seats::default();
            list.iter().for_each(|seat| seats.insert(*seat));
            let program = program(&seats);
            assert!(program.len() <= 4096);
            let picked: Vec<usize> = (0..list.len()).map(|random| run(&program, random as u32) as usize).collect();
            assert_eq!(picked, list);
            assert_eq!(run(&program, list.len() as u32) as usize, list[0], "and around again");
        }
    }

    #[test]
    fn a_whole_group_costs_four_instructions() {
        let mut seats = Seats::default();
        (0..256).for_each(|seat| seats.insert(seat));
        assert_eq!(program(&seats).len(), 4);
    }

    #[test]
    fn nobody_allowed_is_still_a_program() {
        assert_eq!(run(&program(&Seats::default()), 7), 0);
    }
}
