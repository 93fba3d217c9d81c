//! What the agent does next. Decides only: it asks and changes nothing.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use mesh_api::xds_client::Backoff;

use super::wanted::{Fate, Mark, Redirection, Wanted};
use crate::api::{Note, Origin, PodKey, PodSpec, PodState, PodStatus};

/// Pods as capture has them.
pub(super) type Pods = BTreeMap<PodKey, PodStatus>;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Have capture enrol a pod.
    Enrol(PodSpec),
    /// Have capture release a pod.
    Release(PodKey),
    /// Report what a pod's traffic goes through.
    Mark(PodKey, Mark),
}

/// What is being done and what is to be tried again.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What capture is asked for, and what is reported: neither waits for the other.
    capture: Lane,
    marks: Lane,
}

/// Actions on pods, one a pod at a time.
#[derive(Debug, Default)]
struct Lane(BTreeMap<PodKey, Attempt>);

#[derive(Debug)]
struct Attempt {
    action: Action,
    /// When it is tried again; it is under way if there is no time.
    again_at: Option<Instant>,
    backoff: Backoff,
    error: Option<String>,
}

// === impl Plan ===

impl Plan {
    /// Returns what to do at `now`. Each action is to be reported to [`Self::done`].
    pub(super) fn next(&mut self, now: Instant, wanted: &Wanted, pods: &Pods) -> Vec<Action> {
        let keys = wanted.pods.keys().chain(pods.keys());
        let due = keys.filter_map(|pod| {
            let action = change(pod, wanted.pods.get(pod), pods.get(pod))?;
            Some((pod.clone(), action))
        });
        let mut actions = self.capture.start(due.collect(), now);
        let due = wanted.marks.iter().filter_map(|(pod, mark)| {
            let failed = self.capture.error(pod).is_some();
            let value = redirection(wanted.pods.get(pod), pods.get(pod), mark, failed);
            let action = Action::Mark(pod.clone(), Mark { uid: mark.uid.clone(), value });
            (value != mark.value).then(|| (pod.clone(), action))
        });
        actions.extend(self.marks.start(due.collect(), now));
        actions
    }

    /// Notes how an action ended; `chance` is a random number from 0 to 1. Returns whether it is
    /// worth a word: the same failure again is not.
    pub(super) fn done(
        &mut self,
        action: &Action,
        result: Result<(), String>,
        now: Instant,
        chance: f64,
    ) -> bool {
        match action {
            Action::Enrol(spec) => self.capture.end(&spec.key(), result, now, chance),
            Action::Release(pod) => self.capture.end(pod, result, now, chance),
            Action::Mark(pod, _) => self.marks.end(pod, result, now, chance),
        }
    }

    /// Returns when something is to be tried again.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let attempts = self.capture.0.values().chain(self.marks.0.values());
        attempts.filter_map(|attempt| attempt.again_at).min()
    }

    /// Returns what is to be said of the pods that are not captured.
    pub(super) fn notes(&self, wanted: &Wanted) -> Vec<Note> {
        let note = |pod: &PodKey, waiting, reason: &str| {
            let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
            Note { namespace, name, waiting, reason: reason.to_owned() }
        };
        let notes = wanted.pods.iter().filter_map(|(pod, fate)| match fate {
            Fate::In(_) => self.capture.error(pod).map(|error| note(pod, true, error)),
            Fate::Later { reason, .. } => Some(note(pod, true, reason)),
            Fate::Out { reason } => Some(note(pod, false, reason)),
        });
        notes.collect()
    }
}

/// Returns what to ask of capture. Pods that operators have enrolled are theirs.
fn change(pod: &PodKey, fate: Option<&Fate>, status: Option<&PodStatus>) -> Option<Action> {
    let captured = status.filter(|status| status.state.is_captured());
    let own = captured.filter(|status| status.origin == Origin::Agent);
    let release = || Some(Action::Release(pod.clone()));
    match fate {
        Some(Fate::In(spec)) => match (captured, own) {
            // An enrolment whose record cannot be read is mended by another one.
            (None, _) => Some(Action::Enrol(spec.clone())),
            (Some(status), _) if status.service_account.is_none() => {
                Some(Action::Enrol(spec.clone()))
            }
            (_, Some(own)) if !is_same(own, spec) => release(),
            (Some(_), _) => None,
        },
        Some(Fate::Later { uid, .. }) => own.and_then(|own| {
            let is_same = own.uid.as_ref() == Some(uid);
            if is_same { None } else { release() }
        }),
        Some(Fate::Out { .. }) | None => own.and_then(|_| release()),
    }
}

/// Whether an enrolment is that of the pod that is wanted, and not of one with the same name.
fn is_same(status: &PodStatus, spec: &PodSpec) -> bool {
    status.uid == spec.uid && status.service_account.as_ref() == Some(&spec.service_account)
}

/// Returns what is to be reported of a pod.
///
/// What is reported as enabled stays so while the pod is captured: else its peers would speak
/// plaintext to it as soon as a proxy is replaced.
fn redirection(
    fate: Option<&Fate>,
    status: Option<&PodStatus>,
    mark: &Mark,
    failed: bool,
) -> Option<Redirection> {
    let is_same = |status: &&PodStatus| match status.origin {
        Origin::Agent => status.uid.as_ref() == Some(&mark.uid),
        Origin::Operator => true,
    };
    let state = status.filter(is_same).map(|status| status.state);
    match fate {
        None | Some(Fate::Out { .. }) => None,
        Some(Fate::In(_) | Fate::Later { .. }) => match state {
            Some(PodState::Ready) => Some(Redirection::Enabled),
            Some(PodState::Pending) => mark.value.or(Some(Redirection::Pending)),
            Some(PodState::Out | PodState::Waiting | PodState::Draining) | None if failed => {
                Some(Redirection::Pending)
            }
            Some(PodState::Out | PodState::Waiting | PodState::Draining) | None => mark.value,
        },
    }
}

// === impl Lane ===

impl Lane {
    /// Returns those of the actions that are due which are to begin now. What is no longer due is
    /// not tried again.
    fn start(&mut self, due: BTreeMap<PodKey, Action>, now: Instant) -> Vec<Action> {
        self.0.retain(|pod, attempt| {
            attempt.again_at.is_none() || due.get(pod) == Some(&attempt.action)
        });
        let mut actions = Vec::new();
        for (pod, action) in due {
            let attempt = self.0.entry(pod).or_insert_with(|| Attempt {
                action: action.clone(),
                again_at: Some(now),
                backoff: Backoff::default(),
                error: None,
            });
            if attempt.again_at.is_some_and(|at| at <= now) {
                attempt.again_at = None;
                actions.push(action);
            }
        }
        actions
    }

    fn end(&mut self, pod: &PodKey, result: Result<(), String>, now: Instant, chance: f64) -> bool {
        let Err(error) = result else {
            self.0.remove(pod);
            return true;
        };
        let Some(attempt) = self.0.get_mut(pod) else { return true };
        attempt.again_at = Some(now + attempt.backoff.after(Duration::ZERO, chance));
        let is_news = attempt.error.as_ref() != Some(&error);
        attempt.error = Some(error);
        is_news
    }

    fn error(&self, pod: &PodKey) -> Option<&str> {
        self.0.get(pod).and_then(|attempt| attempt.error.as_deref())
    }
}
