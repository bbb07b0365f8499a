//! PURE. The eBPF instructions that steering needs (RFC 9669), with labels as targets of jumps.
//!
//! A program is a list of [`Line`]s, each made by a constructor. [`assemble`] turns labels into distances, and lines
//! into the kernel's format.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

/// R0 is the result of a call. R1 to R5 are its arguments, and do not survive it. R6 to R9 do. R10 is the end of the
/// stack.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// An operand: a register, or a constant, which is sign-extended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand {
    Register(Register),
    Constant(i32),
}

/// The condition of a jump. Comparisons are unsigned.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Condition {
    Equal = 0x10,
    Greater = 0x20,
    NotLess = 0x30,
    NotEqual = 0x50,
    Less = 0xa0,
    NotGreater = 0xb0,
}

/// A line of a program; `L` names its labels.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Line<L> {
    Plain(Instruction),
    /// The only instruction with the length of two.
    Wide(Instruction, Instruction),
    /// Completed with the distance to the label.
    Jump(Instruction, L),
    Label(L),
}

/// `to = from`.
pub(crate) fn copy<L>(to: Register, from: impl Into<Operand>) -> Line<L> {
    alu(0xb0, to, from)
}

/// `to` = the lower half of `from`.
pub(crate) fn lower_half<L>(to: Register, from: Register) -> Line<L> {
    Line::Plain(Instruction { code: ALU32 | 0xb0 | FROM_REGISTER, to, from, offset: 0, constant: 0 })
}

/// `to += operand`, wrapping, as all arithmetic is.
pub(crate) fn add<L>(to: Register, operand: impl Into<Operand>) -> Line<L> {
    alu(0x00, to, operand)
}

/// `to -= operand`.
pub(crate) fn subtract<L>(to: Register, operand: impl Into<Operand>) -> Line<L> {
    alu(0x10, to, operand)
}

/// `to *= operand`.
pub(crate) fn multiply<L>(to: Register, operand: impl Into<Operand>) -> Line<L> {
    alu(0x20, to, operand)
}

/// `to /= operand`, unsigned; zero if `operand` is zero.
pub(crate) fn divide<L>(to: Register, operand: impl Into<Operand>) -> Line<L> {
    alu(0x30, to, operand)
}

/// `to |= operand`.
pub(crate) fn or<L>(to: Register, operand: impl Into<Operand>) -> Line<L> {
    alu(0x40, to, operand)
}

/// `to &= operand`.
pub(crate) fn and<L>(to: Register, operand: impl Into<Operand>) -> Line<L> {
    alu(0x50, to, operand)
}

/// `to ^= operand`.
pub(crate) fn xor<L>(to: Register, operand: impl Into<Operand>) -> Line<L> {
    alu(0xa0, to, operand)
}

/// `to >>= operand`, signed.
pub(crate) fn shift_right_signed<L>(to: Register, operand: impl Into<Operand>) -> Line<L> {
    alu(0xc0, to, operand)
}

/// `to >>= operand`, unsigned.
pub(crate) fn shift_right<L>(to: Register, operand: impl Into<Operand>) -> Line<L> {
    alu(0x70, to, operand)
}

/// `to %= operand`, unsigned; unchanged if `operand` is zero.
pub(crate) fn modulo<L>(to: Register, operand: impl Into<Operand>) -> Line<L> {
    alu(0x90, to, operand)
}

/// `to` = the word at `from + offset`, in bytes.
pub(crate) fn load<L>(to: Register, from: Register, offset: i16) -> Line<L> {
    Line::Plain(Instruction { code: 0x79, to, from, offset, constant: 0 })
}

/// The word at `to + offset` = `from`.
pub(crate) fn store<L>(to: Register, offset: i16, from: Register) -> Line<L> {
    Line::Plain(Instruction { code: 0x7b, to, from, offset, constant: 0 })
}

/// The half word at `to + offset` = the lower half of `from`.
pub(crate) fn store_half<L>(to: Register, offset: i16, from: Register) -> Line<L> {
    Line::Plain(Instruction { code: 0x63, to, from, offset, constant: 0 })
}

/// The word at `to + offset` += `from`, atomically.
pub(crate) fn atomic_add<L>(to: Register, offset: i16, from: Register) -> Line<L> {
    Line::Plain(Instruction { code: 0xdb, to, from, offset, constant: 0 })
}

/// `to` = the map with descriptor `map`.
pub(crate) fn map<L>(to: Register, map: i32) -> Line<L> {
    wide(to, Register::R1, map, 0)
}

/// `to` = the address of the byte at `offset` of the only value of the array with descriptor `map` (Linux 5.2).
pub(crate) fn map_value<L>(to: Register, map: i32, offset: i32) -> Line<L> {
    wide(to, Register::R2, map, offset)
}

/// Calls one of the kernel's helpers (bpf-helpers(7)) by its number.
pub(crate) fn call<L>(helper: i32) -> Line<L> {
    Line::Plain(Instruction { code: 0x85, to: Register::R0, from: Register::R0, offset: 0, constant: helper })
}

/// Ends the program, with the result in R0.
pub(crate) fn exit<L>() -> Line<L> {
    Line::Plain(Instruction { code: 0x95, to: Register::R0, from: Register::R0, offset: 0, constant: 0 })
}

/// Jumps to `label` if the condition holds for `register` and `operand`.
pub(crate) fn jump_if<L>(register: Register, is: Condition, operand: impl Into<Operand>, label: L) -> Line<L> {
    Line::Jump(Instruction::new(JUMP | is as u8, register, operand.into()), label)
}

/// The target of jumps to `label`: the next line.
pub(crate) fn label<L>(label: L) -> Line<L> {
    Line::Label(label)
}

/// Converts a program to the kernel's format.
///
/// # Panics
///
/// If a label does not exist, or is more than 32 767 instructions away from a jump to it.
pub(crate) fn assemble<L: Copy + Ord>(program: &[Line<L>]) -> Vec<[u8; 8]> {
    let places = places(program);
    let mut instructions = Vec::with_capacity(program.len());
    for line in program {
        match *line {
            Line::Plain(instruction) => instructions.push(instruction.bytes()),
            Line::Wide(first, second) => instructions.extend([first.bytes(), second.bytes()]),
            Line::Jump(instruction, label) => {
                let place = *places.get(&label).expect("a label that is jumped to is placed");
                let distance = place as isize - (instructions.len() + 1) as isize;
                let offset = i16::try_from(distance).expect("a program is short");
                instructions.push(Instruction { offset, ..instruction }.bytes());
            }
            Line::Label(_) => {}
        }
    }
    instructions
}

/// The index of the instruction after each label.
fn places<L: Copy + Ord>(program: &[Line<L>]) -> BTreeMap<L, usize> {
    let (mut places, mut index) = (BTreeMap::new(), 0);
    for line in program {
        if let Line::Label(label) = line {
            places.insert(*label, index);
        }
        index += line.len();
    }
    places
}

impl<L> Line<L> {
    /// The number of instructions in this line.
    fn len(&self) -> usize {
        match self {
            Line::Plain(_) | Line::Jump(..) => 1,
            Line::Wide(..) => 2,
            Line::Label(_) => 0,
        }
    }
}

const ALU32: u8 = 0x04;
const ALU64: u8 = 0x07;
const JUMP: u8 = 0x05;
/// The operand is a register; without this bit, it is the constant.
const FROM_REGISTER: u8 = 0x08;

fn alu<L>(operation: u8, to: Register, operand: impl Into<Operand>) -> Line<L> {
    Line::Plain(Instruction::new(ALU64 | operation, to, operand.into()))
}

/// Loads 64 bits that the kernel turns into an address; `kind` says of what.
fn wide<L>(to: Register, kind: Register, low: i32, high: i32) -> Line<L> {
    Line::Wide(
        Instruction { code: 0x18, to, from: kind, offset: 0, constant: low },
        Instruction { code: 0, to: Register::R0, from: Register::R0, offset: 0, constant: high },
    )
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Instruction {
    code: u8,
    to: Register,
    from: Register,
    offset: i16,
    constant: i32,
}

impl Instruction {
    fn new(code: u8, to: Register, operand: Operand) -> Instruction {
        match operand {
            Operand::Register(from) => Instruction { code: code | FROM_REGISTER, to, from, offset: 0, constant: 0 },
            Operand::Constant(constant) => Instruction { code, to, from: Register::R0, offset: 0, constant },
        }
    }

    /// In the byte order of the machine, like the kernel's `struct bpf_insn` with its two bit fields.
    fn bytes(self) -> [u8; 8] {
        let (to, from) = (self.to as u8, self.from as u8);
        let registers = if cfg!(target_endian = "big") { to << 4 | from } else { from << 4 | to };
        let [o0, o1] = self.offset.to_ne_bytes();
        let [c0, c1, c2, c3] = self.constant.to_ne_bytes();
        [self.code, registers, o0, o1, c0, c1, c2, c3]
    }
}

impl From<Register> for Operand {
    fn from(register: Register) -> Operand {
        Operand::Register(register)
    }
}

impl From<i32> for Operand {
    fn from(constant: i32) -> Operand {
        Operand::Constant(constant)
    }
}

#[cfg(test)]
mod tests {
    use super::Register::*;
    use super::*;

    /// The fields of `struct bpf_insn`: code, dst, src, off, imm.
    type Fields = (u8, u8, u8, i16, i32);

    fn fields(line: Line<()>) -> Vec<Fields> {
        let parts = |bytes: [u8; 8]| {
            let [code, registers, o0, o1, c0, c1, c2, c3] = bytes;
            let (low, high) = (registers & 0xf, registers >> 4);
            let (to, from) = if cfg!(target_endian = "big") { (high, low) } else { (low, high) };
            (code, to, from, i16::from_ne_bytes([o0, o1]), i32::from_ne_bytes([c0, c1, c2, c3]))
        };
        assemble(&[line]).into_iter().map(parts).collect()
    }

    /// RFC 9669 composes the codes of class, operation or mode, and source or size.
    #[test]
    fn instructions_are_encoded_as_the_rfc_says() {
        let table: [(Line<()>, &[Fields]); 20] = [
            (copy(R1, R10), &[(0xbf, 1, 10, 0, 0)]),
            (copy(R1, -1), &[(0xb7, 1, 0, 0, -1)]),
            (lower_half(R4, R5), &[(0xbc, 4, 5, 0, 0)]),
            (add(R2, 1), &[(0x07, 2, 0, 0, 1)]),
            (add(R2, R3), &[(0x0f, 2, 3, 0, 0)]),
            (subtract(R2, R3), &[(0x1f, 2, 3, 0, 0)]),
            (multiply(R2, 128), &[(0x27, 2, 0, 0, 128)]),
            (divide(R0, 1_000_000), &[(0x37, 0, 0, 0, 1_000_000)]),
            (or(R0, 1 << 30), &[(0x47, 0, 0, 0, 1 << 30)]),
            (and(R0, R4), &[(0x5f, 0, 4, 0, 0)]),
            (xor(R4, -1), &[(0xa7, 4, 0, 0, -1)]),
            (shift_right_signed(R4, 63), &[(0xc7, 4, 0, 0, 63)]),
            (shift_right(R5, 32), &[(0x77, 5, 0, 0, 32)]),
            (modulo(R2, R3), &[(0x9f, 2, 3, 0, 0)]),
            (load(R3, R7, -8), &[(0x79, 3, 7, -8, 0)]),
            (store(R10, -16, R5), &[(0x7b, 10, 5, -16, 0)]),
            (store_half(R10, -20, R5), &[(0x63, 10, 5, -20, 0)]),
            (atomic_add(R6, 48, R1), &[(0xdb, 6, 1, 48, 0)]),
            (map(R2, 7), &[(0x18, 2, 1, 0, 7), (0, 0, 0, 0, 0)]),
            (map_value(R7, 5, 4096), &[(0x18, 7, 2, 0, 5), (0, 0, 0, 0, 4096)]),
        ];
        for (line, expected) in table {
            assert_eq!(fields(line), expected, "{line:?}");
        }
        assert_eq!(fields(call(82)), [(0x85, 0, 0, 0, 82)]);
        assert_eq!(fields(exit()), [(0x95, 0, 0, 0, 0)]);
    }

    #[test]
    fn conditions_have_their_codes() {
        let table = [
            (Condition::Equal, 0x15),
            (Condition::Greater, 0x25),
            (Condition::NotLess, 0x35),
            (Condition::NotEqual, 0x55),
            (Condition::Less, 0xa5),
            (Condition::NotGreater, 0xb5),
        ];
        for (condition, code) in table {
            assert_eq!(assemble(&[jump_if(R3, condition, 9, ()), label(())])[0][0], code, "{condition:?}");
            assert_eq!(assemble(&[jump_if(R3, condition, R4, ()), label(())])[0][0], code | 8, "{condition:?}");
        }
    }

    #[test]
    fn jumps_count_instructions_and_not_lines() {
        let to = |place| jump_if(R1, Condition::Equal, 0, place);
        let program =
            [label('a'), to('b'), map_value(R1, 3, 0), label('b'), label('c'), to('a'), to('c'), to('d'), label('d')];
        let instructions = assemble(&program);
        let offsets: Vec<i16> = instructions.iter().map(|i| i16::from_ne_bytes([i[2], i[3]])).collect();
        assert_eq!(offsets, [2, 0, 0, -4, -2, 0]);
    }

    #[test]
    #[should_panic(expected = "placed")]
    fn a_jump_to_nowhere_is_not_assembled() {
        assemble(&[jump_if(R1, Condition::Equal, 0, 'a'), label('b')]);
    }
}
