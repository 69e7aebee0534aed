//! The heap of the C library.

/// One heap for all threads, and large blocks from the heap too: chunk buffers are reused warm instead of being mapped
/// anew each time. [`trim`] returns the pages to the kernel when the process is idle. Before any thread exists.
pub fn tune() {
    // SAFETY: plain tuning calls, made before any thread exists, as mallopt requires.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 16 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 32 << 20);
    }
}

/// Returns free heap pages to the kernel.
pub fn trim() {
    // SAFETY: malloc_trim takes the heap's own lock and releases only pages that hold no live block.
    unsafe { libc::malloc_trim(0) };
}
