//! Counts where processors are found at work for one process.

use aya_ebpf::{
    bindings::BPF_F_USER_STACK,
    helpers::bpf_get_current_pid_tgid,
    programs::{PerfEventContext, tracing::StackIdContext as _},
};
use fairlead_ebpf::profiles::{CpuStack, NO_STACK};

use crate::maps::{SAMPLES, STACKS, TARGET, add, entry, lose, stack_id};

/// Takes one sample.
pub(crate) fn sample(ctx: &PerfEventContext) {
    let tgid = bpf_get_current_pid_tgid() >> 32;
    if TARGET.get(0).is_none_or(|target| u64::from(*target) != tgid) {
        return;
    }
    let user = ctx.get_stackid(&STACKS, u64::from(BPF_F_USER_STACK));
    let Ok(user) = stack_id(user) else { return };
    let Ok(kernel) = stack_id(ctx.get_stackid(&STACKS, 0)) else { return };
    let stack = CpuStack { user: user.unwrap_or(NO_STACK), kernel: kernel.unwrap_or(NO_STACK) };
    match entry(&SAMPLES, &stack, &0) {
        Some(count) => add(count, 1),
        None => lose(),
    }
}
