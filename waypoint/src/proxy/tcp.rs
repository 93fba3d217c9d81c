//! Connections whose protocol is not looked at.

use std::{num::NonZeroU16, rc::Rc, time::Instant};

use super::{
    idle::{Passed, pass},
    inbound::{Connection, Io},
    upstream::{Opening, UpstreamError, Version, Wanted},
    watched::Watched,
};
use crate::{
    balance::{Context, Outcome},
    mesh::{Backend, Target},
    policy::Verdict,
    route::{Flag, Flags},
    telemetry::{RequestLabels, Side},
};

/// Passes a connection on to an endpoint, byte for byte.
pub(super) async fn serve(connection: Rc<Connection>, io: Io) {
    if let Verdict::Deny(denied) = connection.judge(None) {
        tracing::info!(client = %connection.client, source = %connection.source, %denied, "connection refused");
        return refused(&connection, None);
    }
    // Once routes were looked at: a service leaves its waypoint before they are gone.
    let Some(backend) = backend(&connection).filter(|_| !connection.is_unbound()) else {
        tracing::info!(client = %connection.client, "connection refused: it has no destination");
        return;
    };
    let cluster = backend.cluster().clone();
    let context = Context { target: connection.address, ..Context::default() };
    let picked = cluster.choose(&context, rand::random(), Instant::now());
    let Ok(picked) = picked else { return refused(&connection, Some(Flag::NoHealthyUpstream)) };
    let Ok(_permit) = cluster.connection() else {
        return refused(&connection, Some(Flag::UpstreamOverflow));
    };
    let endpoint = picked.endpoint().clone();
    let addressed = connection.address.unwrap_or(endpoint.address);
    let host = backend.hostname().unwrap_or_default();
    let opening = backend
        .preamble()
        .and_then(|preamble| Opening::of(preamble, connection.client, addressed, host));
    let wanted = Wanted {
        way: backend.way(&endpoint),
        address: endpoint.address,
        backend,
        cluster: cluster.clone(),
        version: Version::Http1,
        opening,
        switch: None,
        client: connection.client,
    };
    let connected = connection.worker.upstreams.connect(&wanted).await;
    let upstream = match connected {
        Ok(upstream) => upstream,
        Err(error) => {
            picked.finish(Outcome::ConnectFailure, Instant::now());
            return failed(&connection, &error);
        }
    };
    let workload = &endpoint.instance.workload;
    let mut labels = labels(&connection, Some(workload), Flags::default());
    let metrics = &connection.worker.shared.metrics;
    metrics.opened(&labels);
    let (mut client, mut endpoint) = (Watched::new(io), Watched::new(upstream));
    let ended = pass(&mut client, &mut endpoint, cluster.policy().pool.tcp_idle_timeout).await;
    picked.finish(Outcome::Connected, Instant::now());
    // What is broken is broken for both, and each sees to its own end.
    if ended == Passed::Idle {
        metrics.limit("tcp_idle").inc();
        tracing::info!(client = %connection.client, source = %connection.source, "connection closed: it was idle");
        labels.flags = labels.flags.with(Flag::StreamIdleTimeout);
    }
    metrics.closed(&labels, endpoint.read, client.read);
}

/// Returns what the connection goes to.
fn backend(connection: &Connection) -> Option<std::sync::Arc<Backend>> {
    let Some((view, port)) = connection.service() else {
        return connection.direct().map(|(backend, _)| backend.clone());
    };
    let routes = view.routes(port, connection.source.namespace.as_str())?;
    let labels = connection.client_labels(routes);
    let Some(route) = routes.tcp(connection.client_with(labels.as_deref())) else {
        return view.backend(port, "").cloned();
    };
    let destination = route.destinations.choose(rand::random())?;
    if destination.refusal.is_some() {
        return None;
    }
    let snapshot = connection.worker.snapshot();
    let view = snapshot.service(&destination.service)?;
    let port = destination.port.map_or_else(|| view.port_or(port), NonZeroU16::get);
    view.backend(port, destination.subset.as_deref().unwrap_or_default()).cloned()
}

fn failed(connection: &Connection, error: &UpstreamError) {
    tracing::info!(client = %connection.client, %error, "connection failed");
    refused(connection, Some(Flag::UpstreamConnectionFailure));
}

fn refused(connection: &Connection, flag: Option<Flag>) {
    let flags = flag.map_or_else(Flags::default, |flag| Flags::default().with(flag));
    let labels = labels(connection, None, flags);
    let metrics = &connection.worker.shared.metrics;
    metrics.opened(&labels);
    metrics.closed(&labels, 0, 0);
}

fn labels<'a>(
    connection: &'a Connection,
    destination: Option<&'a mesh_api::workload::Workload>,
    flags: Flags,
) -> RequestLabels<'a> {
    RequestLabels {
        source: Side {
            workload: connection.client_workload.as_deref(),
            principal: Some(&connection.source),
        },
        destination: Side {
            workload: destination,
            principal: destination.map(|workload| &workload.identity),
        },
        service: match &connection.target {
            Target::Service(view, _) => Some((&view.service().key, &*view.service().name)),
            Target::Workload(..) => None,
        },
        protocol: "tcp",
        status: None,
        grpc_status: None,
        flags,
    }
}
