//! Counts what became of the connections of each pod.

use fairlead_ebpf::{Fate, NetnsCookie};

use crate::maps::COUNTS;

/// Counts a connection of an enrolled pod.
#[inline]
pub(crate) fn count(pod: NetnsCookie, fate: Fate) {
    // User space makes the entry before it captures the pod.
    if let Some(counts) = COUNTS.get_ptr_mut(pod) {
        // SAFETY: the entry is this processor's own, and is freed after a grace period only.
        unsafe { (*counts).0[fate as usize] += 1 };
    }
}
