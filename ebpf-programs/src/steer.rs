//! Socket lookup: gives each new connection of an enrolled pod to the proxy's listening socket.
//!
//! Each pod has its own instance of the program with a map of its own that names the pod: the
//! context names no namespace, and addresses alone cannot tell the proxy's connection to one pod
//! from another local pod's captured connection.

use aya_ebpf::{bindings::bpf_sk_lookup, programs::SkLookupContext};
use fairlead_ebpf::{Fate, HBONE_PORT, Listener, ListenerKey, PodAddresses};

use crate::{
    connect::mapped,
    counts::count,
    datagram,
    maps::{LISTENERS, POD},
    probe::is_probe,
};

const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
pub(crate) const LOOPBACK_IFINDEX: u32 = 1;

/// What becomes of a new connection.
pub(crate) enum Verdict {
    /// The kernel goes on: to the chosen socket, or else to its ordinary lookup.
    Pass,
    /// The peer gets a reset.
    Drop,
}

// === impl Verdict ===

impl From<Verdict> for u32 {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Drop => 0,
            Verdict::Pass => 1,
        }
    }
}

pub(crate) fn steer(ctx: &SkLookupContext) -> Verdict {
    // SAFETY: the kernel passes a valid context to the program.
    let lookup = unsafe { &*ctx.lookup };
    match lookup.protocol {
        IPPROTO_TCP => {}
        IPPROTO_UDP => return datagram::arrive(ctx, lookup),
        _ => return Verdict::Pass,
    }
    // Filled in before the program is attached: without it nothing is known, and nothing passes.
    let Some(pod) = POD.get(0) else { return Verdict::Drop };
    let Some(listener) = listener_for(lookup, &pod.addresses) else { return Verdict::Pass };
    let fate = match listener {
        // Counted when it was opened.
        Listener::Outbound => None,
        Listener::InboundHbone => Some(Fate::InboundTunnel),
        Listener::InboundPlaintext if is_probe(lookup) => {
            count(pod.netns, Fate::InboundProbe);
            return Verdict::Pass;
        }
        Listener::InboundPlaintext => Some(Fate::InboundPlaintext),
    };
    let given = LISTENERS.redirect_sk_lookup(ctx, ListenerKey::new(pod.netns, listener), 0);
    if let Some(fate) = fate {
        count(pod.netns, if given.is_ok() { fate } else { Fate::InboundRefused });
    }
    match given {
        Ok(()) => Verdict::Pass,
        // No proxy: fail closed.
        Err(_) => Verdict::Drop,
    }
}

fn listener_for(lookup: &bpf_sk_lookup, pod: &PodAddresses) -> Option<Listener> {
    let ends = Ends::of(lookup, pod);
    // Of the pod's connections to itself the kernel names the device that has the address, not lo.
    if ends.to_self {
        return None;
    }
    if lookup.ingress_ifindex == LOOPBACK_IFINDEX {
        // The proxy's connections to the application, and connections over loopback addresses.
        let inside = ends.to_pod || ends.loopback;
        return (!inside).then_some(Listener::Outbound);
    }
    if ends.to_pod && lookup.local_port == u32::from(HBONE_PORT) {
        return Some(Listener::InboundHbone);
    }
    Some(Listener::InboundPlaintext)
}

/// What the addresses of a connection say about it.
pub(crate) struct Ends {
    pub(crate) to_pod: bool,
    pub(crate) to_self: bool,
    pub(crate) loopback: bool,
}

// === impl Ends ===

impl Ends {
    pub(crate) fn of(lookup: &bpf_sk_lookup, pod: &PodAddresses) -> Self {
        if lookup.family == AF_INET {
            let (local, remote) = (lookup.local_ip4, lookup.remote_ip4);
            return Self {
                to_pod: local == u32::from_ne_bytes(pod.v4),
                to_self: local == remote,
                loopback: is_loopback4(local) || is_loopback4(remote),
            };
        }
        // The verifier accepts loads of single words from the context only.
        let l = &lookup.local_ip6;
        let r = &lookup.remote_ip6;
        let (local, remote) = ([l[0], l[1], l[2], l[3]], [r[0], r[1], r[2], r[3]]);
        Self {
            to_pod: local == pod.v6_words(),
            to_self: local == remote,
            loopback: is_loopback6(local) || is_loopback6(remote),
        }
    }
}

/// Returns the address of the sender, IPv4-mapped if it is of that family.
pub(crate) fn remote(lookup: &bpf_sk_lookup) -> [u32; 4] {
    if lookup.family == AF_INET {
        // SAFETY: a reference is valid. Otherwise the compiler makes one load of this one and one
        // below, at an offset that it computes, which the verifier refuses.
        return mapped(unsafe { (&raw const lookup.remote_ip4).read_volatile() });
    }
    let r = &lookup.remote_ip6;
    [r[0], r[1], r[2], r[3]]
}

fn is_loopback4(address: u32) -> bool {
    address.to_ne_bytes()[0] == 127
}

fn is_loopback6(words: [u32; 4]) -> bool {
    words == [0, 0, 0, 1u32.to_be()]
}
