//! PURE. Instructions of classic BPF, for steering, for the sandbox and for the notifications of a program's calls.
#![forbid(unsafe_code)]

/// An instruction in the kernel's format (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jump_true: u8,
    pub(crate) jump_false: u8,
    pub(crate) value: u32,
}

// From linux/filter.h and linux/bpf_common.h.
pub(crate) const LOAD_WORD: u16 = 0x20;
pub(crate) const JUMP_IF_EQUAL: u16 = 0x15;
pub(crate) const JUMP_IF_AT_LEAST: u16 = 0x35;
pub(crate) const JUMP_IF_ANY: u16 = 0x45;
pub(crate) const AND: u16 = 0x54;
pub(crate) const RETURN: u16 = 0x06;

/// What a program for seccomp(2) returns and reads: linux/seccomp.h, with the offsets in `struct seccomp_data` on a
/// little-endian machine.
pub(crate) mod seccomp {
    pub(crate) const ALLOW: u32 = 0x7fff_0000;
    /// The call fails with the error in the lower half.
    pub(crate) const FAIL: u32 = 0x0005_0000;
    pub(crate) const NUMBER: u32 = 0;
    pub(crate) const ARCHITECTURE: u32 = 4;
    pub(crate) const ARGUMENTS: u32 = 16;
}

/// An instruction that does not jump.
pub(crate) fn plain(code: u16, value: u32) -> Instruction {
    jump(code, value, 0, 0)
}

pub(crate) fn jump(code: u16, value: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, value }
}

/// Interprets a program for seccomp(2) as the kernel does (Documentation/networking/filter.rst).
#[cfg(test)]
pub(crate) fn run_seccomp(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let word = |offset: u32| match offset {
        seccomp::NUMBER => number,
        seccomp::ARCHITECTURE => architecture,
        _ => {
            let place = offset - seccomp::ARGUMENTS;
            (arguments[(place / 8) as usize] >> (8 * (place % 8))) as u32
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
            JUMP_IF_AT_LEAST => at += to(accumulator >= it.value),
            JUMP_IF_ANY => at += to(accumulator & it.value != 0),
            RETURN => return it.value,
            code => panic!("unknown code {code:#x}"),
        }
    }
}
