//! How the C library keeps freed memory, and how much.

use nix::libc::{self, c_int};

/// Freed memory that a thread's heap keeps for itself, in bytes: the buffers of some bulk transfers.
///
/// With the C library's 128 KiB they would go back to the kernel after every round and be faulted in
/// and zeroed again for the next one, which costs a bulk transfer a third of its throughput.
const KEPT_BYTES: c_int = 4 << 20;

/// Largest allocation that comes from a heap, in bytes: larger ones are mapped, and unmapped when
/// they are freed. Above the largest read of a socket.
const LARGEST_HEAP_ALLOCATION_BYTES: c_int = 1 << 20;

/// What the C library says of the memory that this process allocates, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapUse {
    /// In heaps, and in use.
    pub used: usize,
    /// In heaps, freed and kept.
    pub free: usize,
    /// Allocations that are too large for a heap, and in use.
    pub mapped: usize,
}

/// Returns how much memory is allocated. Looks at one heap after the other, each of which is locked
/// meanwhile.
pub fn heap_use() -> HeapUse {
    // SAFETY: the call takes nothing and returns numbers; it locks what it looks at.
    let libc::mallinfo2 { uordblks: used, fordblks: free, hblkhd: mapped, .. } =
        unsafe { libc::mallinfo2() };
    HeapUse { used, free, mapped }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_counted() {
        const BYTES: usize = 64 << 20;
        let large = vec![1_u8; BYTES];
        let small: Vec<_> = (0..10_000).map(|_| vec![1_u8; 1_000]).collect();
        let HeapUse { used, mapped, .. } = heap_use();
        assert!(mapped >= large.len(), "{mapped}");
        assert!(used >= small.iter().map(Vec::len).sum(), "{used}");
    }
}
