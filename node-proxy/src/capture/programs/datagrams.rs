//! What the programs know of the datagrams of pods.

use std::{
    collections::HashMap as Memory,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, SockHash},
};
use fairlead_ebpf::{NetnsCookie, datagrams::DatagramRules};

use super::{ProgramsError, ignore_absent, map_error, take_map};

/// Names of the maps.
pub(super) const MAPS: [&str; 3] = [RULES, RESOLVERS, "ASKED"];

const RULES: &str = "DATAGRAM_RULES";
const RESOLVERS: &str = "RESOLVERS";

/// The maps that say what becomes of datagrams.
pub(in crate::capture) struct Datagrams {
    rules: HashMap<MapData, NetnsCookie, DatagramRules>,
    resolvers: SockHash<MapData, NetnsCookie>,
    /// What is in the first, of the pods of this process.
    known: Memory<NetnsCookie, DatagramRules>,
}

// === impl Datagrams ===

impl Datagrams {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, ProgramsError> {
        Ok(Self {
            rules: take_map(object, RULES)?,
            resolvers: take_map(object, RESOLVERS)?,
            known: Memory::new(),
        })
    }

    /// Sets what becomes of the datagrams of a pod. `queries` takes DNS queries, if a socket does.
    ///
    /// What proxies say is as a predecessor was told, who may have been one of the same proxies. A pod
    /// that has had none takes no datagrams where policy is to say whether it does.
    pub(in crate::capture) fn begin(
        &mut self,
        pod: NetnsCookie,
        options: DatagramRules,
        queries: Option<BorrowedFd<'_>>,
    ) -> Result<(), ProgramsError> {
        match queries {
            Some(socket) => self.resolvers.insert(pod, socket.as_raw_fd(), 0),
            None => ignore_absent(self.resolvers.remove(&pod)),
        }
        .map_err(map_error(RESOLVERS))?;
        let rules = inherit(options, self.rules.get(&pod, 0).ok());
        self.rules.insert(pod, rules, 0).map_err(map_error(RULES))?;
        self.known.insert(pod, rules);
        Ok(())
    }

    /// Makes a rule hold for a pod, or no longer.
    pub(in crate::capture) fn set(
        &mut self,
        pod: NetnsCookie,
        rule: DatagramRules,
        hold: bool,
    ) -> Result<(), ProgramsError> {
        let Some(known) = self.known.get_mut(&pod) else { return Ok(()) };
        let rules = known.with(rule, hold);
        if *known != rules {
            self.rules.insert(pod, rules, 0).map_err(map_error(RULES))?;
            *known = rules;
        }
        Ok(())
    }

    /// Forgets a pod. Absent parts are no error.
    pub(super) fn forget(&mut self, pod: NetnsCookie) -> Result<(), ProgramsError> {
        self.known.remove(&pod);
        ignore_absent(self.resolvers.remove(&pod)).map_err(map_error(RESOLVERS))?;
        ignore_absent(self.rules.remove(&pod)).map_err(map_error(RULES))
    }
}

/// Returns the rules of a pod by the options, and as far as they leave it open, by what held `before`.
fn inherit(options: DatagramRules, before: Option<DatagramRules>) -> DatagramRules {
    let held = |rule| before.is_some_and(|before| before.has(rule));
    let answered = options.has(DatagramRules::RESOLVE) && held(DatagramRules::ANSWERED);
    let by_policy = options.has(DatagramRules::BY_POLICY);
    let refused = match before {
        Some(_) => held(DatagramRules::REFUSE_RECEIVED),
        None => true,
    };
    let refused = options.has(DatagramRules::REFUSE_RECEIVED) || by_policy && refused;
    options.with(DatagramRules::ANSWERED, answered).with(DatagramRules::REFUSE_RECEIVED, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_options_leave_open_is_as_it_was_and_refused_at_first() {
        const RESOLVE: DatagramRules = DatagramRules::RESOLVE;
        const ANSWERED: DatagramRules = DatagramRules::ANSWERED;
        const REFUSED: DatagramRules = DatagramRules::REFUSE_RECEIVED;
        const BY_POLICY: DatagramRules = DatagramRules::BY_POLICY;
        let none = DatagramRules::default();
        for (options, before, answered, refused) in [
            (none, None, false, false),
            (none, Some(ANSWERED.with(REFUSED, true)), false, false),
            (RESOLVE, None, false, false),
            (RESOLVE, Some(none), false, false),
            (RESOLVE, Some(ANSWERED), true, false),
            (BY_POLICY, None, false, true),
            (BY_POLICY, Some(none), false, false),
            (BY_POLICY, Some(REFUSED), false, true),
            (REFUSED, None, false, true),
            (REFUSED, Some(none), false, true),
        ] {
            let rules = inherit(options, before);
            assert_eq!(rules.has(ANSWERED), answered, "{options:?} {before:?}");
            assert_eq!(rules.has(REFUSED), refused, "{options:?} {before:?}");
            assert!(rules.has(options));
        }
    }
}
