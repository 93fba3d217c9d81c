//! The filters as the kernel runs them, on calls of every number.

use std::collections::BTreeSet;

use seccompiler::{BpfProgramRef, sock_filter};

use super::*;
use crate::sandbox::filter;

/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_AARCH64` of `linux/audit.h`.
const X86_64: u32 = 0xc000_003e;
const AARCH64: u32 = 0xc000_00b7;
const HERE: u32 = if cfg!(target_arch = "x86_64") { X86_64 } else { AARCH64 };
const ELSEWHERE: u32 = X86_64 ^ AARCH64 ^ HERE;

/// Beyond the numbers of all calls that kernels have today, with room.
const NUMBERS: c_long = 1024;

/// Set in the numbers of calls by the 32-bit pointer convention of `x86_64`.
const X32: c_long = 0x4000_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Kill,
    Refuse,
    Absent,
    Allow,
}

/// Offsets in `struct seccomp_data`.
fn load(offset: u32, number: c_long, architecture: u32, arguments: [u64; 6]) -> u32 {
    let argument = |at: u32| arguments[at as usize / 8].to_ne_bytes();
    match offset {
        0 => u32::try_from(number).unwrap(),
        4 => architecture,
        16.. => {
            let (bytes, half) = (argument(offset - 16), (offset as usize - 16) % 8);
            u32::from_ne_bytes(bytes[half..half + 4].try_into().unwrap())
        }
        other => panic!("load from {other}"),
    }
}

/// The part of the kernel's machine that the filters use.
fn run(program: BpfProgramRef<'_>, load: impl Fn(u32) -> u32) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at].clone();
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => accumulator = load(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => branch(accumulator == k),
            0x25 => branch(accumulator > k),
            0x35 => branch(accumulator >= k),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// What the kernel does: the strictest of what the filters say.
fn verdict(architecture: u32, number: c_long, arguments: [u64; 6]) -> Verdict {
    let filters = filter::build().unwrap();
    judge(&filters, architecture, number, arguments)
}

fn judge(
    filters: &[seccompiler::BpfProgram],
    architecture: u32,
    number: c_long,
    arguments: [u64; 6],
) -> Verdict {
    let load = |offset| load(offset, number, architecture, arguments);
    let says = |value: u32| match value {
        0x8000_0000 => Verdict::Kill,
        0x7fff_0000 => Verdict::Allow,
        error if error == 0x0005_0000 | bits(libc::EPERM) => Verdict::Refuse,
        error if error == 0x0005_0000 | bits(libc::ENOSYS) => Verdict::Absent,
        other => panic!("action {other:#x}"),
    };
    let all: Vec<_> = filters.iter().map(|filter| says(run(filter, load))).collect();
    *[Verdict::Kill, Verdict::Absent, Verdict::Refuse, Verdict::Allow]
        .iter()
        .find(|v| all.contains(v))
        .unwrap()
}

#[test]
fn every_call_that_is_not_listed_is_refused() {
    let filters = filter::build().unwrap();
    let always: BTreeSet<_> = ALWAYS.iter().chain(ALWAYS_HERE).collect();
    let conditional = allowed(1);
    for number in 0..NUMBERS {
        let expected = if FORBIDDEN.contains(&number) {
            Verdict::Kill
        } else if ABSENT.contains(&number) {
            Verdict::Absent
        } else if always.contains(&number) {
            Verdict::Allow
        } else if conditional.contains_key(&number) {
            continue;
        } else {
            Verdict::Refuse
        };
        for arguments in [[0; 6], [u64::MAX; 6]] {
            assert_eq!(judge(&filters, HERE, number, arguments), expected, "call {number}");
        }
    }
}

#[test]
fn lists_do_not_contradict_each_other() {
    let lists = [ALWAYS, ALWAYS_HERE, FORBIDDEN, ABSENT];
    let count: usize = lists.iter().map(|l| l.len()).sum();
    let distinct: BTreeSet<_> = lists.into_iter().flatten().collect();
    assert_eq!(distinct.len(), count);
    let conditional = sockets().len() + others(1).len();
    assert_eq!(allowed(1).len(), ALWAYS.len() + ALWAYS_HERE.len() + ABSENT.len() + conditional);
}

#[test]
fn calls_by_another_convention_never_pass() {
    let filters = filter::build().unwrap();
    for number in 0..NUMBERS {
        assert_eq!(judge(&filters, ELSEWHERE, number, [0; 6]), Verdict::Kill, "call {number}");
        assert_eq!(judge(&filters, HERE, number | X32, [0; 6]), Verdict::Refuse, "call {number}");
    }
}

/// Calls whose arguments count, with an argument list that is allowed or not.
fn cases() -> Vec<(c_long, &'static [c_int], bool)> {
    let own = std::process::id().cast_signed();
    let own: &'static [c_int] = Box::leak(Box::new([own, own, libc::SIGABRT]));
    vec![
        (libc::SYS_socket, &[libc::AF_INET, libc::SOCK_STREAM], true),
        (libc::SYS_socket, &[libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 6], true),
        (libc::SYS_socket, &[libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 17], true),
        (libc::SYS_socket, &[libc::AF_INET, libc::SOCK_RAW], false),
        (libc::SYS_socket, &[libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP], false),
        (libc::SYS_socket, &[libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP], false),
        (libc::SYS_socket, &[libc::AF_UNIX, libc::SOCK_STREAM], false),
        (libc::SYS_socket, &[libc::AF_NETLINK, libc::SOCK_DGRAM], false),
        (libc::SYS_socket, &[libc::AF_PACKET, libc::SOCK_DGRAM], false),
        (libc::SYS_socket, &[libc::AF_ALG, libc::SOCK_SEQPACKET], false),
        (libc::SYS_socket, &[libc::AF_VSOCK, libc::SOCK_STREAM], false),
        (libc::SYS_socketpair, &[libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC], true),
        (libc::SYS_socketpair, &[libc::AF_UNIX, libc::SOCK_SEQPACKET], true),
        // These could be connected anew, to any name.
        (libc::SYS_socketpair, &[libc::AF_UNIX, libc::SOCK_DGRAM], false),
        (libc::SYS_setsockopt, &[3, libc::SOL_SOCKET, libc::SO_REUSEADDR], true),
        (libc::SYS_setsockopt, &[3, libc::IPPROTO_TCP, libc::TCP_NODELAY], true),
        (libc::SYS_setsockopt, &[3, libc::SOL_NETLINK, 0], false),
        (libc::SYS_setsockopt, &[3, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER], false),
        (libc::SYS_setsockopt, &[3, libc::IPPROTO_TCP, libc::TCP_ULP], false),
        (libc::SYS_openat, &[libc::AT_FDCWD, 0, libc::O_RDONLY | libc::O_CLOEXEC], true),
        (libc::SYS_openat, &[libc::AT_FDCWD, 0, libc::O_RDONLY | libc::O_DIRECTORY], true),
        (libc::SYS_openat, &[libc::AT_FDCWD, 0, libc::O_WRONLY], false),
        (libc::SYS_openat, &[libc::AT_FDCWD, 0, libc::O_RDWR], false),
        (libc::SYS_openat, &[libc::AT_FDCWD, 0, libc::O_CREAT], false),
        (libc::SYS_openat, &[libc::AT_FDCWD, 0, libc::O_TRUNC], false),
        (libc::SYS_openat, &[libc::AT_FDCWD, 0, libc::O_TMPFILE], false),
        (libc::SYS_openat, &[libc::AT_FDCWD, 0, libc::O_ACCMODE], false),
        (libc::SYS_mmap, &[0, 1, libc::PROT_READ | libc::PROT_WRITE], true),
        (libc::SYS_mmap, &[0, 1, libc::PROT_READ | libc::PROT_EXEC], false),
        (libc::SYS_mprotect, &[0, 1, libc::PROT_NONE], true),
        (libc::SYS_mprotect, &[0, 1, libc::PROT_EXEC], false),
        (libc::SYS_clone, &[libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND], true),
        (libc::SYS_clone, &[libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD], false),
        (libc::SYS_clone, &[libc::SIGCHLD], false),
        (libc::SYS_clone, &[libc::CLONE_NEWUSER | libc::SIGCHLD], false),
        (
            libc::SYS_clone,
            &[libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_NEWNET],
            false,
        ),
        (libc::SYS_fcntl, &[3, libc::F_SETFL, libc::O_NONBLOCK], true),
        (libc::SYS_fcntl, &[3, libc::F_SETPIPE_SZ, 1 << 20], true),
        (libc::SYS_fcntl, &[3, libc::F_SETOWN, 1], false),
        (libc::SYS_fcntl, &[3, libc::F_NOTIFY, 1], false),
        (libc::SYS_ioctl, &[3, 0x5421], true),
        (libc::SYS_ioctl, &[3, 0x8905], true),
        // TIOCSTI, SIOCSIFFLAGS
        (libc::SYS_ioctl, &[0, 0x5412], false),
        (libc::SYS_ioctl, &[3, 0x8914], false),
        (libc::SYS_prctl, &[libc::PR_SET_NAME], true),
        (libc::SYS_prctl, &[libc::PR_SET_DUMPABLE, 1], false),
        (libc::SYS_prctl, &[libc::PR_CAP_AMBIENT, 2], false),
        (libc::SYS_prctl, &[libc::PR_SET_MM, 1], false),
        (libc::SYS_prlimit64, &[0, 7], true),
        (libc::SYS_prlimit64, &[1, 7], false),
        (libc::SYS_tgkill, own, true),
        (libc::SYS_tgkill, &[1, 1, libc::SIGKILL], false),
    ]
}

#[test]
fn arguments_decide_where_a_call_does_good_and_harm() {
    let cases = cases();
    for (number, arguments, allowed) in &cases {
        let mut all = [0; 6];
        for (slot, value) in all.iter_mut().zip(*arguments) {
            *slot = u64::from(value.cast_unsigned());
        }
        let expected = if *allowed { Verdict::Allow } else { Verdict::Refuse };
        assert_eq!(verdict(HERE, *number, all), expected, "call {number} {arguments:?}");
        // The kernel does not look at the upper half either.
        let upper = all.map(|value| value | 0xffff_ffff_0000_0000);
        assert_eq!(verdict(HERE, *number, upper), expected, "call {number} {arguments:?}");
    }
    for number in sockets().into_iter().chain(others(1)).map(|(number, _)| number) {
        let tried = |allowed| cases.iter().any(|c| c.0 == number && c.2 == allowed);
        // `open` is the same as `openat`, one place further.
        let is_open = cfg!(target_arch = "x86_64") && number == 2;
        assert!(is_open || (tried(true) && tried(false)), "call {number} has no case");
    }
}
