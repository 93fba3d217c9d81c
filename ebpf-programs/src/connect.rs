//! `connect(2)` hooks: mark the sockets of enrolled pods, so that their packets reach the proxy.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock_addr,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_netns_cookie,
        bpf_get_socket_cookie, bpf_map_lookup_elem, bpf_setsockopt, bpf_sk_release,
    },
    programs::SockAddrContext,
};
use fairlead_ebpf::{
    CAPTURE_MARK, Fate, Listener, ListenerKey, NetnsCookie, PodAddresses, ProxyProcess,
    REGISTRATION_ADDRESS,
};

use crate::{
    counts::count,
    maps::{ENROLLED, LISTENERS, PROXIES, REGISTRATIONS},
};

const IPPROTO_TCP: u32 = 6;
const SOL_SOCKET: i32 = 1;
const SO_BINDTODEVICE: i32 = 25;
pub(crate) const SO_MARK: i32 = 36;
const OPTION_BYTES: i32 = 4;

/// What becomes of a `connect` call.
pub(crate) enum Verdict {
    /// It proceeds.
    Allow,
    /// It fails with `EPERM`.
    Refuse,
}

// === impl Verdict ===

impl From<Verdict> for i32 {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Refuse => 0,
            Verdict::Allow => 1,
        }
    }
}

pub(crate) fn connect4(ctx: &SockAddrContext) -> Verdict {
    // SAFETY: the kernel passes a valid context to the hook.
    let sock_addr = unsafe { &*ctx.sock_addr };
    if sock_addr.protocol != IPPROTO_TCP {
        return Verdict::Allow;
    }
    decide_v4(ctx, sock_addr.user_ip4.to_ne_bytes())
}

pub(crate) fn connect6(ctx: &SockAddrContext) -> Verdict {
    // SAFETY: the kernel passes a valid context to the hook.
    let sock_addr = unsafe { &*ctx.sock_addr };
    if sock_addr.protocol != IPPROTO_TCP {
        return Verdict::Allow;
    }
    let words = destination6(sock_addr);
    if words == mapped(words[3]) {
        return decide_v4(ctx, words[3].to_ne_bytes());
    }
    if is_local6(words) {
        return Verdict::Allow;
    }
    let Some((netns, pod)) = enrolled(ctx) else { return Verdict::Allow };
    if words == pod.v6_words() {
        return Verdict::Allow;
    }
    leave_pod(ctx, netns)
}

fn decide_v4(ctx: &SockAddrContext, destination: [u8; 4]) -> Verdict {
    match destination {
        REGISTRATION_ADDRESS => return register(ctx),
        [127, ..] | [0, 0, 0, 0] => return Verdict::Allow,
        _ => {}
    }
    let Some((netns, pod)) = enrolled(ctx) else { return Verdict::Allow };
    if destination == pod.v4 {
        return Verdict::Allow;
    }
    leave_pod(ctx, netns)
}

/// Returns the pod that makes the call, if it is in the mesh.
pub(crate) fn enrolled(ctx: &SockAddrContext) -> Option<(NetnsCookie, &'static PodAddresses)> {
    // SAFETY: the context is the hook's own.
    let netns = NetnsCookie(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) });
    // SAFETY: user space replaces values whole and the kernel frees them after a grace period.
    unsafe { ENROLLED.get(netns) }.map(|pod| (netns, pod))
}

/// Decides about a connection that leaves its pod.
fn leave_pod(ctx: &SockAddrContext, netns: NetnsCookie) -> Verdict {
    if is_proxy() {
        count(netns, Fate::OutboundBypassed);
        return Verdict::Allow;
    }
    let verdict = capture(ctx, netns);
    count(
        netns,
        match verdict {
            Verdict::Allow => Fate::OutboundCaptured,
            Verdict::Refuse => Fate::OutboundRefused,
        },
    );
    verdict
}

/// Leads the connection to the proxy. One that cannot be led there must not leave in plaintext.
fn capture(ctx: &SockAddrContext, netns: NetnsCookie) -> Verdict {
    // Without a listener the packets would be dropped, and the caller would wait in vain.
    if proxy_listens(netns) && leave_device(ctx) && set(ctx, SO_MARK, CAPTURE_MARK) {
        Verdict::Allow
    } else {
        Verdict::Refuse
    }
}

fn proxy_listens(netns: NetnsCookie) -> bool {
    has_socket((&raw const LISTENERS).cast(), &ListenerKey::new(netns, Listener::Outbound))
}

/// Returns whether `map`, a map of sockets, has one with this key.
pub(crate) fn has_socket<K>(map: *const c_void, key: &K) -> bool {
    // SAFETY: the map is transparent over its definition, which the loader replaces by the map; the
    // kernel does not write to it, and the key outlives the call.
    let socket = unsafe { bpf_map_lookup_elem(map.cast_mut(), (&raw const *key).cast()) };
    if socket.is_null() {
        return false;
    }
    // SAFETY: the lookup took a reference, which is given back once.
    unsafe { bpf_sk_release(socket) };
    true
}

/// The proxy is behind `lo`; packets of a socket that is bound to another device do not get there,
/// but leave by that device.
pub(crate) fn leave_device(ctx: &SockAddrContext) -> bool {
    // The empty name stands for no device.
    bound_device(ctx) == 0 || set(ctx, SO_BINDTODEVICE, 0)
}

/// Returns the index of the device that the socket is bound to; 0 for none.
pub(crate) fn bound_device(ctx: &SockAddrContext) -> u32 {
    // SAFETY: the kernel passes a valid context to the hook, with a socket.
    unsafe { (*(*ctx.sock_addr).__bindgen_anon_1.sk).bound_dev_if }
}

pub(crate) fn set(ctx: &SockAddrContext, option: i32, mut value: u32) -> bool {
    // SAFETY: the option's value outlives the call and has the length given.
    let failed = unsafe {
        bpf_setsockopt(ctx.as_ptr(), SOL_SOCKET, option, (&raw mut value).cast(), OPTION_BYTES)
    };
    failed == 0
}

fn register(ctx: &SockAddrContext) -> Verdict {
    // SAFETY: the context is the hook's own.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: user space replaces values whole and the kernel frees them after a grace period.
    if unsafe { REGISTRATIONS.get(cookie) }.is_some() {
        // A full map leaves the process unregistered; it finds that out by reading the map.
        let _ = PROXIES.insert(current_process(), cookie, 0);
    }
    Verdict::Refuse
}

/// Returns whether the calling process is one of the proxies, which are exempt.
pub(crate) fn is_proxy() -> bool {
    // SAFETY: user space replaces values whole and the kernel frees them after a grace period.
    unsafe { PROXIES.get(current_process()) }.is_some()
}

fn current_process() -> ProxyProcess {
    ProxyProcess {
        // SAFETY: the helper has no preconditions in a cgroup hook.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        reserved: 0,
    }
}

pub(crate) fn destination6(sock_addr: &bpf_sock_addr) -> [u32; 4] {
    // The verifier accepts loads of single words from the context only.
    let ip = &sock_addr.user_ip6;
    [ip[0], ip[1], ip[2], ip[3]]
}

/// Returns an IPv4 address as an IPv4-mapped IPv6 address.
pub(crate) fn mapped(v4: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), v4]
}

/// The unspecified address connects to the loopback interface, as `::1` does.
pub(crate) fn is_local6(words: [u32; 4]) -> bool {
    words[0] == 0 && words[1] == 0 && words[2] == 0 && matches!(u32::from_be(words[3]), 0 | 1)
}
