//! PURE. Instructions of classic BPF, as steering and the sandbox have the kernel run them.
#![forbid(unsafe_code)]

/// An instruction as the kernel has it (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jump_true: u8,
    pub(crate) jump_false: u8,
    pub(crate) value: u32,
}
