//! PURE. The classic BPF program that judges system calls (seccomp(2)).
#![forbid(unsafe_code)]

use crate::steer::Instruction;

/// What becomes of a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    /// When the condition holds; else it is refused with [`REFUSED`].
    AllowIf(Condition),
    /// It fails with this error and does nothing.
    Fail(u16),
    /// It ends the process by SIGSYS.
    Kill,
}

/// What an argument has to be. Only its lower half counts, as for the kernel: these are ints and sets of flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// All of these bits are set.
    With {
        argument: u8,
        bits: u32,
    },
    /// None of these bits is set.
    Without {
        argument: u8,
        bits: u32,
    },
    OneOf {
        argument: u8,
        values: Vec<u32>,
    },
    /// A null pointer.
    Null {
        argument: u8,
    },
}

/// The error of what is not mentioned: EPERM.
pub(crate) const REFUSED: u16 = 1;

// linux/filter.h, linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_ANY: u16 = 0x45;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
// linux/seccomp.h: what is returned, and where `struct seccomp_data` has what, on a little-endian machine.
const ALLOW: u32 = 0x7fff_0000;
const FAIL: u32 = 0x0005_0000;
const KILL: u32 = 0x8000_0000;
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The program that judges calls by their number, the first entry first; what is not mentioned is refused. A call by
/// another architecture's numbers, which mean something else, ends the process.
pub(crate) fn program(architecture: u32, calls: &[(u32, Verdict)]) -> Vec<Instruction> {
    let mut program = vec![
        plain(LOAD_WORD, ARCHITECTURE),
        jump(JUMP_IF_EQUAL, architecture, 1, 0),
        plain(RETURN, KILL),
        plain(LOAD_WORD, NUMBER),
    ];
    for (number, verdict) in calls {
        let judge = judge(verdict);
        program.push(jump(JUMP_IF_EQUAL, *number, 0, distance(judge.len())));
        program.extend(judge);
    }
    program.push(plain(RETURN, FAIL | u32::from(REFUSED)));
    program
}

/// Always returns.
fn judge(verdict: &Verdict) -> Vec<Instruction> {
    let refuse = plain(RETURN, FAIL | u32::from(REFUSED));
    let allow = plain(RETURN, ALLOW);
    match verdict {
        Verdict::Allow => vec![allow],
        Verdict::Fail(error) => vec![plain(RETURN, FAIL | u32::from(*error))],
        Verdict::Kill => vec![plain(RETURN, KILL)],
        Verdict::AllowIf(Condition::With { argument, bits }) => {
            vec![load(*argument), plain(AND, *bits), jump(JUMP_IF_EQUAL, *bits, 0, 1), allow, refuse]
        }
        Verdict::AllowIf(Condition::Without { argument, bits }) => {
            vec![load(*argument), jump(JUMP_IF_ANY, *bits, 1, 0), allow, refuse]
        }
        Verdict::AllowIf(Condition::OneOf { argument, values }) => {
            let mut judge = vec![load(*argument)];
            let tries = values.iter().flat_map(|value| [jump(JUMP_IF_EQUAL, *value, 0, 1), allow]);
            judge.extend(tries);
            judge.push(refuse);
            judge
        }
        Verdict::AllowIf(Condition::Null { argument }) => vec![
            load(*argument),
            jump(JUMP_IF_EQUAL, 0, 0, 3),
            plain(LOAD_WORD, offset(*argument) + 4),
            jump(JUMP_IF_EQUAL, 0, 0, 1),
            allow,
            refuse,
        ],
    }
}

fn load(argument: u8) -> Instruction {
    plain(LOAD_WORD, offset(argument))
}

fn offset(argument: u8) -> u32 {
    ARGUMENTS + 8 * u32::from(argument)
}

fn plain(code: u16, value: u32) -> Instruction {
    jump(code, value, 0, 0)
}

fn jump(code: u16, value: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, value }
}

fn distance(instructions: usize) -> u8 {
    u8::try_from(instructions).expect("no verdict takes so many instructions")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: u32 = 0xc000_003e;

    /// What the kernel would do (Documentation/networking/filter.rst).
    fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER => number,
            ARCHITECTURE => architecture,
            _ => {
                let argument = arguments[((offset - ARGUMENTS) / 8) as usize];
                (argument >> (8 * ((offset - ARGUMENTS) % 8))) as u32
            }
        };
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let it = program[at];
            let to = |holds: bool| usize::from(if holds { it.jump_true } else { it.jump_false });
            at += 1;
            match it.code {
                LOAD_WORD => accumulator = word(it.value),
                AND => accumulator &= it.value,
                JUMP_IF_EQUAL => at += to(accumulator == it.value),
                JUMP_IF_ANY => at += to(accumulator & it.value != 0),
                RETURN => return it.value,
                code => panic!("unknown code {code:#x}"),
            }
        }
    }

    #[test]
    fn each_call_gets_its_verdict() {
        const EPERM: u32 = FAIL | 1;
        let calls = [
            (1, Verdict::Allow),
            (2, Verdict::Kill),
            (3, Verdict::Fail(38)),
            (4, Verdict::AllowIf(Condition::With { argument: 0, bits: 6 })),
            (5, Verdict::AllowIf(Condition::Without { argument: 2, bits: 4 })),
            (6, Verdict::AllowIf(Condition::OneOf { argument: 1, values: vec![7, 9] })),
            (7, Verdict::AllowIf(Condition::Null { argument: 5 })),
        ];
        let program = program(HERE, &calls);
        for (number, arguments, expected) in [
            (1, [0; 6], ALLOW),
            (2, [0; 6], KILL),
            (3, [0; 6], FAIL | 38),
            (4, [6, 0, 0, 0, 0, 0], ALLOW),
            (4, [7, 0, 0, 0, 0, 0], ALLOW),
            (4, [4, 6, 6, 6, 6, 6], EPERM),
            (4, [6 << 32, 0, 0, 0, 0, 0], EPERM),
            (5, [4, 4, 3, 4, 4, 4], ALLOW),
            (5, [0, 0, 5, 0, 0, 0], EPERM),
            (6, [0, 7, 0, 0, 0, 0], ALLOW),
            (6, [0, 9, 0, 0, 0, 0], ALLOW),
            (6, [7, 8, 7, 7, 7, 7], EPERM),
            (7, [1, 1, 1, 1, 1, 0], ALLOW),
            (7, [0, 0, 0, 0, 0, 1], EPERM),
            (7, [0, 0, 0, 0, 0, 1 << 32], EPERM),
            (8, [0; 6], EPERM),
            // The numbers of x32 have a bit of their own.
            (0x4000_0001, [0; 6], EPERM),
        ] {
            assert_eq!(run(&program, HERE, number, arguments), expected, "{number} {arguments:?}");
        }
        assert_eq!(run(&program, HERE + 1, 1, [0; 6]), KILL);
    }
}
