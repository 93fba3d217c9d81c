//! Filters of system calls, made from the [`policy`](super::policy).
//!
//! There are three, since one can only tell two kinds of calls apart. The kernel asks all and obeys
//! the strictest; what is allowed whatever its arguments it does not even ask about (Linux 5.11).

use std::collections::BTreeMap;

use nix::libc::{self, c_long};
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::policy::{ABSENT, Alternatives, Argument, FORBIDDEN, allowed};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// The filters in the order of installation.
pub(super) fn build() -> Result<[BpfProgram; 3], Error> {
    let always = |call: &c_long| (*call, Vec::new());
    let (allow, kill) = (SeccompAction::Allow, SeccompAction::KillProcess);
    let forbidden = program(FORBIDDEN.iter().map(always).collect(), allow.clone(), kill)?;
    let none = SeccompAction::Errno(errno(libc::ENOSYS));
    let absent = program(ABSENT.iter().map(always).collect(), allow.clone(), none)?;
    let mut rules = BTreeMap::new();
    for (call, alternatives) in allowed(std::process::id()) {
        rules.insert(call, conditions(&alternatives)?);
    }
    let refuse = SeccompAction::Errno(errno(libc::EPERM));
    // Last: it refuses to install another.
    Ok([forbidden, absent, program(rules, refuse, allow)?])
}

/// Installs the filters, and renounces new privileges.
pub(super) fn install(filters: &[BpfProgram]) -> Result<(), Error> {
    filters.iter().try_for_each(|filter| apply_filter_all_threads(filter))
}

fn program(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    action: SeccompAction,
) -> Result<BpfProgram, Error> {
    Ok(SeccompFilter::new(rules, otherwise, action, ARCHITECTURE)?.try_into()?)
}

fn conditions(alternatives: &Alternatives) -> Result<Vec<SeccompRule>, BackendError> {
    let condition = |argument: &Argument| {
        let (index, operator, value) = match *argument {
            Argument::Is(index, value) => (index, SeccompCmpOp::Eq, value),
            Argument::Bits(index, mask, value) => {
                (index, SeccompCmpOp::MaskedEq(mask.into()), value)
            }
        };
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value.into())
    };
    alternatives
        .iter()
        .map(|rule| SeccompRule::new(rule.iter().map(condition).collect::<Result<_, _>>()?))
        .collect()
}

fn errno(number: libc::c_int) -> u32 {
    number.unsigned_abs()
}
