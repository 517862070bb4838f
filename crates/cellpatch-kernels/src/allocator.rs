//! The C library's allocator, told what a program will do.

/// Makes the allocator reuse large temporaries instead of returning each to the kernel: for training.
///
/// A training step makes and drops hundreds of tensors of several MB. glibc maps each one afresh, and the kernel clears
/// it page by page: that was about 40 % of a training step.
pub fn keep_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGEST: libc::c_int = 1 << 30;
        set(libc::M_MMAP_THRESHOLD, LARGEST);
        set(libc::M_TRIM_THRESHOLD, LARGEST);
    }
}

/// Makes the allocator keep little of what is given back: for work that promises how much memory it takes.
///
/// It gets no more arenas than there are processors. A thread that begins takes one of up to eight times as many, each of
/// which keeps what it once had: sharding 100,000 cells took 145 MB so, and takes 124 MB.
pub fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let n_processors = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        set(libc::M_ARENA_MAX, libc::c_int::try_from(n_processors).unwrap_or(libc::c_int::MAX));
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set(parameter: libc::c_int, value: libc::c_int) {
    // SAFETY: mallopt only sets a number of the allocator; any value is allowed, and a refusal changes nothing.
    #[expect(unsafe_code, reason = "there is no safe interface to the allocator's settings")]
    unsafe {
        libc::mallopt(parameter, value);
    }
}
