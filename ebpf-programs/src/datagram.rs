//! Datagrams of enrolled pods: DNS queries go to the proxy, others pass or are refused, and all are
//! counted.
//!
//! A socket that is connected to a name server is marked, as captured connections are; the pod's
//! socket-lookup program then gives its packets to the proxy's socket. A single datagram cannot be
//! marked in time, so it is addressed to the proxy's port instead. Both only happen while a proxy
//! answers, as capture says, and while its socket is in [`RESOLVERS`], from which the kernel removes
//! it with its last descriptor, should all processes die at once: without a proxy queries go to the
//! name server. What a socket sends that was marked before waits for the next proxy.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sk_lookup,
    helpers::bpf_get_netns_cookie,
    programs::{SkLookupContext, SockAddrContext},
};
use fairlead_ebpf::{
    CAPTURE_MARK, Fate, NetnsCookie, PodAddresses,
    datagrams::{Asked, DNS_PORT, DatagramRules, RESOLVER_PORT},
};

use self::maps::{ASKED, DATAGRAM_RULES, RESOLVERS};
use crate::{
    connect::{
        self, SO_MARK, Verdict, enrolled, has_socket, is_local6, is_proxy, leave_device, mapped,
        set,
    },
    counts::count,
    maps::POD,
    steer::{self, Ends, LOOPBACK_IFINDEX},
};

mod maps;

const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;

/// `BPF_SK_LOOKUP_F_NO_REUSEPORT` of `linux/bpf.h`.
const NO_REUSEPORT: u64 = 2;

/// How datagrams are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sends {
    /// All that a connected socket sends.
    Many,
    /// One.
    One,
}

/// Where a datagram goes.
struct Destination {
    /// IPv4 addresses as IPv4-mapped ones, as the kernel has them.
    address: [u32; 4],
    port: u16,
}

/// Decides about a `connect` call; none if it is not about datagrams.
pub(crate) fn connect4(ctx: &SockAddrContext) -> Option<Verdict> {
    let destination = Destination::v4(ctx);
    connect(ctx, &destination)
}

/// Decides about a `connect` call; none if it is not about datagrams.
pub(crate) fn connect6(ctx: &SockAddrContext) -> Option<Verdict> {
    let destination = Destination::v6(ctx);
    connect(ctx, &destination)
}

/// Decides about a datagram of a socket that is not connected.
pub(crate) fn send4(ctx: &SockAddrContext) -> Verdict {
    let destination = Destination::v4(ctx);
    send(ctx, &destination, Sends::One)
}

/// Decides about a datagram of a socket that is not connected.
pub(crate) fn send6(ctx: &SockAddrContext) -> Verdict {
    let destination = Destination::v6(ctx);
    send(ctx, &destination, Sends::One)
}

/// Decides about a datagram that arrives for a socket that is not connected.
pub(crate) fn arrive(ctx: &SkLookupContext, lookup: &bpf_sk_lookup) -> steer::Verdict {
    let Some(pod) = POD.get(0) else { return steer::Verdict::Pass };
    let ends = Ends::of(lookup, &pod.addresses);
    if ends.to_self {
        return steer::Verdict::Pass;
    }
    if lookup.ingress_ifindex == LOOPBACK_IFINDEX {
        let outside = !ends.to_pod && !ends.loopback;
        let ports = [u32::from(DNS_PORT), u32::from(RESOLVER_PORT)];
        if outside && (lookup.local_port == ports[0] || lookup.local_port == ports[1]) {
            // To this one and not to one that shares its port, which a predecessor is about to
            // close. Fails without a proxy and capture, and then nobody has the address.
            let _ = RESOLVERS.redirect_sk_lookup(ctx, pod.netns, NO_REUSEPORT);
        }
        return steer::Verdict::Pass;
    }
    let refused = rules(pod.netns).has(DatagramRules::REFUSE_RECEIVED)
        // SAFETY: nothing is read of the value.
        && unsafe { ASKED.get(Asked::at_other_end(lookup, pod.netns)) }.is_none();
    if refused {
        count(pod.netns, Fate::DatagramReceivedRefused);
        return steer::Verdict::Drop;
    }
    count(pod.netns, Fate::DatagramReceived);
    steer::Verdict::Pass
}

fn connect(ctx: &SockAddrContext, destination: &Destination) -> Option<Verdict> {
    // SAFETY: the kernel passes a valid context to the hook.
    match unsafe { (*ctx.sock_addr).protocol } {
        IPPROTO_UDP => Some(send(ctx, destination, Sends::Many)),
        // What asks a name server must get there while no proxy answers.
        IPPROTO_TCP if destination.port == DNS_PORT => {
            let netns = netns_of(ctx);
            let rules = rules(netns);
            let straight = rules.has(DatagramRules::RESOLVE) && !is_answered(netns, rules);
            straight.then_some(Verdict::Allow)
        }
        _ => None,
    }
}

fn send(ctx: &SockAddrContext, destination: &Destination, sends: Sends) -> Verdict {
    let Some((netns, pod)) = enrolled(ctx) else { return Verdict::Allow };
    if is_proxy() {
        return Verdict::Allow;
    }
    let inside = destination.is_inside(pod);
    let rules = rules(netns);
    let is_query = destination.port == DNS_PORT;
    if is_query
        && !inside
        && !destination.is_multicast()
        && is_answered(netns, rules)
        && divert(ctx, sends)
    {
        count(netns, Fate::DatagramResolved);
        return Verdict::Allow;
    }
    if sends == Sends::Many && !unmark(ctx) {
        return Verdict::Refuse;
    }
    if inside {
        return Verdict::Allow;
    }
    if rules.has(DatagramRules::REFUSE_SENT) && !is_query {
        count(netns, Fate::DatagramSentRefused);
        return Verdict::Refuse;
    }
    if rules.has(DatagramRules::REFUSE_RECEIVED) && sends == Sends::One {
        // If this fails, the answer is refused, and counted.
        let _ = ASKED.insert(destination.asked(netns), 0, 0);
    }
    count(netns, Fate::DatagramSent);
    Verdict::Allow
}

/// Leads a query to the proxy; returns whether it gets there.
fn divert(ctx: &SockAddrContext, sends: Sends) -> bool {
    match sends {
        Sends::Many => leave_device(ctx) && set(ctx, SO_MARK, CAPTURE_MARK),
        Sends::One => {
            if connect::bound_device(ctx) != 0 {
                return false;
            }
            let port = u32::from(RESOLVER_PORT.to_be());
            // SAFETY: the kernel passes a valid context to the hook, and lets it change the port by
            // a store of the whole word.
            unsafe { (&raw mut (*ctx.sock_addr).user_port).write_volatile(port) };
            true
        }
    }
}

/// Removes the mark of a socket that was connected to a name server before.
fn unmark(ctx: &SockAddrContext) -> bool {
    // SAFETY: the kernel passes a valid context to the hook, with a socket.
    let mark = unsafe { (*(*ctx.sock_addr).__bindgen_anon_1.sk).mark };
    mark != CAPTURE_MARK || set(ctx, SO_MARK, 0)
}

/// Returns whether a proxy answers the queries of the pod.
fn is_answered(netns: NetnsCookie, rules: DatagramRules) -> bool {
    rules.has(DatagramRules::ANSWERED) && has_socket((&raw const RESOLVERS).cast(), &netns)
}

fn rules(netns: NetnsCookie) -> DatagramRules {
    // SAFETY: user space replaces values whole and the kernel frees them after a grace period.
    unsafe { DATAGRAM_RULES.get(netns) }.copied().unwrap_or_default()
}

fn netns_of(ctx: &SockAddrContext) -> NetnsCookie {
    // SAFETY: the context is the hook's own.
    NetnsCookie(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) })
}

// === impl Destination ===

impl Destination {
    fn v4(ctx: &SockAddrContext) -> Self {
        // SAFETY: the kernel passes a valid context to the hook.
        let sock_addr = unsafe { &*ctx.sock_addr };
        Self { address: mapped(sock_addr.user_ip4), port: port(sock_addr.user_port) }
    }

    fn v6(ctx: &SockAddrContext) -> Self {
        // SAFETY: the kernel passes a valid context to the hook.
        let sock_addr = unsafe { &*ctx.sock_addr };
        let address = connect::destination6(sock_addr);
        Self { address, port: port(sock_addr.user_port) }
    }

    fn v4_octets(&self) -> Option<[u8; 4]> {
        let word = self.address[3];
        (self.address == mapped(word)).then_some(word.to_ne_bytes())
    }

    /// Whether the datagram stays in the pod anyway.
    fn is_inside(&self, pod: &PodAddresses) -> bool {
        match self.v4_octets() {
            Some([127, ..] | [0, 0, 0, 0]) => true,
            Some(octets) => octets == pod.v4,
            None => is_local6(self.address) || self.address == pod.v6_words(),
        }
    }

    /// Whether there is no single receiver.
    fn is_multicast(&self) -> bool {
        match self.v4_octets() {
            Some([first, ..]) => first >= 224,
            None => self.address[0].to_ne_bytes()[0] == 0xff,
        }
    }

    fn asked(&self, netns: NetnsCookie) -> Asked {
        Asked { netns, address: self.address, port: self.port, reserved: [0; 3] }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a port has half of the word")]
fn port(word: u32) -> u16 {
    u16::from_be(word as u16)
}

/// Names the sender of a datagram.
trait AtOtherEnd {
    fn at_other_end(lookup: &bpf_sk_lookup, netns: NetnsCookie) -> Self;
}

// === impl Asked ===

impl AtOtherEnd for Asked {
    fn at_other_end(lookup: &bpf_sk_lookup, netns: NetnsCookie) -> Self {
        let address = steer::remote(lookup);
        let port = u16::from_be(lookup.remote_port);
        Self { netns, address, port, reserved: [0; 3] }
    }
}
