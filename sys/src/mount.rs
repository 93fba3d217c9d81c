//! Attributes of whole trees of mounts.

use std::{ffi::CStr, io, mem};

use nix::libc;

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `MOUNT_ATTR_RDONLY`, `_NOSUID`, `_NODEV` and `_NOEXEC` of `linux/mount.h`.
const READ_ONLY: u64 = 0x1 | 0x2 | 0x4 | 0x8;

/// Makes `root` and all mounts below it read-only, without devices, set-user-id files and programs,
/// all at once (Linux 5.12).
pub fn make_read_only(root: &CStr) -> io::Result<()> {
    let attributes = MountAttr { attr_set: READ_ONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: both pointers are to live values, and the size is that of the second. The kernel
    // only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            root.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            mem::size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
