//! What is done with connections that are no HTTP.

use mesh_api::{
    crd::{TcpDestination, TcpMatch},
    proto::l7::{Route, TcpRoute, route::Traffic},
};

use super::{Placement, Reach, Source, Taken, traffic};
use crate::{mesh::context::Context, object::range};

/// Adds the routes of the lists `tls` and `tcp`; the former come first.
pub(super) fn routes(context: &mut Context<'_>, source: &Source<'_>, routes: &mut Vec<Route>) {
    tls(context, &Source { list: "tls", ..*source }, routes);
    tcp(context, &Source { list: "tcp", ..*source }, routes);
}

fn tls(context: &mut Context<'_>, source: &Source<'_>, routes: &mut Vec<Route>) {
    for (i, route) in source.service.spec.tls.iter().enumerate() {
        for (j, matched) in route.matches.iter().enumerate() {
            // Server names are not looked at, so only that of the service itself is sure to match.
            let [name] = matched.sni_hosts.as_slice() else { continue };
            let placement = Placement {
                gateways: &matched.gateways,
                port: matched.port,
                source_labels: &matched.source_labels,
                source_namespace: &matched.source_namespace,
            };
            let is_own = name.eq_ignore_ascii_case(&source.scope.service.hostname);
            if is_own && can_match(source, placement, &matched.destination_subnets) {
                let ports = Some(matched.port).filter(|port| *port != 0).into_iter().collect();
                let reach = placement.reach(ports);
                routes.push(lower(context, source, [i, j], reach, &route.route));
            }
        }
    }
}

fn tcp(context: &mut Context<'_>, source: &Source<'_>, routes: &mut Vec<Route>) {
    let mut taken = Taken::default();
    let everything = [TcpMatch::default()];
    for (i, route) in source.service.spec.tcp.iter().enumerate() {
        let matches = if route.matches.is_empty() { &everything } else { &*route.matches };
        for (j, matched) in matches.iter().enumerate() {
            let placement = Placement {
                gateways: &matched.gateways,
                port: matched.port,
                source_labels: &matched.source_labels,
                source_namespace: &matched.source_namespace,
            };
            let matches = matched.source_subnet.is_empty()
                && can_match(source, placement, &matched.destination_subnets);
            let Some(ports) = taken.left(source.scope, matched.port).filter(|_| matches) else {
                continue;
            };
            routes.push(lower(context, source, [i, j], placement.reach(ports), &route.route));
            if placement.is_for_all() {
                taken.take(source.scope, matched.port);
            }
        }
    }
}

/// Returns whether connections to the service can match.
fn can_match(source: &Source<'_>, placement: Placement<'_>, subnets: &[String]) -> bool {
    let addressed = || {
        let subnets = subnets.iter().filter_map(|subnet| range(subnet)).collect::<Vec<_>>();
        source.scope.addresses.iter().any(|address| subnets.iter().any(|net| net.contains(address)))
    };
    placement.holds(source.scope) && (subnets.is_empty() || addressed())
}

fn lower(
    context: &mut Context<'_>,
    source: &Source<'_>,
    position: [usize; 2],
    reach: Reach,
    route: &[TcpDestination],
) -> Route {
    let is_only = route.len() == 1;
    let destinations = route
        .iter()
        .map(|to| traffic::destination(context, source, &to.destination, to.weight, is_only));
    let tcp = TcpRoute { destinations: destinations.collect() };
    source.route(position, false, reach, String::new(), Traffic::Tcp(tcp))
}
