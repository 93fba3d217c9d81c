//! System calls by number.

use nix::{errno::Errno, libc};

/// Makes a system call with `arguments`. Short ones, so that none is a valid address: what the
/// kernel is to read or write through a pointer fails with `EFAULT`.
pub(crate) fn call(number: libc::c_long, arguments: [u16; 6]) -> Result<libc::c_long, Errno> {
    let a = arguments.map(libc::c_long::from);
    // SAFETY: no memory can be reached through an address below 65,536 (`vm.mmap_min_addr`).
    Errno::result(unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) })
}
