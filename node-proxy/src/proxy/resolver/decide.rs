//! Whether a query is answered here.

use std::{net::IpAddr, sync::Arc};

use hickory_proto::ProtoError;
use mesh_api::workload::Workload;
use rand::seq::SliceRandom as _;

use crate::{
    dns::{Question, Request},
    proxy::{node::Node, pod::Pod},
    state::NamedPorts,
    telemetry::metrics::{QueryLabels, QueryProtocol},
};

/// Log target (scope) of queries.
const LOG: &str = "dns";

/// What becomes of a query.
#[derive(Debug)]
pub(super) enum Decision {
    /// It is answered with these bytes.
    Answer(Vec<u8>),
    /// The name server that was asked answers it.
    PassOn {
        /// Whether the mesh knows the name, though nothing of the type that is asked for.
        known: bool,
    },
}

/// Decides about a query; an answer is no longer than `limit`.
pub(super) fn decide(node: &Node, pod: &Pod, request: &Request, limit: usize) -> Decision {
    let (Request::Question(question), Some(naming)) = (request, &node.options.naming) else {
        return Decision::PassOn { known: false };
    };
    let name = question.name();
    let state = node.state();
    if let Some(named) = state.resolve_ports(&name, &pod.identity.namespace, naming) {
        tracing::debug!(target: LOG, pod = %pod.name, name, kind = request.kind(), "has ports");
        return ports(question, &named, limit);
    }
    let Some(named) = state.resolve(&name, &pod.identity.namespace, naming) else {
        tracing::debug!(target: LOG, pod = %pod.name, name, kind = request.kind(), "passed on");
        return Decision::PassOn { known: false };
    };
    let Some(family) = question.addresses() else {
        tracing::debug!(target: LOG, pod = %pod.name, name, kind = request.kind(), "passed on");
        return Decision::PassOn { known: true };
    };
    let service = &named.service().key;
    tracing::debug!(target: LOG, pod = %pod.name, name, ?family, %service, "answered");
    written(question.answer(&shuffled(named.addresses()), named.alias_of, limit))
}

/// Labels a query for the metrics.
pub(super) fn labels(
    node: &Node,
    pod: &Pod,
    request: &Request,
    protocol: QueryProtocol,
) -> QueryLabels {
    let local = node.state().local_workload(&pod.name, &pod.identity);
    let source: Option<Arc<Workload>> = local.map(|local| local.workload);
    QueryLabels::new(request.kind(), protocol, source.as_deref())
}

/// Decides about a query for the name of a port, which exists and has no addresses.
fn ports(question: &Question, named: &NamedPorts<'_>, limit: usize) -> Decision {
    let NamedPorts { host, target, ports, alias_of } = named;
    if question.is_for_ports() && !ports.is_empty() {
        let addresses = shuffled(host.addresses());
        return written(question.answer_ports(ports, target, &addresses, *alias_of, limit));
    }
    if question.is_for_ports() || question.addresses().is_some() {
        return written(question.answer(&[], *alias_of, limit));
    }
    Decision::PassOn { known: true }
}

/// Clients tend to take the first.
fn shuffled(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.shuffle(&mut rand::rng());
    addresses
}

fn written(answer: Result<Vec<u8>, ProtoError>) -> Decision {
    match answer {
        Ok(answer) => Decision::Answer(answer),
        Err(error) => {
            tracing::debug!(target: LOG, %error, "an answer cannot be written; passed on");
            Decision::PassOn { known: false }
        }
    }
}
