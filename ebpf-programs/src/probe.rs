//! Probes: connections of the kubelet pass by the proxy.
//!
//! The kubelet is known by its cgroup, to which the recording program is attached: it sees each
//! connection that a socket of the kubelet opens after its ports are chosen and before its first
//! packet leaves, and once more when it is closed. No other process can open the same connection
//! meanwhile, so the socket lookup of the pod recognises it by its addresses and ports.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
        BPF_TCP_CLOSE, bpf_sk_lookup, bpf_sock_ops,
    },
    programs::SockOpsContext,
};
use fairlead_ebpf::{Connection, ProbeSource};

use crate::maps::{PROBE_SOURCES, PROBES};

const AF_INET: u32 = 2;

/// The word before an IPv4 address in an IPv4-mapped one, in network byte order.
const MAPPED: u32 = 0xffff_u32.to_be();

/// Notes a connection that is opened by a socket of the kubelet, until it is closed.
pub(crate) fn record(ctx: &SockOpsContext) {
    // SAFETY: the kernel passes a valid context to the program.
    let ops = unsafe { &*ctx.ops };
    match ops.op {
        // One whose end would not be seen is not noted: its ports will be another's.
        BPF_SOCK_OPS_TCP_CONNECT_CB if will_see_end(ctx) => {
            // Fails only for want of memory; the connection is then like any other.
            let _ = PROBES.insert(opened(ops), 1, 0);
        }
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => {
            // Absent if others have taken its place.
            let _ = PROBES.remove(opened(ops));
        }
        _ => {}
    }
}

fn will_see_end(ctx: &SockOpsContext) -> bool {
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    ctx.set_cb_flags(flags.cast_signed()).is_ok()
}

/// Returns whether a new connection to a pod comes from the kubelet.
pub(crate) fn is_probe(lookup: &bpf_sk_lookup) -> bool {
    let connection = arriving(lookup);
    // SAFETY: only whether there is a value counts.
    unsafe {
        PROBES.get(connection).is_some()
            || PROBE_SOURCES.get(ProbeSource(connection.client)).is_some()
    }
}

fn opened(ops: &bpf_sock_ops) -> Connection {
    let (l, r) = (words(&ops.local_ip6), words(&ops.remote_ip6));
    let (l4, r4) = (word(&ops.local_ip4), word(&ops.remote_ip4));
    // An IPv6 socket may be connected over IPv4; its IPv6 address of this end is not set then.
    let over_ipv4 = ops.family == AF_INET || r[0] == 0 && r[1] == 0 && r[2] == MAPPED;
    Connection {
        client: if over_ipv4 { mapped(l4) } else { l },
        server: if over_ipv4 { mapped(r4) } else { r },
        client_port: ops.local_port,
        server_port: u32::from_be(ops.remote_port),
    }
}

fn arriving(lookup: &bpf_sk_lookup) -> Connection {
    let (l, r) = (words(&lookup.local_ip6), words(&lookup.remote_ip6));
    let (l4, r4) = (word(&lookup.local_ip4), word(&lookup.remote_ip4));
    let over_ipv4 = lookup.family == AF_INET;
    Connection {
        client: if over_ipv4 { mapped(r4) } else { r },
        server: if over_ipv4 { mapped(l4) } else { l },
        client_port: u32::from(u16::from_be(lookup.remote_port)),
        server_port: lookup.local_port,
    }
}

fn mapped(v4: u32) -> [u32; 4] {
    [0, 0, MAPPED, v4]
}

fn words(address: &[u32; 4]) -> [u32; 4] {
    let [a, b, c, d] = address;
    [word(a), word(b), word(c), word(d)]
}

/// Reads a word of the context, now: the verifier accepts loads of single words from places that are
/// known beforehand, and the compiler would rather choose the place by the address family.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the place counts")]
fn word(place: &u32) -> u32 {
    // SAFETY: it is a reference.
    unsafe { core::ptr::read_volatile(place) }
}
