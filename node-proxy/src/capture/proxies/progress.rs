//! How far a proxy is, by what it was told and what it answered.

use std::collections::{HashMap, HashSet};

use fairlead_ebpf::ProxyProcess;

use crate::{
    explain::Decision,
    link::message::{
        MAX_PODS_PER_MESSAGE, MAX_PROBLEM_BYTES, PodId, PodReport, ToCapture, printable,
    },
};

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
    /// The pods whose DNS queries it answers.
    resolving: HashSet<PodId>,
    /// Whether datagrams that arrive for pods are refused, as far as it has said so.
    refuses: HashMap<PodId, bool>,
    /// Number of the latest question that it has answered.
    pub(in crate::capture) request: u64,
    /// The answer.
    pub(in crate::capture) reports: Reports,
    /// The connection that is to be explained.
    pub(in crate::capture) explaining: Explaining,
    /// Number of the latest question.
    asked: u64,
    /// Number of the question that is being answered, and what has arrived of the answer.
    parts: (u64, Reports),
}

/// How far the explanation of a connection is.
#[derive(Debug, Default)]
pub(in crate::capture) enum Explaining {
    /// There was no question, or its answer was taken.
    #[default]
    Nothing,
    /// The question with this number was asked.
    Asked(u64),
    /// The answer: of a pod that the proxy does not have, none.
    Told(Option<Box<Decision>>),
}

/// What a proxy says of pods that it has something of.
pub(in crate::capture) type Reports = HashMap<PodId, PodReport>;

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

/// Whether a proxy answers the DNS queries of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::capture) enum Answers {
    /// It does not.
    No,
    /// It serves the pod, and is about to say so of its queries, too.
    Soon,
    /// It does.
    Yes,
}

// === impl Progress ===

impl Progress {
    /// Starts with a proxy that serves `pods` already.
    pub(in crate::capture) fn holding(pods: impl Iterator<Item = PodId>, draining: bool) -> Self {
        let pods = pods.map(|pod| (pod, PodProgress::Serving)).collect();
        Self { draining, pods, ..Self::default() }
    }

    /// Notes that the question with this number is asked.
    pub(super) fn ask(&mut self, request: u64) {
        self.asked = self.asked.max(request);
    }

    /// Notes that a connection is to be explained; an earlier question is forgotten.
    pub(super) fn ask_why(&mut self, request: u64) {
        self.explaining = Explaining::Asked(request);
    }

    /// Notes an answer.
    pub(super) fn hear(&mut self, message: ToCapture) {
        match message {
            ToCapture::Registered => self.registered = true,
            ToCapture::Complete => self.complete = true,
            ToCapture::Serving { pod } => {
                self.advance(pod, PodProgress::Given, PodProgress::Serving);
            }
            ToCapture::Silent { pod } => {
                self.advance(pod, PodProgress::Releasing, PodProgress::Silent);
            }
            ToCapture::Idle { pod } => {
                // While it serves the pod nobody has asked it to let go.
                self.pods.retain(|known, at| *known != pod || *at == PodProgress::Serving);
                self.resolving.retain(|known| self.pods.contains_key(known));
                self.refuses.retain(|known, _| self.pods.contains_key(known));
            }
            ToCapture::Resolving { pod } if self.pods.contains_key(&pod) => {
                self.resolving.insert(pod);
            }
            ToCapture::RefuseDatagrams { pod, refuse } if self.pods.contains_key(&pod) => {
                self.refuses.insert(pod, refuse);
            }
            ToCapture::Pods { request, pods, last } => self.hear_part(request, pods, last),
            ToCapture::Explained { request, decision } => {
                if matches!(self.explaining, Explaining::Asked(number) if number == request) {
                    self.explaining = Explaining::Told(decision);
                }
            }
            ToCapture::Hello { .. }
            | ToCapture::Holding { .. }
            | ToCapture::HoldingEndpoints
            | ToCapture::Need { .. }
            | ToCapture::Quit
            | ToCapture::Resolving { .. }
            | ToCapture::RefuseDatagrams { .. }
            | ToCapture::Unknown => {}
        }
    }

    /// Returns whether the proxy answers the DNS queries of a pod.
    pub(in crate::capture) fn answers_queries(&self, pod: PodId) -> Answers {
        let serves = self.pods.get(&pod) == Some(&PodProgress::Serving);
        if self.draining {
            Answers::No
        } else if self.resolving.contains(&pod) {
            Answers::Yes
        } else if serves {
            Answers::Soon
        } else {
            Answers::No
        }
    }

    /// Returns whether datagrams that arrive for a pod are refused, if the proxy has said so.
    pub(in crate::capture) fn refuses_datagrams(&self, pod: PodId) -> Option<bool> {
        self.refuses.get(&pod).copied().filter(|_| !self.draining)
    }

    /// Returns whether the proxy has not answered yet to being given the pod.
    pub(in crate::capture) fn is_given(&self, pod: PodId) -> bool {
        self.pods.get(&pod) == Some(&PodProgress::Given)
    }

    /// Returns whether nothing accepts connections of the pod.
    pub(in crate::capture) fn is_silent(&self, pod: PodId) -> bool {
        matches!(self.pods.get(&pod), None | Some(PodProgress::Silent))
    }

    /// Returns whether no connection of the pod is open.
    pub(in crate::capture) fn is_idle(&self, pod: PodId) -> bool {
        !self.pods.contains_key(&pod)
    }

    /// Notes a part of an answer, unless nobody waits for it. A proxy may say what it likes, as often
    /// as it likes: of each pod that it has, one report is kept.
    fn hear_part(&mut self, request: u64, pods: Vec<PodReport>, last: bool) {
        let is_awaited = self.request < request && request <= self.asked;
        if !is_awaited || pods.len() > MAX_PODS_PER_MESSAGE {
            return;
        }
        let (answered, mut reports) = std::mem::take(&mut self.parts);
        if answered != request {
            reports.clear();
        }
        let known = pods.into_iter().filter(|report| self.pods.contains_key(&report.pod));
        reports.extend(known.map(|report| {
            // It ends up in a log or on a terminal.
            let problem = report.problem.map(|text| printable(text, MAX_PROBLEM_BYTES));
            (report.pod, PodReport { problem, ..report })
        }));
        if last {
            self.reports = reports;
            self.request = request;
        } else {
            self.parts = (request, reports);
        }
    }

    /// Only the answer to the latest message counts, not a late one to an earlier message.
    fn advance(&mut self, pod: PodId, from: PodProgress, to: PodProgress) {
        if let Some(progress) = self.pods.get_mut(&pod).filter(|progress| **progress == from) {
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
    fn what_a_proxy_says_of_datagrams_counts_while_it_has_the_pod() {
        let mut progress = Progress::default();
        let resolving = ToCapture::Resolving { pod: POD };
        let refuse = |refuse| ToCapture::RefuseDatagrams { pod: POD, refuse };
        progress.hear(resolving.clone());
        progress.hear(refuse(true));
        assert_eq!(progress.answers_queries(POD), Answers::No, "it has not the pod");
        assert_eq!(progress.refuses_datagrams(POD), None);
        progress.pods.insert(POD, PodProgress::Given);
        assert_eq!(progress.answers_queries(POD), Answers::No);
        progress.hear(ToCapture::Serving { pod: POD });
        assert_eq!(progress.answers_queries(POD), Answers::Soon);
        progress.hear(resolving);
        assert_eq!(progress.answers_queries(POD), Answers::Yes);
        for refused in [true, false] {
            progress.hear(refuse(refused));
            assert_eq!(progress.refuses_datagrams(POD), Some(refused));
        }
        progress.draining = true;
        assert_eq!(progress.answers_queries(POD), Answers::No);
        assert_eq!(progress.refuses_datagrams(POD), None);
        progress.draining = false;
        progress.pods.insert(POD, PodProgress::Releasing);
        progress.hear(ToCapture::Idle { pod: POD });
        assert_eq!(progress.answers_queries(POD), Answers::No);
        assert_eq!(progress.refuses_datagrams(POD), None);
    }

    #[test]
    fn only_the_answer_to_the_latest_message_counts() {
        use PodProgress::{Given, Releasing, Serving, Silent};
        for (before, [serving, silent, idle]) in [
            (None, [None, None, None]),
            (Some(Given), [Some(Serving), Some(Given), None]),
            (Some(Serving), [Some(Serving), Some(Serving), Some(Serving)]),
            (Some(Releasing), [Some(Releasing), Some(Silent), None]),
            (Some(Silent), [Some(Silent), Some(Silent), None]),
        ] {
            for (message, after) in [
                (ToCapture::Serving { pod: POD }, serving),
                (ToCapture::Silent { pod: POD }, silent),
                (ToCapture::Idle { pod: POD }, idle),
            ] {
                let mut progress = Progress::default();
                progress.pods.extend(before.map(|before| (POD, before)));
                progress.hear(message.clone());
                assert_eq!(progress.pods.get(&POD).copied(), after, "{before:?} {message:?}");
            }
        }
    }

    #[test]
    fn a_pod_is_refused_once_each_time_it_is_given() {
        let mut progress = Progress::default();
        for _ in 0..2 {
            progress.pods.insert(POD, PodProgress::Given);
            assert!(progress.is_given(POD));
            progress.hear(ToCapture::Idle { pod: POD });
            assert!(!progress.is_given(POD), "another refusal is none");
        }
    }

    fn report(netns: u64, connections: u64) -> PodReport {
        PodReport { pod: PodId { netns, enrolment: 1 }, connections, problem: None }
    }

    /// A proxy with the pods 1 and 2 that was asked question 5.
    fn asked() -> Progress {
        let pods = [1, 2].map(|netns| PodId { netns, enrolment: 1 });
        let mut progress = Progress::holding(pods.into_iter(), false);
        progress.ask(5);
        progress
    }

    fn heard(progress: &Progress) -> (u64, Vec<(u64, u64)>) {
        let reports = progress.reports.values().map(|r| (r.pod.netns, r.connections));
        let mut reports: Vec<_> = reports.collect();
        reports.sort_unstable();
        (progress.request, reports)
    }

    #[test]
    fn a_description_counts_once_it_is_whole() {
        let part = |pods, last| ToCapture::Pods { request: 5, pods, last };
        let mut progress = asked();
        progress.hear(part(vec![report(1, 1)], false));
        assert_eq!(heard(&progress), (0, vec![]));
        progress.hear(part(vec![report(2, 2)], true));
        assert_eq!(heard(&progress), (5, vec![(1, 1), (2, 2)]));
    }

    #[test]
    fn an_answer_to_a_question_that_is_not_open_changes_nothing() {
        let answer = |request| ToCapture::Pods { request, pods: vec![report(1, 1)], last: true };
        let mut progress = asked();
        progress.hear(answer(6));
        assert_eq!(heard(&progress), (0, vec![]), "not asked yet");
        progress.hear(answer(5));
        assert_eq!(heard(&progress), (5, vec![(1, 1)]));
        progress.ask(4);
        progress.hear(ToCapture::Pods { request: 5, pods: vec![report(1, 9)], last: true });
        assert_eq!(heard(&progress), (5, vec![(1, 1)]), "answered already");
    }

    #[test]
    fn the_parts_of_two_answers_do_not_mix() {
        let mut progress = asked();
        progress.hear(ToCapture::Pods { request: 4, pods: vec![report(1, 1)], last: false });
        progress.hear(ToCapture::Pods { request: 5, pods: vec![report(2, 2)], last: true });
        assert_eq!(heard(&progress), (5, vec![(2, 2)]));
    }

    #[test]
    fn an_answer_without_end_takes_no_more_than_a_report_of_each_pod() {
        let mut progress = asked();
        for n in 0..1_000 {
            let problem = Some("x".repeat(2 * MAX_PROBLEM_BYTES));
            let pods = vec![PodReport { problem, ..report(1, n) }, report(3 + n, n)];
            progress.hear(ToCapture::Pods { request: 5, pods, last: false });
        }
        assert_eq!(progress.parts.1.len(), 1);
        progress.hear(ToCapture::Pods { request: 5, pods: vec![], last: true });
        assert_eq!(heard(&progress), (5, vec![(1, 999)]));
        let problem = progress.reports.values().find_map(|r| r.problem.as_ref()).unwrap();
        assert_eq!(problem.capacity(), MAX_PROBLEM_BYTES);
    }

    #[test]
    fn a_message_with_more_pods_than_one_may_have_is_refused() {
        let mut progress = asked();
        let pods = vec![report(1, 1); MAX_PODS_PER_MESSAGE + 1];
        progress.hear(ToCapture::Pods { request: 5, pods, last: true });
        assert_eq!(heard(&progress), (0, vec![]));
    }
}
