//! PURE. The classic BPF program that makes bind(2) and listen(2) wait for an answer (seccomp_unotify(2)).
#![forbid(unsafe_code)]

use crate::sys::cbpf::seccomp::{ALLOW, ARCHITECTURE, ARGUMENTS, FAIL, NUMBER};
use crate::sys::cbpf::{jump, plain, Instruction, JUMP_IF_AT_LEAST, JUMP_IF_EQUAL, LOAD_WORD, RETURN};

/// The numbers of the calls in one ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abi {
    /// linux/audit.h, `AUDIT_ARCH_*`.
    pub(crate) architecture: u32,
    pub(crate) bind: u32,
    pub(crate) listen: u32,
    /// socketcall(2), through which older programs make all socket calls.
    pub(crate) multiplexed: Option<u32>,
}

const X86_64: Abi = Abi { architecture: 0xc000_003e, bind: 49, listen: 50, multiplexed: None };
const I386: Abi = Abi { architecture: 0x4000_0003, bind: 361, listen: 363, multiplexed: Some(102) };
const AARCH64: Abi = Abi { architecture: 0xc000_00b7, bind: 200, listen: 201, multiplexed: None };

/// The ABIs that run on this machine. Empty where the numbers of the calls are not known.
pub(crate) const ABIS: &[Abi] = if cfg!(target_arch = "x86_64") {
    &[X86_64, I386]
} else if cfg!(target_arch = "aarch64") {
    &[AARCH64]
} else {
    &[]
};

/// The numbers of bind(2) and listen(2) inside socketcall(2) (linux/net.h).
pub(crate) const MULTIPLEXED_BIND: u32 = 2;
pub(crate) const MULTIPLEXED_LISTEN: u32 = 4;

/// The minimum length of a TCP address. A bind(2) with a shorter address goes through without an answer. Such addresses
/// are netlink's: a C library binds one for each name that it looks up.
pub(crate) const ADDRESS_MIN: u32 = 16;

/// The numbers of x32 are those of x86-64 with this bit set.
const X32: u32 = 0x4000_0000;

/// The program asks the listener (linux/seccomp.h).
const ASK: u32 = 0x7fc0_0000;
/// Fail with ENOSYS, as a kernel without x32 does.
const UNKNOWN: u32 = FAIL | 38;
const FIRST_ARGUMENT: u32 = ARGUMENTS;
const THIRD_ARGUMENT: u32 = ARGUMENTS + 16;

/// Returns the program for a machine that runs these ABIs. It allows every other call.
pub(super) fn program(abis: &[Abi]) -> Vec<Instruction> {
    let mut program = vec![plain(LOAD_WORD, ARCHITECTURE)];
    for abi in abis {
        let calls = calls(abi);
        program.push(jump(JUMP_IF_EQUAL, abi.architecture, 0, distance(calls.len())));
        program.extend(calls);
    }
    program.push(plain(RETURN, ALLOW));
    program
}

/// The part of the program for one ABI. It always returns.
fn calls(abi: &Abi) -> Vec<Instruction> {
    let mut calls = vec![plain(LOAD_WORD, NUMBER)];
    if *abi == X86_64 {
        for number in [abi.bind, abi.listen] {
            calls.extend([jump(JUMP_IF_EQUAL, X32 | number, 0, 1), plain(RETURN, UNKNOWN)]);
        }
    }
    calls.extend([jump(JUMP_IF_EQUAL, abi.listen, 0, 1), plain(RETURN, ASK)]);
    calls.extend([
        jump(JUMP_IF_EQUAL, abi.bind, 0, 4),
        plain(LOAD_WORD, THIRD_ARGUMENT),
        jump(JUMP_IF_AT_LEAST, ADDRESS_MIN, 0, 1),
        plain(RETURN, ASK),
        plain(RETURN, ALLOW),
    ]);
    if let Some(multiplexed) = abi.multiplexed {
        calls.extend([
            jump(JUMP_IF_EQUAL, multiplexed, 0, 4),
            plain(LOAD_WORD, FIRST_ARGUMENT),
            jump(JUMP_IF_EQUAL, MULTIPLEXED_BIND, 1, 0),
            jump(JUMP_IF_EQUAL, MULTIPLEXED_LISTEN, 0, 1),
            plain(RETURN, ASK),
        ]);
    }
    calls.push(plain(RETURN, ALLOW));
    calls
}

fn distance(instructions: usize) -> u8 {
    u8::try_from(instructions).expect("there are few calls")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cbpf::run_seccomp as run;

    #[test]
    fn binds_and_listens_wait_and_nothing_else_does() {
        let program = program(&[X86_64, I386, AARCH64]);
        let bind = |len: u64| [3, 0x7fff_0000_1000, len, 0, 0, 0];
        for (architecture, number, arguments, expected) in [
            (X86_64, 49, bind(16), ASK),
            (X86_64, 49, bind(28), ASK),
            (X86_64, 49, bind(u64::from(u32::MAX)), ASK),
            (X86_64, 49, bind(12), ALLOW),
            // The kernel takes an int.
            (X86_64, 49, bind(12 | 1 << 32), ALLOW),
            (X86_64, 50, [0; 6], ASK),
            (X86_64, X32 | 49, bind(16), UNKNOWN),
            (X86_64, X32 | 50, [0; 6], UNKNOWN),
            (X86_64, X32 | 48, [0; 6], ALLOW),
            (X86_64, 102, bind(16), ALLOW),
            (X86_64, 361, bind(16), ALLOW),
            (X86_64, 200, bind(16), ALLOW),
            (I386, 361, bind(16), ASK),
            (I386, 361, bind(12), ALLOW),
            (I386, 363, [0; 6], ASK),
            (I386, 102, [2, 0, 0, 0, 0, 0], ASK),
            (I386, 102, [4, 0, 0, 0, 0, 0], ASK),
            (I386, 102, [1, 0, 99, 0, 0, 0], ALLOW),
            (I386, 102, [3, 0, 99, 0, 0, 0], ALLOW),
            (I386, 49, bind(16), ALLOW),
            (AARCH64, 200, bind(16), ASK),
            (AARCH64, 201, [0; 6], ASK),
            (AARCH64, 49, bind(16), ALLOW),
        ] {
            let did = run(&program, architecture.architecture, number, arguments);
            assert_eq!(did, expected, "{architecture:?} {number:#x} {arguments:?}");
        }
        assert_eq!(run(&program, 7, 49, bind(16)), ALLOW, "a machine of which nothing is known");
    }

    #[test]
    fn every_call_comes_to_a_verdict() {
        let program = program(&[X86_64, I386, AARCH64]);
        for abi in [X86_64, I386, AARCH64] {
            for number in (0..1024).flat_map(|number| [number, number | X32, u32::MAX - number]) {
                for argument in [0, 2, 4, 15, 16, u64::MAX] {
                    let verdict = run(&program, abi.architecture, number, [argument; 6]);
                    assert!([ALLOW, ASK, UNKNOWN].contains(&verdict));
                    let is_known = [Some(abi.bind), Some(abi.listen), abi.multiplexed].contains(&Some(number & !X32));
                    assert!(is_known || verdict == ALLOW, "{abi:?} {number:#x}");
                }
            }
        }
    }
}
