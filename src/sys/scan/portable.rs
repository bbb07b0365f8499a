//! PURE. Scans byte by byte.

use super::{Set, Steps, WINDOW};

/// Steps without special instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes;

// SAFETY: each byte is tested by `Set::contains`.
unsafe impl Steps for Bytes {
    #[inline(always)]
    fn within(self, window: &[u8; WINDOW], skip: u32, set: &Set) -> usize {
        window[skip as usize..].iter().take_while(|byte| set.contains(**byte)).count()
    }

    #[inline(always)]
    fn text(self, window: &[u8; WINDOW], skip: u32) -> usize {
        window[skip as usize..].iter().take_while(|byte| !byte.is_ascii_control()).count()
    }
}
