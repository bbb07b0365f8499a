//! PURE. Random cases for unit tests, the same in each run.
#![forbid(unsafe_code)]

/// Pseudo-random numbers from a seed: each call returns one below its argument, which is at most 2³¹. Their upper bits
/// are those of Knuth's linear congruential generator (MMIX).
pub(crate) fn random_below(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |bound| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    }
}
