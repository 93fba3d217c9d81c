//! The BPF object of profiles: attach points only; each kind of profile has its own file.
#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "the attach macros want public functions of this form"
)]

mod cpu;
mod heap;
mod maps;

use aya_ebpf::{
    macros::{perf_event, uprobe, uretprobe},
    programs::{PerfEventContext, ProbeContext, RetProbeContext},
};

#[perf_event]
pub fn fairlead_cpu(ctx: PerfEventContext) -> u32 {
    cpu::sample(&ctx);
    0
}

#[uprobe]
pub fn fairlead_malloc(ctx: ProbeContext) -> u32 {
    heap::malloc(&ctx);
    0
}

#[uprobe]
pub fn fairlead_calloc(ctx: ProbeContext) -> u32 {
    heap::calloc(&ctx);
    0
}

#[uprobe]
pub fn fairlead_realloc(ctx: ProbeContext) -> u32 {
    heap::realloc(&ctx);
    0
}

#[uprobe]
pub fn fairlead_aligned_alloc(ctx: ProbeContext) -> u32 {
    heap::aligned_alloc(&ctx);
    0
}

#[uprobe]
pub fn fairlead_posix_memalign(ctx: ProbeContext) -> u32 {
    heap::posix_memalign(&ctx);
    0
}

#[uprobe]
pub fn fairlead_free(ctx: ProbeContext) -> u32 {
    heap::free(&ctx);
    0
}

#[uretprobe]
pub fn fairlead_allocated(ctx: RetProbeContext) -> u32 {
    heap::allocated(&ctx);
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
