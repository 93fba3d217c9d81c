//! The BPF object: attach points only; each program has its own file.
#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "the attach macros want public functions of this form"
)]

mod connect;
mod counts;
mod datagram;
mod maps;
mod probe;
mod steer;

use aya_ebpf::{
    macros::{cgroup_sock_addr, sk_lookup, sock_ops},
    programs::{SkLookupContext, SockAddrContext, SockOpsContext},
};

#[cgroup_sock_addr(connect4)]
pub fn fairlead_connect4(ctx: SockAddrContext) -> i32 {
    datagram::connect4(&ctx).unwrap_or_else(|| connect::connect4(&ctx)).into()
}

#[cgroup_sock_addr(connect6)]
pub fn fairlead_connect6(ctx: SockAddrContext) -> i32 {
    datagram::connect6(&ctx).unwrap_or_else(|| connect::connect6(&ctx)).into()
}

#[cgroup_sock_addr(sendmsg4)]
pub fn fairlead_sendmsg4(ctx: SockAddrContext) -> i32 {
    datagram::send4(&ctx).into()
}

#[cgroup_sock_addr(sendmsg6)]
pub fn fairlead_sendmsg6(ctx: SockAddrContext) -> i32 {
    datagram::send6(&ctx).into()
}

#[sk_lookup]
pub fn fairlead_steer(ctx: SkLookupContext) -> u32 {
    steer::steer(&ctx).into()
}

#[sock_ops]
pub fn fairlead_probes(ctx: SockOpsContext) -> u32 {
    probe::record(&ctx);
    1
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
