//! The control plane's view of this node's pods. Pure.
//!
//! There is no cluster to ask where a pod's network is: operators name pods
//! (`fairlead-node pod add`), and the control plane says which of them take part.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use mesh_api::{
    proto::workload::{TunnelProtocol, Workload},
    xds_client::{Change, Event, Interest, Subscription, Update},
};
use prost::Message as _;

use super::wanted::{Authority, Fate, Mark, Wanted};
use crate::api::{PodKey, PodSpec};

/// Type of workloads alone, without services.
const WORKLOAD_TYPE: &str = "type.googleapis.com/istio.workload.Workload";

/// What is kept of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hosted {
    node: Box<str>,
    service_account: Box<str>,
    takes_part: bool,
}

/// The workloads of this node.
#[derive(Debug)]
pub(super) struct View {
    node: Box<str>,
    cluster: Box<str>,
    workloads: HashMap<Arc<str>, Hosted>,
    synced: bool,
    connected: bool,
}

/// Returns what the agent asks the control plane for.
pub(super) fn subscription() -> Subscription<Hosted> {
    Subscription { type_url: WORKLOAD_TYPE, interest: Interest::Everything, read: read_workload }
}

fn read_workload(name: &str, content: &[u8]) -> Result<Hosted, String> {
    let workload = Workload::decode(content).map_err(|error| error.to_string())?;
    if workload.uid != name {
        return Err("has another uid than its name".to_owned());
    }
    let takes_part = workload.tunnel_protocol() == TunnelProtocol::Hbone;
    Ok(Hosted {
        node: workload.node.into(),
        service_account: workload.service_account.into(),
        takes_part,
    })
}

// === impl View ===

impl View {
    /// Starts without anything known of the pods of `node`, which is of `cluster`.
    pub(super) fn of(node: &str, cluster: &str) -> Self {
        let (node, cluster) = (node.into(), cluster.into());
        Self { node, cluster, workloads: HashMap::new(), synced: false, connected: false }
    }

    fn apply(&mut self, update: Update<Hosted>) {
        for change in update.changes {
            match change {
                Change::Updated(name, hosted) if hosted.node == self.node => {
                    self.workloads.insert(name, hosted);
                }
                // It may have been on this node before.
                Change::Updated(name, _) | Change::Removed(name) => {
                    self.workloads.remove(&name);
                }
            }
        }
        for rejection in update.rejections {
            tracing::warn!(%rejection, "refused a workload; others are not affected");
        }
        self.synced |= update.synced;
    }

    fn fate(&self, spec: &PodSpec) -> Fate {
        let uid = format!("{}//Pod/{}", self.cluster, spec.key());
        let out = |reason: String| Fate::Out { reason };
        let Some(hosted) = self.workloads.get(uid.as_str()) else {
            return out(format!(
                "the control plane knows no pod {} with an address on node {}: describe it there",
                spec.key(),
                self.node
            ));
        };
        if *hosted.service_account != *spec.service_account.as_str() {
            return out(format!(
                "it was added with the service account {}, but has {} by the control plane: remove \
                 it and add it with that",
                spec.service_account,
                hosted.service_account.escape_debug()
            ));
        }
        if !hosted.takes_part {
            return out("it is not opted in: label it or its namespace \
                        istio.io/dataplane-mode=ambient"
                .to_owned());
        }
        Fate::In(spec.clone())
    }
}

impl Authority for View {
    type Event = Event<Hosted>;

    fn take(&mut self, event: Event<Hosted>) {
        match event {
            Event::Connected => {
                self.connected = true;
                tracing::info!("connected to the control plane");
            }
            Event::Update(update) => self.apply(update),
            // Once a loss: attempts come faster than anyone reads.
            Event::Disconnected(end) if self.connected => {
                self.connected = false;
                tracing::warn!(reason = %end, "lost the control plane; enrolled pods stay so");
            }
            Event::Disconnected(end) => {
                tracing::info!(reason = %end, "cannot reach the control plane");
            }
        }
    }

    fn wanted(&self, registered: &[PodSpec]) -> Option<Wanted> {
        let fate = |spec: &PodSpec| (spec.key(), self.fate(spec));
        let pods = registered.iter().map(fate).collect();
        self.synced.then(|| Wanted { pods, marks: BTreeMap::new() })
    }

    fn marked(&mut self, _: &PodKey, _: Mark) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const CART: &str = "c1//Pod/shop/cart";

    fn spec() -> PodSpec {
        PodSpec {
            uid: None,
            namespace: "shop".parse().unwrap(),
            name: "cart".parse().unwrap(),
            service_account: "cart".parse().unwrap(),
            netns: Some("/run/netns/cart".into()),
            addresses: Vec::new(),
        }
    }

    fn hosted(node: &str, service_account: &str, takes_part: bool) -> Hosted {
        Hosted { node: node.into(), service_account: service_account.into(), takes_part }
    }

    fn update(changes: Vec<Change<Hosted>>) -> Event<Hosted> {
        let (rejections, bytes) = (Vec::new(), 0);
        let update = Update { type_url: WORKLOAD_TYPE, changes, rejections, bytes, synced: true };
        Event::Update(update)
    }

    #[test]
    fn a_registered_pod_is_in_while_the_control_plane_says_so_and_else_told_why_not() {
        let uid: Arc<str> = CART.into();
        let with = |hosted| Change::Updated(uid.clone(), hosted);
        let other: Arc<str> = "c2//Pod/shop/cart".into();
        let mut view = View::of("n1", "c1");
        assert_eq!(view.wanted(&[spec()]), None, "nothing is known yet");
        for (change, expected) in [
            (Change::Removed("x".into()), Err("knows no pod shop/cart")),
            (Change::Updated(other, hosted("n1", "cart", true)), Err("knows no pod shop/cart")),
            (with(hosted("n1", "cart", false)), Err("istio.io/dataplane-mode=ambient")),
            (with(hosted("n1", "cart", true)), Ok(())),
            (with(hosted("n1", "till", true)), Err("has till by the control plane")),
            (with(hosted("n1", "cart", true)), Ok(())),
            (with(hosted("n2", "cart", true)), Err("on node n1")),
            (with(hosted("n1", "cart", true)), Ok(())),
            (Change::Removed(uid.clone()), Err("knows no pod shop/cart")),
        ] {
            let step = format!("{change:?}");
            view.take(update(vec![change]));
            let wanted = view.wanted(&[spec()]).unwrap().pods;
            match (&wanted[&spec().key()], expected) {
                (Fate::In(found), Ok(())) => assert_eq!(*found, spec(), "{step}"),
                (Fate::Out { reason }, Err(part)) => {
                    assert!(reason.contains(part), "{step}: {reason}");
                }
                (fate, _) => panic!("{step}: {fate:?}"),
            }
        }
        assert_eq!(view.wanted(&[]).unwrap(), Wanted::default());
    }

    #[test]
    fn what_is_known_stays_while_the_control_plane_is_away() {
        let mut view = View::of("n1", "c1");
        view.take(Event::Connected);
        view.take(update(vec![Change::Updated(CART.into(), hosted("n1", "cart", true))]));
        let before = view.wanted(&[spec()]);
        view.take(Event::Disconnected(mesh_api::xds_client::StreamEnd::Complete));
        assert!(before.is_some());
        assert_eq!(view.wanted(&[spec()]), before);
    }

    #[test]
    fn a_workload_is_read_as_far_as_it_matters() {
        let mut workload = Workload {
            uid: CART.to_owned(),
            node: "n1".to_owned(),
            service_account: "cart".to_owned(),
            native_tunnel: true,
            ..Workload::default()
        };
        let read = |workload: &Workload| read_workload(CART, &workload.encode_to_vec());
        assert_eq!(read(&workload), Ok(hosted("n1", "cart", false)));
        workload.set_tunnel_protocol(TunnelProtocol::Hbone);
        assert_eq!(read(&workload), Ok(hosted("n1", "cart", true)));
        workload.uid.push('x');
        assert!(read(&workload).is_err());
        assert!(read_workload(CART, &[0xff]).is_err());
    }
}
