//! Maps of the object. None is pinned: they end with the profile.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, StackTrace},
};
use fairlead_ebpf::profiles::{CpuStack, HeapCounts, MAX_ALLOCATING, MAX_LIVE, MAX_STACKS};

/// The error of a stack whose place another stack has.
const EEXIST: i32 = -17;

/// An allocation that has begun.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    /// Its bytes.
    pub(crate) bytes: u64,
    /// Where its address is written to; zero if it is returned.
    pub(crate) place: u64,
}

/// An allocation that was not freed.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Live {
    /// Its bytes.
    pub(crate) bytes: u64,
    /// The stack that made it.
    pub(crate) stack: u32,
    /// Keeps the size a multiple of the alignment without hidden padding.
    pub(crate) reserved: u32,
}

/// The process that the CPU profile is of, in the initial PID namespace.
#[map]
pub(crate) static TARGET: Array<u32> = Array::with_max_entries(1, 0);

/// Every stack that was seen, once.
#[map]
pub(crate) static STACKS: StackTrace = StackTrace::with_max_entries(MAX_STACKS, 0);

/// How often a processor was found at a stack.
#[map]
pub(crate) static SAMPLES: PerCpuHashMap<CpuStack, u64> =
    PerCpuHashMap::with_max_entries(MAX_STACKS, 0);

/// What each stack has allocated.
#[map]
pub(crate) static HEAP: PerCpuHashMap<u32, HeapCounts> =
    PerCpuHashMap::with_max_entries(MAX_STACKS, BPF_F_NO_PREALLOC);

/// Allocations that have begun, by thread.
#[map]
pub(crate) static BEGUN: HashMap<u64, Begun> = HashMap::with_max_entries(MAX_ALLOCATING, 0);

/// Allocations that were not freed, by address.
#[map]
pub(crate) static LIVE: HashMap<u64, Live> = HashMap::with_max_entries(MAX_LIVE, BPF_F_NO_PREALLOC);

/// What could not be counted for want of room.
#[map]
pub(crate) static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Counts something that there was no room for.
#[inline]
pub(crate) fn lose() {
    if let Some(lost) = LOST.get_ptr_mut(0) {
        add(lost, 1);
    }
}

/// Adds to a number of this processor's. A thread of the same processor that comes in between may
/// undo it: counts of the heap are as good as that.
#[inline]
pub(crate) fn add(number: *mut u64, more: u64) {
    // SAFETY: the pointer is to a value in a map. The kernel frees values after a grace period only.
    unsafe { *number += more };
}

/// Returns the entry of `key`, which is made if there is none.
#[inline]
pub(crate) fn entry<K, V>(map: &PerCpuHashMap<K, V>, key: &K, empty: &V) -> Option<*mut V> {
    map.get_ptr_mut(key).or_else(|| {
        // Another processor may have made it meanwhile.
        let _ = map.insert(key, empty, u64::from(BPF_NOEXIST));
        map.get_ptr_mut(key)
    })
}

/// Returns the id of a stack, or none if there is no such stack; counts it as lost if its place in
/// the map is taken.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ids are below MAX_STACKS"
)]
pub(crate) fn stack_id(result: Result<i64, i32>) -> Result<Option<u32>, ()> {
    match result {
        Ok(id) => Ok(Some(id as u32)),
        Err(EEXIST) => {
            lose();
            Err(())
        }
        Err(_) => Ok(None),
    }
}
