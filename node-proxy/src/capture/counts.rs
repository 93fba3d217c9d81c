//! What became of the connections of each pod, counted in the kernel.

use aya::{
    maps::{MapData, PerCpuHashMap, PerCpuValues},
    util::nr_cpus,
};
use fairlead_ebpf::{Counts, NetnsCookie};

use super::programs::{ProgramsError, ignore_absent, map_error};

/// Name of the map.
pub(super) const COUNTS: &str = "COUNTS";

/// Fails if there is an entry already (`BPF_NOEXIST`).
const ABSENT_ONLY: u64 = 1;

/// The counts, one entry a pod. An entry lives as long as the pod is captured: restarts change
/// nothing about it.
pub(super) struct PodCounts(PerCpuHashMap<MapData, NetnsCookie, Counts>);

// === impl PodCounts ===

impl PodCounts {
    pub(super) fn new(map: PerCpuHashMap<MapData, NetnsCookie, Counts>) -> Self {
        Self(map)
    }

    /// Starts to count for a pod, unless that has begun.
    pub(super) fn begin(&mut self, pod: NetnsCookie) -> Result<(), ProgramsError> {
        if self.0.get(&pod, 0).is_ok() {
            return Ok(());
        }
        let processors = nr_cpus()
            .map_err(|(_, cause)| ProgramsError::Io { what: "counting the processors", cause })?;
        let none = PerCpuValues::try_from(vec![Counts::default(); processors])
            .map_err(|cause| ProgramsError::Io { what: "counting the processors", cause })?;
        self.0.insert(pod, none, ABSENT_ONLY).map_err(map_error(COUNTS))
    }

    /// Stops counting for a pod and forgets what was counted.
    pub(super) fn end(&mut self, pod: NetnsCookie) -> Result<(), ProgramsError> {
        ignore_absent(self.0.remove(&pod)).map_err(map_error(COUNTS))
    }

    /// Returns the sums over all processors; zero if nothing is known of the pod.
    pub(super) fn of(&self, pod: NetnsCookie) -> Counts {
        let mut sum = Counts::default();
        let Ok(values) = self.0.get(&pod, 0) else { return sum };
        for one in values.iter() {
            for (total, count) in sum.0.iter_mut().zip(one.0) {
                *total = total.wrapping_add(count);
            }
        }
        sum
    }
}
