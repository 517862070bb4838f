//! The C library's allocator, told to keep large blocks.

/// Makes the allocator reuse large temporaries instead of returning each to the kernel.
///
/// A training step makes and drops hundreds of tensors of several MB. glibc maps each one afresh, and the kernel clears
/// it page by page: that was about 40 % of a training step.
pub fn keep_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGEST: libc::c_int = 1 << 30;
        // SAFETY: mallopt only sets two numbers of the allocator; any value is allowed, and a refusal changes nothing.
        #[expect(unsafe_code, reason = "there is no safe interface to the allocator's settings")]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST);
            libc::mallopt(libc::M_TRIM_THRESHOLD, LARGEST);
        }
    }
}
