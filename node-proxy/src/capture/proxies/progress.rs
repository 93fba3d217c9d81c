//! How far a proxy is, by what it was told and what it answered.

use std::collections::HashMap;

use fairlead_ebpf::ProxyProcess;

use crate::link::message::{PodId, PodReport, ToCapture};

/// How far a proxy is.
#[derive(Debug, Default)]
pub(in crate::capture) struct Progress {
    /// Whether it has connected the socket that registers it.
    pub(in crate::capture) registered: bool,
    /// The process, once it is exempt from capture.
    pub(in crate::capture) process: Option<ProxyProcess>,
    /// Whether it serves every pod on record.
    pub(in crate::capture) complete: bool,
    /// Whether it accepts no more connections.
    pub(in crate::capture) draining: bool,
    /// The pods that it has something of.
    pub(in crate::capture) pods: HashMap<PodId, PodProgress>,
    /// Number of the latest question that it has answered.
    pub(in crate::capture) request: u64,
    /// The answer.
    pub(in crate::capture) reports: Vec<PodReport>,
    /// Parts of the next answer.
    parts: Vec<PodReport>,
}

/// How far a proxy is with a pod. One that it has nothing of is not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capture) enum PodProgress {
    /// It was given the pod.
    Given,
    /// It accepts the pod's connections.
    Serving,
    /// It was told to let go of the pod.
    Releasing,
    /// It accepts no more; connections are open.
    Silent,
}

// === impl Progress ===

impl Progress {
    /// Starts with a proxy that serves `pods` already.
    pub(in crate::capture) fn holding(pods: impl Iterator<Item = PodId>, draining: bool) -> Self {
        let pods = pods.map(|pod| (pod, PodProgress::Serving)).collect();
        Self { draining, pods, ..Self::default() }
    }

    /// Notes an answer.
    pub(super) fn hear(&mut self, message: ToCapture) {
        match message {
            ToCapture::Registered => self.registered = true,
            ToCapture::Complete => self.complete = true,
            ToCapture::Serving { pod } => self.advance(pod, PodProgress::Serving),
            ToCapture::Silent { pod } => self.advance(pod, PodProgress::Silent),
            ToCapture::Idle { pod } => drop(self.pods.remove(&pod)),
            ToCapture::Pods { request, pods, last } => {
                self.parts.extend(pods);
                if last {
                    self.reports = std::mem::take(&mut self.parts);
                    self.request = request;
                }
            }
            ToCapture::Hello { .. }
            | ToCapture::Holding { .. }
            | ToCapture::HoldingEndpoints
            | ToCapture::Need { .. }
            | ToCapture::Unknown => {}
        }
    }

    /// Returns whether nothing accepts connections of the pod.
    pub(in crate::capture) fn is_silent(&self, pod: PodId) -> bool {
        matches!(self.pods.get(&pod), None | Some(PodProgress::Silent))
    }

    /// Returns whether no connection of the pod is open.
    pub(in crate::capture) fn is_idle(&self, pod: PodId) -> bool {
        !self.pods.contains_key(&pod)
    }

    /// A late answer to an earlier message does not undo a later one.
    fn advance(&mut self, pod: PodId, to: PodProgress) {
        if let Some(progress) = self.pods.get_mut(&pod)
            && (*progress as u8) < to as u8
        {
            *progress = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: PodId = PodId { netns: 1, enrolment: 1 };

    #[test]
    fn a_pod_goes_from_given_to_serving_to_silent_to_idle() {
        let mut progress = Progress::default();
        progress.pods.insert(POD, PodProgress::Given);
        assert!(!progress.is_silent(POD));
        progress.hear(ToCapture::Serving { pod: POD });
        assert_eq!(progress.pods[&POD], PodProgress::Serving);
        progress.pods.insert(POD, PodProgress::Releasing);
        progress.hear(ToCapture::Serving { pod: POD });
        assert_eq!(progress.pods[&POD], PodProgress::Releasing, "a late answer");
        progress.hear(ToCapture::Silent { pod: POD });
        assert!(progress.is_silent(POD) && !progress.is_idle(POD));
        progress.hear(ToCapture::Idle { pod: POD });
        assert!(progress.is_silent(POD) && progress.is_idle(POD));
    }

    #[test]
    fn an_answer_about_a_pod_that_was_never_given_changes_nothing() {
        let mut progress = Progress::default();
        progress.hear(ToCapture::Serving { pod: POD });
        progress.hear(ToCapture::Silent { pod: POD });
        assert!(progress.is_idle(POD));
    }

    #[test]
    fn a_description_counts_once_it_is_whole() {
        let report = |connections| PodReport { pod: POD, connections, problem: None };
        let part = |pods, last| ToCapture::Pods { request: 5, pods, last };
        let mut progress = Progress::default();
        progress.hear(part(vec![report(1)], false));
        assert_eq!((progress.request, progress.reports.len()), (0, 0));
        progress.hear(part(vec![report(2)], true));
        assert_eq!(progress.request, 5);
        assert_eq!(progress.reports, [report(1), report(2)]);
    }
}
