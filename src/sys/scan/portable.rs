//! PURE. Byte by byte.

use super::{Set, Steps, WINDOW};

/// Steps without special instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes;

// SAFETY: they are counted one by one.
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
