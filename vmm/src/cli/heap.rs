//! The process's own heap: a few pages of it would be a fifth of what an idle machine costs.
#![expect(unsafe_code, reason = "glibc's allocator is told what it cannot know")]

/// Lets all threads share one heap. glibc would give each vCPU thread its own, for a contention that allocators of
/// threads which never allocate do not have.
pub(super) fn share_one_arena() {
    // SAFETY: mallopt only sets the allocator's own parameters; no other thread runs yet.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives back the pages that parsing the command line has used.
pub(super) fn give_back() {
    // SAFETY: malloc_trim only releases memory that is not allocated.
    let _ = unsafe { libc::malloc_trim(0) };
}
