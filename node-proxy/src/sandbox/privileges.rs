//! Another user, no group and no capability, for good.

use std::io;

use nix::{
    sys::{
        prctl::{set_dumpable, set_no_new_privs},
        resource::{Resource, getrlimit, setrlimit},
    },
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::{SandboxError, failed};

/// Becomes `user` and `group`, without any privilege and without a way to one.
pub(super) fn drop_all(user: Uid, group: Gid) -> Result<(), SandboxError> {
    set_limits().map_err(failed("set resource limits"))?;
    clear_bounding_set().map_err(failed("empty the bounding set of capabilities"))?;
    clear_ambient_capability_set().map_err(failed("empty the ambient set of capabilities"))?;
    setgroups(&[]).map_err(failed("leave supplementary groups"))?;
    setresgid(group, group, group).map_err(failed("change the group"))?;
    setresuid(user, user, user).map_err(failed("change the user"))?;
    // The change of user has emptied all sets but the inheritable one.
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(failed("drop capabilities"))?;
    set_no_new_privs().map_err(failed("renounce new privileges"))?;
    // Keys are in memory: no core file, no debugger of the same user.
    set_dumpable(false).map_err(failed("forbid memory dumps"))
}

fn set_limits() -> nix::Result<()> {
    // Each connection costs two descriptors or more; the soft limit is often 1,024.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
}

fn clear_bounding_set() -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        // An error says that the kernel has no more: there may be ones that this program does not
        // know.
        if capability_is_in_bounding_set(capability).is_err() {
            break;
        }
        remove_capability_from_bounding_set(capability)?;
    }
    Ok(())
}
