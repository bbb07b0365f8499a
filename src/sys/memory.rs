//! The memory of the allocator.

/// Returns free memory of the allocator to the system (malloc_trim(3)). glibc keeps free memory that lies below any
/// memory in use.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no preconditions, and takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
