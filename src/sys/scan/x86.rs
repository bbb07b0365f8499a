//! Scans with SSE2, which all of these processors have, or with AVX2.
// The intrinsics of an instruction set only require that the processor has it.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::arch::x86_64::*;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::{first, Set, Steps, Work, WINDOW};

#[inline]
pub(super) fn run<W: Work>(work: W) -> W::Output {
    match KIND.load(Relaxed) {
        // SAFETY: this processor has AVX2 and BMI1.
        AVX2 => unsafe { run_by_avx2(work) },
        SSE2 => run_by_sse2(work),
        _ => {
            detect();
            run(work)
        }
    }
}

/// The kind of steps that this processor has, in one byte: to ask for two of its features costs ten instructions more.
static KIND: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const SSE2: u8 = 1;
const AVX2: u8 = 2;

#[cold]
fn detect() {
    // All processors with AVX2 also have BMI1, which counts trailing zeros in one instruction.
    let has_both = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1");
    KIND.store(if has_both { AVX2 } else { SSE2 }, Relaxed);
}

#[target_feature(enable = "avx2,bmi1")]
unsafe fn run_by_avx2<W: Work>(work: W) -> W::Output {
    // SAFETY: the caller guarantees that the processor has AVX2.
    work.run(unsafe { Avx2::new() })
}

#[cold]
#[inline(never)]
fn run_by_sse2<W: Work>(work: W) -> W::Output {
    work.run(Sse2)
}

/// Steps with AVX2. A value proves that the processor has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    /// # Safety
    ///
    /// The processor must have AVX2.
    pub(super) unsafe fn new() -> Avx2 {
        Avx2(())
    }
}

/// Indexed by the upper four bits of a byte: its bit in [`Set`]. Bytes that are not ASCII have none.
static HIGH: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 0, 0, 0, 0, 0, 0, 0, 0];

// SAFETY: each half of a byte selects a byte of a table, and these two have a bit in common if the set contains the
// byte. If the byte is not ASCII, they have none.
unsafe impl Steps for Avx2 {
    #[inline(always)]
    fn within(self, window: &[u8; WINDOW], skip: u32, set: &Set) -> usize {
        // SAFETY: the processor has AVX2, and each load is as large as what it loads from.
        let outside = unsafe {
            let bytes = _mm256_loadu_si256(window.as_ptr().cast());
            let low = _mm256_broadcastsi128_si256(_mm_loadu_si128(set.low.as_ptr().cast()));
            let high = _mm256_broadcastsi128_si256(_mm_loadu_si128(HIGH.as_ptr().cast()));
            let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(15));
            let common = _mm256_and_si256(_mm256_shuffle_epi8(low, bytes), _mm256_shuffle_epi8(high, upper));
            _mm256_movemask_epi8(_mm256_cmpeq_epi8(common, _mm256_setzero_si256()))
        };
        first(outside as u32, skip)
    }

    #[inline(always)]
    fn text(self, window: &[u8; WINDOW], skip: u32) -> usize {
        // SAFETY: the processor has AVX2, and the load is as large as the window.
        let control = unsafe {
            let bytes = _mm256_loadu_si256(window.as_ptr().cast());
            let below = _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, _mm256_set1_epi8(0x1f)), bytes);
            let delete = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(0x7f));
            _mm256_movemask_epi8(_mm256_or_si256(below, delete))
        };
        first(control as u32, skip)
    }
}

/// Steps with SSE2, which every processor of this architecture has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sse2;

// SAFETY: `within` tests each byte with `Set::contains`.
unsafe impl Steps for Sse2 {
    #[inline(always)]
    fn within(self, window: &[u8; WINDOW], skip: u32, set: &Set) -> usize {
        window[skip as usize..].iter().take_while(|byte| set.contains(**byte)).count()
    }

    #[inline(always)]
    fn text(self, window: &[u8; WINDOW], skip: u32) -> usize {
        let control = |half: usize| {
            // SAFETY: the processor has SSE2, and each load is as large as half of the window.
            unsafe {
                let bytes = _mm_loadu_si128(window.as_ptr().cast::<__m128i>().add(half));
                let below = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
                let delete = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));
                _mm_movemask_epi8(_mm_or_si128(below, delete)) as u32
            }
        };
        first(control(0) | control(1) << 16, skip)
    }
}
