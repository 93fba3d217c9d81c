//! Which endpoints are preferred for where they are.

use std::{cmp::Reverse, sync::Arc};

use mesh_api::{proto::l7, workload::Locality};

use super::compile::{InvalidPolicy, Problem};

/// Which endpoints are preferred for where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalityPolicy {
    /// None.
    Off,
    /// Localities get shares; the first entry for the own one counts.
    Distribute(Vec<Distribution>),
    /// The nearest, and others as far as those do not suffice; only with outlier detection.
    Failover {
        /// Regions that come before others once the own one does not suffice.
        regions: Vec<RegionFailover>,
        /// What endpoints should have in common with the waypoint, most important first.
        labels: Vec<PreferredLabel>,
    },
}

/// How traffic from some localities is shared among localities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Where it comes from.
    pub from: LocalityPattern,
    /// Where it goes to, the most specific first.
    pub to: Vec<(LocalityPattern, u32)>,
}

/// Some localities: `region/zone/subzone`, of which the latter may be left out or be `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalityPattern {
    /// `None` for any.
    region: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    subzone: Option<Arc<str>>,
}

/// Where traffic of a region goes if that does not suffice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionFailover {
    /// The region.
    pub from: Arc<str>,
    /// The one that comes before others.
    pub to: Arc<str>,
}

/// A label that endpoints should have in common with the waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreferredLabel {
    /// Its key.
    pub key: Arc<str>,
    /// The value that endpoints should have, in place of the waypoint's own.
    pub value: Option<Arc<str>>,
}

// === impl LocalityPolicy ===

impl LocalityPolicy {
    pub(super) fn compile(preference: &l7::LocalityPreference) -> Result<Self, InvalidPolicy> {
        const DISTRIBUTE: &str = "load_balancer.locality.distribute";
        if preference.disabled {
            return Ok(Self::Off);
        }
        let l7::LocalityPreference { distribute, failover, failover_priority, .. } = preference;
        if distribute.is_empty() {
            return Ok(Self::Failover {
                regions: failover.iter().map(RegionFailover::new).collect(),
                labels: failover_priority.iter().map(|label| PreferredLabel::new(label)).collect(),
            });
        }
        if !failover.is_empty() || !failover_priority.is_empty() {
            return Err(InvalidPolicy { field: DISTRIBUTE, problem: Problem::BesideOthers });
        }
        Ok(Self::Distribute(distribute.iter().map(Distribution::new).collect()))
    }
}

// === impl Distribution ===

impl Distribution {
    fn new(share: &l7::LocalityShare) -> Self {
        let to = share.to.iter().map(|(to, weight)| (LocalityPattern::new(to), *weight));
        let mut to: Vec<_> = to.filter(|(_, weight)| *weight > 0).collect();
        to.sort_by_key(|(pattern, _)| Reverse(pattern.specificity()));
        Self { from: LocalityPattern::new(&share.from), to }
    }
}

// === impl LocalityPattern ===

impl LocalityPattern {
    /// Parses a pattern; every string is one.
    pub fn new(pattern: &str) -> Self {
        let mut segments = pattern.splitn(3, '/').map(|segment| match segment {
            "" | "*" => None,
            name => Some(Arc::from(name)),
        });
        let mut next = || segments.next().flatten();
        Self { region: next(), zone: next(), subzone: next() }
    }

    /// Returns whether it is one of these localities.
    pub fn matches(&self, locality: &Locality) -> bool {
        let is = |wanted: &Option<Arc<str>>, name: &Arc<str>| {
            wanted.as_ref().is_none_or(|wanted| wanted == name)
        };
        is(&self.region, &locality.region)
            && is(&self.zone, &locality.zone)
            && is(&self.subzone, &locality.subzone)
    }

    fn specificity(&self) -> usize {
        [&self.region, &self.zone, &self.subzone].into_iter().flatten().count()
    }
}

// === impl RegionFailover ===

impl RegionFailover {
    fn new(failover: &l7::RegionFailover) -> Self {
        Self { from: failover.from.as_str().into(), to: failover.to.as_str().into() }
    }
}

// === impl PreferredLabel ===

impl PreferredLabel {
    fn new(label: &str) -> Self {
        match label.split_once('=') {
            Some((key, value)) => Self { key: key.into(), value: Some(value.into()) },
            None => Self { key: label.into(), value: None },
        }
    }
}
