//! Whether a query is answered here.

use std::sync::Arc;

use mesh_api::workload::Workload;
use rand::seq::SliceRandom as _;

use crate::{
    dns::{Question, Request},
    proxy::{node::Node, pod::Pod},
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
    answer(question, named.addresses(), named.alias_of, limit)
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

fn answer(
    question: &Question,
    mut addresses: Vec<std::net::IpAddr>,
    alias_of: Option<&str>,
    limit: usize,
) -> Decision {
    // Clients tend to take the first.
    addresses.shuffle(&mut rand::rng());
    match question.answer(&addresses, alias_of, limit) {
        Ok(answer) => Decision::Answer(answer),
        Err(error) => {
            tracing::debug!(target: LOG, %error, "an answer cannot be written; passed on");
            Decision::PassOn { known: false }
        }
    }
}
