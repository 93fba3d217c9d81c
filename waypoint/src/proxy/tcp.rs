//! Connections whose protocol is not looked at.

use std::{
    cell::Cell,
    future::pending,
    num::NonZeroU16,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    hash,
    idle::pass,
    inbound::{Connection, Io},
    session::{Ending, Session},
    upstream::{Opening, Version, Wanted},
    watched::Watched,
};
use crate::{
    balance::{Context, Outcome},
    limits::REVIEW_INTERVAL,
    mesh::Backend,
    policy::{Denied, Verdict},
    route::Flag,
    telemetry::Bytes,
};

/// Passes a connection on to an endpoint, byte for byte.
pub(super) async fn serve(connection: Rc<Connection>, io: Io) {
    let mut session = Session::new(&connection);
    let ending = carry(&connection, io, &mut session).await;
    session.end(&ending);
}

/// Does so, and returns how it ended.
async fn carry(connection: &Connection, io: Io, session: &mut Session) -> Ending {
    if let Verdict::Deny(denied) = connection.judge(None) {
        return Ending::Denied(denied);
    }
    // Once routes were looked at: a service leaves its waypoint before they are gone.
    let Some(backend) = backend(connection).filter(|_| !connection.is_unbound()) else {
        return Ending::Failed(Flag::NoClusterFound);
    };
    session.cluster = Some(backend.name.clone());
    let cluster = backend.cluster().clone();
    let hash = hash::of_connection(cluster.policy(), connection.client.ip());
    let context = Context { hash, target: connection.address, ..Context::default() };
    let picked = cluster.choose(&context, rand::random(), Instant::now());
    let Ok(picked) = picked else { return Ending::Failed(Flag::NoHealthyUpstream) };
    let Ok(_permit) = cluster.connection() else {
        return Ending::Failed(Flag::UpstreamOverflow);
    };
    let endpoint = picked.endpoint().clone();
    session.endpoint = Some((endpoint.instance.clone(), endpoint.address));
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
    let upstream = match connection.worker.upstreams.connect(&wanted).await {
        Ok(upstream) => upstream,
        Err(error) => {
            picked.finish(Outcome::ConnectFailure, Instant::now());
            return Ending::Unreachable(error);
        }
    };
    picked.report(Outcome::Connected, Instant::now());
    session.opened();
    let (mut client, mut endpoint) = (Watched::new(io), Watched::new(upstream));
    let read = [client.read(), endpoint.read()];
    let limits = &cluster.policy().pool;
    tokio::select! {
        passed = pass(&mut client, &mut endpoint, limits.tcp_idle_timeout) => {
            Ending::Passed(passed, bytes(&read))
        }
        () = over(limits.max_connection_duration) => Ending::Overdue(bytes(&read)),
        denied = oversee(connection, session, &read) => Ending::Revoked(denied, bytes(&read)),
    }
}

/// Waits until a connection has lasted for as long as it may.
async fn over(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep(limit).await,
        None => pending().await,
    }
}

/// Counts what has passed, again and again, for some connections last for days. Returns why this one
/// may not any longer, once a policy has come that refuses it.
async fn oversee(
    connection: &Connection,
    session: &mut Session,
    read: &[Rc<Cell<u64>>; 2],
) -> Denied {
    loop {
        sleep(REVIEW_INTERVAL).await;
        session.report(bytes(read));
        if let Verdict::Deny(denied) = connection.decide(None).verdict {
            return denied;
        }
    }
}

fn bytes([client, endpoint]: &[Rc<Cell<u64>>; 2]) -> Bytes {
    Bytes { sent: endpoint.get(), received: client.get() }
}

/// Returns what the connection goes to.
fn backend(connection: &Connection) -> Option<Arc<Backend>> {
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
