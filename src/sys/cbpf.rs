//! PURE. Instructions of classic BPF, for steering and for the sandbox.
#![forbid(unsafe_code)]

/// An instruction in the kernel's format (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jump_true: u8,
    pub(crate) jump_false: u8,
    pub(crate) value: u32,
}
