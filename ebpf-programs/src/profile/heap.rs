//! Counts what each stack allocates, and how much of it is freed.
//!
//! A call of the allocator is seen twice: where it begins the size is known, where it returns the
//! address and the caller are.

use aya_ebpf::{
    bindings::BPF_F_USER_STACK,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    programs::{ProbeContext, RetProbeContext, tracing::StackIdContext as _},
};
use fairlead_ebpf::profiles::HeapCounts;

use crate::maps::{BEGUN, Begun, HEAP, LIVE, Live, STACKS, add, entry, lose, stack_id};

const EMPTY: HeapCounts = HeapCounts { allocations: 0, bytes: 0, freed: 0, freed_bytes: 0 };

/// `malloc(size)`
pub(crate) fn malloc(ctx: &ProbeContext) {
    begin(ctx.arg(0), 0);
}

/// `calloc(count, size)`
pub(crate) fn calloc(ctx: &ProbeContext) {
    let (count, size): (Option<u64>, Option<u64>) = (ctx.arg(0), ctx.arg(1));
    // One that overflows fails.
    begin(count.zip(size).map(|(count, size)| count.wrapping_mul(size)), 0);
}

/// `realloc(address, size)`: what was at the address is freed.
pub(crate) fn realloc(ctx: &ProbeContext) {
    free(ctx);
    begin(ctx.arg(1), 0);
}

/// `aligned_alloc(alignment, size)`
pub(crate) fn aligned_alloc(ctx: &ProbeContext) {
    begin(ctx.arg(1), 0);
}

/// `posix_memalign(place, alignment, size)`
pub(crate) fn posix_memalign(ctx: &ProbeContext) {
    begin(ctx.arg(2), ctx.arg(0).unwrap_or(0));
}

/// `free(address)`. Before the allocator can give the address to another thread.
pub(crate) fn free(ctx: &ProbeContext) {
    let Some(address) = ctx.arg::<u64>(0) else { return };
    let Some(live) = LIVE.get_ptr(address) else { return };
    // SAFETY: the kernel frees values after a grace period only, and writes none twice: an address
    // that is live is given to nobody else.
    let live = unsafe { *live };
    if LIVE.remove(address).is_ok()
        && let Some(counts) = HEAP.get_ptr_mut(live.stack)
    {
        freed(counts, live.bytes);
    }
}

/// The return of each function that allocates.
pub(crate) fn allocated(ctx: &RetProbeContext) {
    let thread = bpf_get_current_pid_tgid();
    let Some(begun) = BEGUN.get_ptr(thread) else { return };
    // SAFETY: the entry is this thread's own, which is here.
    let begun = unsafe { *begun };
    let _ = BEGUN.remove(thread);
    let Some(address) = address(ctx, begun) else { return };
    let user = ctx.get_stackid(&STACKS, u64::from(BPF_F_USER_STACK));
    let Ok(stack) = stack_id(user) else { return };
    let Some((stack, counts)) = stack.and_then(|s| Some((s, entry(&HEAP, &s, &EMPTY)?))) else {
        return lose();
    };
    // SAFETY: the fields of a value in the map.
    unsafe {
        add(&raw mut (*counts).allocations, 1);
        add(&raw mut (*counts).bytes, begun.bytes);
    }
    let live = Live { bytes: begun.bytes, stack, reserved: 0 };
    if LIVE.insert(address, live, 0).is_err() {
        freed(counts, begun.bytes);
        lose();
    }
}

fn begin(bytes: Option<u64>, place: u64) {
    let Some(bytes) = bytes else { return };
    let thread = bpf_get_current_pid_tgid();
    if BEGUN.insert(thread, Begun { bytes, place }, 0).is_err() {
        lose();
    }
}

/// Returns the address of what was allocated; none if the allocation failed.
fn address(ctx: &RetProbeContext, begun: Begun) -> Option<u64> {
    let returned: u64 = ctx.ret();
    let address = match begun.place {
        0 => returned,
        // An `int`: zero is success.
        place if returned & u64::from(u32::MAX) == 0 => {
            // SAFETY: a helper that reads user memory fails where there is none.
            unsafe { bpf_probe_read_user(place as *const u64) }.ok()?
        }
        _ => 0,
    };
    (address != 0).then_some(address)
}

fn freed(counts: *mut HeapCounts, bytes: u64) {
    // SAFETY: the fields of a value in the map.
    unsafe {
        add(&raw mut (*counts).freed, 1);
        add(&raw mut (*counts).freed_bytes, bytes);
    }
}
