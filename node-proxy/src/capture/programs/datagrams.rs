//! What the programs know of the datagrams of pods.

use std::{
    collections::HashMap as Memory,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, PerCpuHashMap, PerCpuValues, SockHash},
    util::nr_cpus,
};
use fairlead_ebpf::{
    NetnsCookie,
    datagrams::{DatagramCounts, DatagramRules},
};

use super::{ProgramsError, ignore_absent, map_error, take_map};

/// Names of the maps.
pub(super) const MAPS: [&str; 4] = [RULES, COUNTS, RESOLVERS, "ASKED"];

const RULES: &str = "DATAGRAM_RULES";
const COUNTS: &str = "DATAGRAM_COUNTS";
const RESOLVERS: &str = "RESOLVERS";

/// The maps that say what becomes of datagrams, and what became of them.
pub(in crate::capture) struct Datagrams {
    rules: HashMap<MapData, NetnsCookie, DatagramRules>,
    counts: PerCpuHashMap<MapData, NetnsCookie, DatagramCounts>,
    resolvers: SockHash<MapData, NetnsCookie>,
    /// What this process has put into the first and the last.
    set: Memory<NetnsCookie, Set>,
}

#[derive(Clone, Copy, Default)]
struct Set {
    rules: DatagramRules,
    is_led: bool,
}

// === impl Datagrams ===

impl Datagrams {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, ProgramsError> {
        Ok(Self {
            rules: take_map(object, RULES)?,
            counts: take_map(object, COUNTS)?,
            resolvers: take_map(object, RESOLVERS)?,
            set: Memory::new(),
        })
    }

    /// Sets what becomes of the datagrams of a pod; they are counted from then on. What policy says
    /// is as a predecessor was told, and to refuse without one.
    pub(in crate::capture) fn rule(
        &mut self,
        pod: NetnsCookie,
        options: DatagramRules,
    ) -> Result<(), ProgramsError> {
        if self.counts.get(&pod, 0).is_err() {
            let none = vec![DatagramCounts::default(); processors()?];
            let none = PerCpuValues::try_from(none).map_err(io_error)?;
            self.counts.insert(pod, none, 0).map_err(map_error(COUNTS))?;
        }
        let before = self.rules.get(&pod, 0).ok();
        let admits = before.is_some_and(|rules| !rules.has(DatagramRules::REFUSE_RECEIVED));
        let refused = options.has(DatagramRules::BY_POLICY) && !admits;
        let refused = refused || options.has(DatagramRules::REFUSE_RECEIVED);
        let rules = options.with(DatagramRules::REFUSE_RECEIVED, refused);
        self.rules.insert(pod, rules, 0).map_err(map_error(RULES))?;
        // Not by this process's sockets; unknown until it is set.
        self.set.insert(pod, Set { rules, is_led: true });
        self.lead_queries(pod, None)
    }

    /// Leads the DNS queries of a pod to `socket`, or to the name servers without one. A pod keeps
    /// its socket.
    pub(in crate::capture) fn lead_queries(
        &mut self,
        pod: NetnsCookie,
        socket: Option<BorrowedFd<'_>>,
    ) -> Result<(), ProgramsError> {
        let Some(set) = self.set.get_mut(&pod).filter(|set| set.is_led != socket.is_some()) else {
            return Ok(());
        };
        match socket {
            Some(socket) => self.resolvers.insert(pod, socket.as_raw_fd(), 0),
            None => ignore_absent(self.resolvers.remove(&pod)),
        }
        .map_err(map_error(RESOLVERS))?;
        set.is_led = socket.is_some();
        Ok(())
    }

    /// Refuses the datagrams that arrive for a pod, but for answers; or no longer.
    pub(in crate::capture) fn refuse_received(
        &mut self,
        pod: NetnsCookie,
        refuse: bool,
    ) -> Result<(), ProgramsError> {
        let Some(set) = self.set.get_mut(&pod) else { return Ok(()) };
        let rules = set.rules.with(DatagramRules::REFUSE_RECEIVED, refuse);
        if set.rules != rules {
            self.rules.insert(pod, rules, 0).map_err(map_error(RULES))?;
            set.rules = rules;
        }
        Ok(())
    }

    /// Returns what became of the datagrams of a pod.
    pub(in crate::capture) fn counts(
        &self,
        pod: NetnsCookie,
    ) -> Result<DatagramCounts, ProgramsError> {
        let counts = self.counts.get(&pod, 0).map_err(map_error(COUNTS))?;
        let sum = |total: DatagramCounts, part: &DatagramCounts| DatagramCounts {
            resolved: total.resolved + part.resolved,
            sent: total.sent + part.sent,
            sent_refused: total.sent_refused + part.sent_refused,
            received: total.received + part.received,
            received_refused: total.received_refused + part.received_refused,
        };
        Ok(counts.iter().fold(DatagramCounts::default(), sum))
    }

    /// Forgets a pod. Absent parts are no error.
    pub(super) fn forget(&mut self, pod: NetnsCookie) -> Result<(), ProgramsError> {
        self.set.remove(&pod);
        ignore_absent(self.resolvers.remove(&pod)).map_err(map_error(RESOLVERS))?;
        ignore_absent(self.rules.remove(&pod)).map_err(map_error(RULES))?;
        ignore_absent(self.counts.remove(&pod)).map_err(map_error(COUNTS))
    }
}

fn processors() -> Result<usize, ProgramsError> {
    nr_cpus().map_err(|(_, cause)| io_error(cause))
}

fn io_error(cause: std::io::Error) -> ProgramsError {
    ProgramsError::Io { what: "counting the processors", cause }
}
