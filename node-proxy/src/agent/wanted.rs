//! What is to become of the pods of this node.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::api::{PodKey, PodSpec};

/// What those who are asked say of the pods, altogether. A pod that is not named is not to be
/// enrolled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The pods.
    pub(super) pods: BTreeMap<PodKey, Fate>,
    /// What is reported of pods at present, where it is reported.
    pub(super) marks: BTreeMap<PodKey, Mark>,
}

/// What is to become of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It takes part.
    In(PodSpec),
    /// It takes part, but cannot be enrolled as it is; if it is enrolled already it stays so.
    Later {
        /// Its unique id.
        uid: String,
        /// Why.
        reason: String,
    },
    /// It does not take part.
    Out {
        /// Why, and what to do.
        reason: String,
    },
}

/// What is reported of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Unique id of the pod.
    pub(super) uid: String,
    /// What is reported.
    pub(super) value: Option<Redirection>,
}

/// Value of the annotation by which a node agent reports that it captures a pod's traffic, as
/// Istio's does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redirection {
    /// The pod's connections are captured and carried.
    Enabled,
    /// They are to be, and are not yet.
    Pending,
}

/// What those who are asked have said so far.
pub(super) trait Authority {
    /// What they say.
    type Event;

    /// Takes what they say.
    fn take(&mut self, event: Self::Event);

    /// Returns what they want; nothing before they have said everything once. `registered` are the
    /// pods that operators have named.
    fn wanted(&self, registered: &[PodSpec]) -> Option<Wanted>;

    /// Notes what was reported of a pod.
    fn marked(&mut self, pod: &PodKey, mark: Mark);
}

// === impl Redirection ===

impl fmt::Display for Redirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Pending => "pending",
        })
    }
}

impl FromStr for Redirection {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "enabled" => Ok(Self::Enabled),
            "pending" => Ok(Self::Pending),
            _ => Err(()),
        }
    }
}
