//! The allocator's memory.

/// Gives memory that the allocator keeps for later back to the system (malloc_trim(3)): glibc keeps what lies below
/// anything that is still used.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no preconditions; it takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
