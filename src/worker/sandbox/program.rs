//! PURE. The classic BPF program that filters system calls (seccomp(2)).
#![forbid(unsafe_code)]

use crate::sys::cbpf::seccomp::{ALLOW, ARCHITECTURE, ARGUMENTS, FAIL, NUMBER};
use crate::sys::cbpf::{jump, plain, Instruction, AND, JUMP_IF_ANY, JUMP_IF_EQUAL, LOAD_WORD, RETURN};

/// What happens to a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    /// Allowed if all conditions of one of these cases hold; otherwise refused with [`REFUSED`].
    AllowIf(Vec<Case>),
    /// Fails with this error and has no effect.
    Fail(u16),
    /// Ends the process by SIGSYS.
    Kill,
}

/// Conditions that must all hold.
pub(crate) type Case = Vec<Condition>;

/// A condition on an argument. Only the lower half counts, as for the kernel, since these arguments are ints and flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// All of these bits must be set.
    With {
        argument: u8,
        bits: u32,
    },
    /// None of these bits may be set.
    Without {
        argument: u8,
        bits: u32,
    },
    OneOf {
        argument: u8,
        values: Vec<u32>,
    },
    NoneOf {
        argument: u8,
        values: Vec<u32>,
    },
    /// Must be a null pointer.
    Null {
        argument: u8,
    },
}

/// The error of calls that are not listed: EPERM.
pub(crate) const REFUSED: u16 = 1;

/// The process ends (linux/seccomp.h).
const KILL: u32 = 0x8000_0000;

/// The program that decides on calls by their number, trying the first entry first; unlisted calls are refused. A call
/// with the numbers of another architecture, which mean something else, ends the process.
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

/// The instructions for a verdict. They always return.
fn judge(verdict: &Verdict) -> Vec<Instruction> {
    match verdict {
        Verdict::Allow => vec![plain(RETURN, ALLOW)],
        Verdict::Fail(error) => vec![plain(RETURN, FAIL | u32::from(*error))],
        Verdict::Kill => vec![plain(RETURN, KILL)],
        Verdict::AllowIf(cases) => {
            let mut judge: Vec<Instruction> = cases.iter().flat_map(|conditions| case(conditions)).collect();
            judge.push(plain(RETURN, FAIL | u32::from(REFUSED)));
            judge
        }
    }
}

/// Allows the call, or continues after these instructions.
fn case(conditions: &[Condition]) -> Vec<Instruction> {
    let mut rest = vec![plain(RETURN, ALLOW)];
    for condition in conditions.iter().rev() {
        let mut test = test(condition, rest.len());
        test.append(&mut rest);
        rest = test;
    }
    rest
}

/// Continues if the condition holds, else skips this many more instructions.
fn test(condition: &Condition, rest: usize) -> Vec<Instruction> {
    let skip = distance(rest);
    match condition {
        Condition::With { argument, bits } => {
            vec![load(*argument), plain(AND, *bits), jump(JUMP_IF_EQUAL, *bits, 0, skip)]
        }
        Condition::Without { argument, bits } => vec![load(*argument), jump(JUMP_IF_ANY, *bits, skip, 0)],
        Condition::OneOf { argument, values } => {
            let mut test = vec![load(*argument)];
            for (index, value) in values.iter().enumerate() {
                let left = values.len() - 1 - index;
                test.push(jump(JUMP_IF_EQUAL, *value, distance(left), if left == 0 { skip } else { 0 }));
            }
            test
        }
        Condition::NoneOf { argument, values } => {
            let mut test = vec![load(*argument)];
            for (index, value) in values.iter().enumerate() {
                let left = values.len() - 1 - index;
                test.push(jump(JUMP_IF_EQUAL, *value, distance(left + rest), 0));
            }
            test
        }
        Condition::Null { argument } => vec![
            load(*argument),
            jump(JUMP_IF_EQUAL, 0, 0, distance(rest + 2)),
            plain(LOAD_WORD, offset(*argument) + 4),
            jump(JUMP_IF_EQUAL, 0, 0, skip),
        ],
    }
}

fn load(argument: u8) -> Instruction {
    plain(LOAD_WORD, offset(argument))
}

fn offset(argument: u8) -> u32 {
    ARGUMENTS + 8 * u32::from(argument)
}

fn distance(instructions: usize) -> u8 {
    u8::try_from(instructions).expect("no verdict takes so many instructions")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sys::cbpf::run_seccomp as run;

    const HERE: u32 = 0xc000_003e;

    /// Whether these verdicts allow a call.
    pub(in super::super) fn allows(calls: &[(u32, Verdict)], number: u32, arguments: [u64; 6]) -> bool {
        run(&program(HERE, calls), HERE, number, arguments) == ALLOW
    }

    #[test]
    fn each_call_gets_its_verdict() {
        const EPERM: u32 = FAIL | 1;
        let calls = [
            (1, Verdict::Allow),
            (2, Verdict::Kill),
            (3, Verdict::Fail(38)),
            (4, Verdict::AllowIf(vec![vec![Condition::With { argument: 0, bits: 6 }]])),
            (5, Verdict::AllowIf(vec![vec![Condition::Without { argument: 2, bits: 4 }]])),
            (6, Verdict::AllowIf(vec![vec![Condition::OneOf { argument: 1, values: vec![7, 9] }]])),
            (7, Verdict::AllowIf(vec![vec![Condition::Null { argument: 5 }]])),
            (
                8,
                Verdict::AllowIf(vec![vec![
                    Condition::NoneOf { argument: 0, values: vec![0, 1, 2] },
                    Condition::NoneOf { argument: 1, values: vec![7] },
                    Condition::NoneOf { argument: 1, values: vec![] },
                ]]),
            ),
            (
                9,
                Verdict::AllowIf(vec![
                    vec![
                        Condition::OneOf { argument: 0, values: vec![1, 2] },
                        Condition::OneOf { argument: 1, values: vec![3, 4] },
                    ],
                    vec![Condition::OneOf { argument: 0, values: vec![5] }, Condition::With { argument: 1, bits: 8 }],
                    vec![Condition::Null { argument: 0 }, Condition::Without { argument: 1, bits: 1 }],
                ]),
            ),
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
            (8, [3, 6, 0, 0, 0, 0], ALLOW),
            (8, [0, 6, 0, 0, 0, 0], EPERM),
            (8, [1, 6, 0, 0, 0, 0], EPERM),
            (8, [2, 6, 0, 0, 0, 0], EPERM),
            (8, [3, 7, 0, 0, 0, 0], EPERM),
            (10, [0; 6], EPERM),
            // All conditions of one case.
            (9, [1, 3, 0, 0, 0, 0], ALLOW),
            (9, [2, 4, 0, 0, 0, 0], ALLOW),
            (9, [3, 4, 0, 0, 0, 0], EPERM),
            (9, [1, 5, 0, 0, 0, 0], EPERM),
            (9, [5, 8, 0, 0, 0, 0], ALLOW),
            (9, [5, 3, 0, 0, 0, 0], EPERM),
            (9, [0, 2, 0, 0, 0, 0], ALLOW),
            (9, [0, 3, 0, 0, 0, 0], EPERM),
            (9, [1 << 32, 2, 0, 0, 0, 0], EPERM),
            // The numbers of x32 have a bit of their own.
            (0x4000_0001, [0; 6], EPERM),
        ] {
            assert_eq!(run(&program, HERE, number, arguments), expected, "{number} {arguments:?}");
        }
        assert_eq!(run(&program, HERE + 1, 1, [0; 6]), KILL);
    }
}
