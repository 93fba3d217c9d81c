//! Which system calls the proxy may make.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fairlead_sys::socket::{IP_LOCAL_PORT_RANGE, SIOCATMARK};
use nix::libc::{self, c_int, c_long};

/// What an argument, by its index, has to be. Only its lower 32 bits count: all of these are `int`
/// or flags below 2^32.
#[derive(Clone, Copy, Debug)]
pub(super) enum Argument {
    /// Exactly this value.
    Is(u8, u32),
    /// With the first value as mask, the second.
    Bits(u8, u32, u32),
}

/// Each is a list of arguments that all have to fit; an empty list of lists allows everything.
pub(super) type Alternatives = Vec<Vec<Argument>>;

use Argument::{Bits, Is};

/// Calls that do no harm, whatever their arguments. None of them takes a path for writing, makes a
/// process or changes what this one may do.
const ALWAYS: &[c_long] = &[
    // Descriptors.
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_lseek,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_splice,
    libc::SYS_write,
    libc::SYS_writev,
    // Sockets; which kinds there are is said below.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    // What there is to be seen of the file system.
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_statx,
    // Waiting.
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_restart_syscall,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    // Threads and their end; how they are made is said below.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_get_robust_list,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    // Signals of the process itself.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Facts.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// `uretprobe`: made by code that the kernel puts into a process whose allocations are profiled, and
/// of no use from elsewhere. Newer kernels let it pass every filter.
#[cfg(target_arch = "x86_64")]
const SYS_URETPROBE: c_long = 335;

/// Calls that only this architecture has, most since newer ones have left them out.
#[cfg(target_arch = "x86_64")]
const ALWAYS_HERE: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_getrlimit,
    libc::SYS_inotify_init,
    libc::SYS_lstat,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_time,
    SYS_URETPROBE,
];
#[cfg(target_arch = "aarch64")]
const ALWAYS_HERE: &[c_long] = &[];

/// Calls that kill the process: no proxy makes them, an attacker does.
pub(super) const FORBIDDEN: &[c_long] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_personality,
    // Other processes.
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // Other views.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // Parts of the kernel with a history of their own.
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_fanotify_init,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    // The machine.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Calls that the kernel is made out not to have: their arguments are out of the filter's sight,
/// and the C library then uses `clone` in its place.
pub(super) const ABSENT: &[c_long] = &[libc::SYS_clone3];

/// The kind of a socket, without the flags that are passed along with it.
const SOCKET_TYPE: u32 = 0xf;

/// What a file is opened for; anything but reading is refused.
const OPEN_FOR_MORE: u32 = bits(libc::O_ACCMODE)
    | bits(libc::O_CREAT)
    | bits(libc::O_TRUNC)
    | (bits(libc::O_TMPFILE) & !bits(libc::O_DIRECTORY));

/// What makes a thread of this process rather than a process.
const THREAD: u32 = bits(libc::CLONE_THREAD) | bits(libc::CLONE_VM) | bits(libc::CLONE_SIGHAND);

const NEW_NAMESPACES: u32 = bits(libc::CLONE_NEWCGROUP)
    | bits(libc::CLONE_NEWIPC)
    | bits(libc::CLONE_NEWNET)
    | bits(libc::CLONE_NEWNS)
    | bits(libc::CLONE_NEWPID)
    | bits(libc::CLONE_NEWUSER)
    | bits(libc::CLONE_NEWUTS);

/// `PR_SET_VMA` of `linux/prctl.h`: names for areas of memory.
const PR_SET_VMA: u32 = 0x5356_4d41;

/// Options of sockets, by level, that a proxy sets. Others filter with programs, load protocols or
/// change tables of the kernel's.
const SOCKET_OPTIONS: [(c_int, c_int); 12] = [
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_LINGER),
    (libc::SOL_SOCKET, libc::SO_REUSEADDR),
    (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT),
    (libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE),
    // The C library's, to look up a name.
    (libc::IPPROTO_IP, libc::IP_RECVERR),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
];

/// Requests of `ioctl(2)` that change nothing but a descriptor's own state, or only ask.
const IOCTLS: [u32; 5] = [
    request(libc::FIONBIO),
    request(libc::FIONREAD),
    request(libc::FIOCLEX),
    request(libc::TCGETS),
    request(SIOCATMARK),
];

/// Returns all that is allowed to the process with `pid`; the rest is refused.
pub(super) fn allowed(pid: u32) -> BTreeMap<c_long, Alternatives> {
    let always = ALWAYS.iter().chain(ALWAYS_HERE).chain(ABSENT).map(|call| (*call, Vec::new()));
    let conditional = sockets().into_iter().chain(others(pid));
    always.chain(conditional).collect()
}

/// What sockets there are.
///
/// - TCP and UDP over IPv4 and IPv6, and no other protocol: a proxy connects out of the node's
///   network to its control plane, whose name it looks up. Whoever takes the process over reaches
///   what the node does, too, but no pod's network: sockets inside a pod come from capture.
/// - Pairs of unix sockets, which are connected already. No single ones: under their names the
///   node's own services listen.
/// - No netlink, no packets: nothing here configures a network or speaks below TCP and UDP.
fn sockets() -> [(c_long, Alternatives); 3] {
    let inet = [libc::AF_INET, libc::AF_INET6].into_iter().flat_map(|family| {
        let kind = move |kind, protocol| {
            vec![Is(0, bits(family)), Bits(1, SOCKET_TYPE, bits(kind)), Is(2, bits(protocol))]
        };
        [
            kind(libc::SOCK_STREAM, 0),
            kind(libc::SOCK_STREAM, libc::IPPROTO_TCP),
            kind(libc::SOCK_DGRAM, 0),
            kind(libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        ]
    });
    let pair = |kind| vec![Is(0, bits(libc::AF_UNIX)), Bits(1, SOCKET_TYPE, bits(kind))];
    let options = SOCKET_OPTIONS.map(|(level, name)| vec![Is(1, bits(level)), Is(2, bits(name))]);
    [
        (libc::SYS_socket, inet.collect()),
        (libc::SYS_socketpair, vec![pair(libc::SOCK_STREAM), pair(libc::SOCK_SEQPACKET)]),
        (libc::SYS_setsockopt, options.to_vec()),
    ]
}

fn others(pid: u32) -> Vec<(c_long, Alternatives)> {
    let not_executable = |index| vec![vec![Bits(index, bits(libc::PROT_EXEC), 0)]];
    let read_only = |index| vec![vec![Bits(index, OPEN_FOR_MORE, bits(libc::O_RDONLY))]];
    let descriptor_flags = [
        libc::F_DUPFD,
        libc::F_DUPFD_CLOEXEC,
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_GETPIPE_SZ,
        libc::F_SETPIPE_SZ,
    ];
    vec![
        (libc::SYS_fcntl, any_of(1, &descriptor_flags.map(bits))),
        (libc::SYS_ioctl, any_of(1, &IOCTLS)),
        (libc::SYS_mmap, not_executable(2)),
        (libc::SYS_mprotect, not_executable(2)),
        (libc::SYS_openat, read_only(2)),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_open, read_only(1)),
        (libc::SYS_prctl, any_of(0, &[bits(libc::PR_SET_NAME), PR_SET_VMA])),
        // Of this process, which can no longer raise any.
        (libc::SYS_prlimit64, vec![vec![Is(0, 0)]]),
        (libc::SYS_clone, vec![vec![Bits(0, THREAD | NEW_NAMESPACES, THREAD)]]),
        // An abort is a signal to oneself.
        (libc::SYS_tgkill, vec![vec![Is(0, pid)]]),
    ]
}

fn any_of(index: u8, values: &[u32]) -> Alternatives {
    values.iter().map(|value| vec![Is(index, *value)]).collect()
}

/// The kernel sees flags and codes as they are, without a sign.
const fn bits(value: c_int) -> u32 {
    value.cast_unsigned()
}

#[expect(clippy::cast_possible_truncation, reason = "requests have 32 bits")]
const fn request(value: libc::Ioctl) -> u32 {
    value as u32
}
