//! The header that describes a workload to peers that do not know it.

use std::{fmt::Write as _, sync::Arc};

use http::{HeaderMap, HeaderValue};
use mesh_api::{
    identity::Identity,
    workload::{
        Health, Locality, Network, NetworkMode, NodeName, TunnelProtocol, Workload, WorkloadType,
        WorkloadUid,
    },
};

use super::{BAGGAGE, readable};
use crate::limits::MAX_BAGGAGE_BYTES;

/// Keys of the entries but for the owner's.
const CLUSTER: &str = "k8s.cluster.name";
const NAMESPACE: &str = "k8s.namespace.name";
const SERVICE: &str = "service.name";
const REVISION: &str = "service.version";
const REGION: &str = "cloud.region";
const ZONE: &str = "cloud.availability_zone";

/// Keys of the entry that names the owner.
const OWNERS: [(&str, WorkloadType); 4] = [
    ("k8s.deployment.name", WorkloadType::Deployment),
    ("k8s.cronjob.name", WorkloadType::CronJob),
    ("k8s.pod.name", WorkloadType::Pod),
    ("k8s.job.name", WorkloadType::Job),
];

/// What a peer says of its workload, for telemetry alone: any peer may write anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baggage {
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// Kind of the owner, and its name.
    pub owner: Option<(WorkloadType, Arc<str>)>,
    /// Canonical service name.
    pub service: Arc<str>,
    /// Canonical revision.
    pub revision: Arc<str>,
    /// Region of the node.
    pub region: Arc<str>,
    /// Zone of the node.
    pub zone: Arc<str>,
}

/// Describes a workload; nothing is percent-encoded, as peers expect. What is empty is left out, and
/// so is what a peer could take for more than a value.
pub(super) fn baggage(workload: &Workload) -> String {
    let owner = match workload.workload_type {
        WorkloadType::Deployment => "k8s.deployment.name",
        WorkloadType::CronJob => "k8s.cronjob.name",
        WorkloadType::Pod => "k8s.pod.name",
        WorkloadType::Job => "k8s.job.name",
    };
    let entries: [(&str, &str); 7] = [
        (CLUSTER, &workload.cluster_id),
        (NAMESPACE, workload.namespace().as_str()),
        (owner, &workload.workload_name),
        (SERVICE, &workload.canonical_name),
        (REVISION, &workload.canonical_revision),
        (REGION, &workload.locality.region),
        (ZONE, &workload.locality.zone),
    ];
    let mut baggage = String::with_capacity(192);
    for (key, value) in entries.iter().filter(|(_, value)| is_value(value)) {
        let comma = if baggage.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(baggage, "{comma}{key}={value}");
    }
    baggage
}

/// W3C baggage section 3.3.1: visible ASCII without separators.
fn is_value(value: &str) -> bool {
    let separates = |c: u8| matches!(c, b'"' | b',' | b';' | b'\\');
    !value.is_empty() && value.bytes().all(|c| c.is_ascii_graphic() && !separates(c))
}

// === impl Baggage ===

impl Baggage {
    /// Reads what a peer says of its workload; what is malformed or unknown is left out, and so is the
    /// namespace, which its certificate says.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut baggage = Self::default();
        let texts = headers.get_all(BAGGAGE).iter().filter_map(Self::readable);
        for (key, value) in texts.flat_map(|text| text.split(',')).filter_map(entry) {
            baggage.set(key, value);
        }
        baggage
    }

    /// Returns the text of a header, unless it is too long or none.
    pub(super) fn readable(value: &HeaderValue) -> Option<&str> {
        readable(value, MAX_BAGGAGE_BYTES)
    }

    /// Returns the workload, of which no more is known than that it is of `identity`.
    pub fn workload(self, identity: Identity, network: Network) -> Workload {
        let (workload_type, workload_name) =
            self.owner.unwrap_or((WorkloadType::Deployment, Arc::default()));
        let name = match workload_type {
            WorkloadType::Pod => workload_name.clone(),
            WorkloadType::Deployment | WorkloadType::CronJob | WorkloadType::Job => Arc::default(),
        };
        Workload {
            uid: WorkloadUid(Arc::default()),
            name,
            identity,
            addresses: Vec::new(),
            hostname: None,
            network,
            network_gateway: None,
            tunnel_protocol: TunnelProtocol::Hbone,
            node: NodeName::default(),
            workload_name,
            workload_type,
            canonical_name: self.service,
            canonical_revision: self.revision,
            cluster_id: self.cluster,
            locality: Locality { region: self.region, zone: self.zone, subzone: Arc::default() },
            services: Default::default(),
            waypoint: None,
            authorization_policies: Vec::new(),
            health: Health::Healthy,
            network_mode: NetworkMode::Standard,
            application_tunnel: None,
            unknown_destinations: None,
            capacity: 0,
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        let place = match key {
            CLUSTER => &mut self.cluster,
            SERVICE => &mut self.service,
            REVISION => &mut self.revision,
            REGION => &mut self.region,
            ZONE => &mut self.zone,
            _ => {
                if let Some((_, owner)) = OWNERS.iter().find(|(owner, _)| *owner == key) {
                    self.owner = Some((*owner, value.into()));
                }
                return;
            }
        };
        *place = value.into();
    }
}

/// Parses an entry of the header.
fn entry(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once('=')?;
    let value = value.trim();
    is_value(value).then_some((key.trim(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Baggage {
        let value = |text: &&str| (BAGGAGE, HeaderValue::from_str(text).unwrap());
        Baggage::parse(&values.iter().map(value).collect())
    }

    #[test]
    fn a_workload_is_known_by_what_it_says_of_itself() {
        let wire = mesh_api::proto::workload::Workload {
            uid: "u".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "front".to_owned(),
            cluster_id: "c1".to_owned(),
            workload_name: "front".to_owned(),
            canonical_name: "web".to_owned(),
            canonical_revision: "v2".to_owned(),
            addresses: vec![vec![10, 0, 0, 1].into()],
            ..Default::default()
        };
        let mut workload = Workload::try_from(wire).unwrap();
        workload.locality.region = "eu".into();
        workload.locality.zone = "eu-1".into();
        for (_, owner) in OWNERS {
            workload.workload_type = owner;
            let known = parse(&[&baggage(&workload)]);
            let known = known.workload(workload.identity.clone(), workload.network.clone());
            assert_eq!(baggage(&known), baggage(&workload));
            assert_eq!(known.name.is_empty(), owner != WorkloadType::Pod);
        }
    }

    #[test]
    fn what_is_malformed_or_unknown_is_left_out() {
        let service = |values: &[&str]| parse(values).service.to_string();
        for values in [
            &["service.name=web"][..],
            &[" service.name = web ,x=y"],
            &["a=b,,=,service.name=web;,service.name=web", "c=d"],
            &["service.name=", "x", "service.name=web"],
        ] {
            assert_eq!(service(values), "web", "{values:?}");
        }
        let long = format!("service.name={}", "x".repeat(MAX_BAGGAGE_BYTES));
        for values in [&[][..], &[""], &["=====,,,,="], &["service.name=a b"], &[&long]] {
            assert_eq!(parse(values), Baggage::default(), "{values:?}");
        }
        assert_eq!(parse(&["k8s.namespace.name=other"]), Baggage::default());
        let no_text = [(BAGGAGE, HeaderValue::from_bytes(b"service.name=\xff").unwrap())];
        assert_eq!(Baggage::parse(&HeaderMap::from_iter(no_text)), Baggage::default());
    }
}
