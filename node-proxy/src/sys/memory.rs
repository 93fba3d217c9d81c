//! How the C library keeps freed memory.

use nix::libc::{self, c_int};

/// Freed memory that a thread's heap keeps for itself, in bytes: the buffers of some bulk transfers.
///
/// With the C library's 128 KiB they would go back to the kernel after every round and be faulted in
/// and zeroed again for the next one, which costs a bulk transfer a third of its throughput.
const KEPT_BYTES: c_int = 4 << 20;

/// Largest allocation that comes from a heap, in bytes: larger ones are mapped, and unmapped when
/// they are freed. Above the largest read of a socket.
const LARGEST_HEAP_ALLOCATION_BYTES: c_int = 1 << 20;

/// Lets the heaps of this process keep what bulk transfers free. Call it before threads start.
pub fn keep_buffers() {
    for (option, bytes) in [
        (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
        (libc::M_MMAP_THRESHOLD, LARGEST_HEAP_ALLOCATION_BYTES),
    ] {
        // SAFETY: `mallopt` takes two numbers, and no other thread allocates yet.
        // It refuses only what is out of its range, and then the defaults stay.
        let _ = unsafe { libc::mallopt(option, bytes) };
    }
}
