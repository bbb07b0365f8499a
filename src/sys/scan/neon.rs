//! Scans with NEON, which every processor of this architecture has.
// The intrinsics of an instruction set only require that the processor has it.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::arch::aarch64::*;

use super::{first, Set, Steps, WINDOW};

/// Steps with NEON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neon;

/// Indexed by the upper four bits of a byte: its bit in [`Set`]. Bytes that are not ASCII have none.
static HIGH: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 0, 0, 0, 0, 0, 0, 0, 0];

/// The bit of each byte in its group of eight.
static BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];

// SAFETY: each half of a byte selects a byte of a table, and these two have a bit in common if the set contains the
// byte. If the byte is not ASCII, they have none.
unsafe impl Steps for Neon {
    #[inline(always)]
    fn within(self, window: &[u8; WINDOW], skip: u32, set: &Set) -> usize {
        // SAFETY: the processor has NEON, and each load is as large as what it loads from: a table, or half of the
        // window.
        let outside = unsafe {
            let (low, high) = (vld1q_u8(set.low.as_ptr()), vld1q_u8(HIGH.as_ptr()));
            [0, WINDOW / 2].map(|half| {
                let bytes = vld1q_u8(window.as_ptr().add(half));
                let lower = vqtbl1q_u8(low, vandq_u8(bytes, vdupq_n_u8(15)));
                let upper = vqtbl1q_u8(high, vshrq_n_u8::<4>(bytes));
                vceqzq_u8(vandq_u8(lower, upper))
            })
        };
        first(mask(outside), skip)
    }

    #[inline(always)]
    fn text(self, window: &[u8; WINDOW], skip: u32) -> usize {
        // SAFETY: the processor has NEON, and each load is as large as half of the window.
        let control = unsafe {
            [0, WINDOW / 2].map(|half| {
                let bytes = vld1q_u8(window.as_ptr().add(half));
                vorrq_u8(vcltq_u8(bytes, vdupq_n_u8(b' ')), vceqq_u8(bytes, vdupq_n_u8(0x7f)))
            })
        };
        first(mask(control), skip)
    }
}

/// A bit for each byte of both halves of a window: whether its bits are set.
#[inline(always)]
fn mask([left, right]: [uint8x16_t; 2]) -> u32 {
    // SAFETY: the processor has NEON, and the load is as large as the table.
    unsafe {
        let bits = vld1q_u8(BITS.as_ptr());
        // Each addition halves the number of bytes: 32, 16, 8, and at last 4.
        let pairs = vpaddq_u8(vandq_u8(left, bits), vandq_u8(right, bits));
        let fours = vpaddq_u8(pairs, pairs);
        let eights = vpaddq_u8(fours, fours);
        vgetq_lane_u32::<0>(vreinterpretq_u32_u8(eights))
    }
}
