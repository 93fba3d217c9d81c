//! Routes and policies off the wire, and what they make of a request.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use fairlead_waypoint::{
    policy::{GatewayKey, Peer, PolicySet, Subject},
    route::{Client, Found, RequestHead, Route, ServiceRoutes},
};
use http::{Request, request::Parts};
use mesh_api::proto::l7;
use prost::Message as _;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2));

/// Port of the service.
const PORT: u16 = 80;

/// The input is the path of a request, a header of it, and after a line end each a route or a policy
/// as the control plane sends it. Whatever is accepted decides, and the same twice.
pub fn waypoint_rules(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let (path, header, wire) = (next(), next(), next());
    let Some(request) = request(path, header) else { return };
    let head = RequestHead::of(&request, "http");
    if let Ok(Ok(route)) = l7::Route::decode(wire).map(Route::try_from) {
        let mut routes = ServiceRoutes::default();
        routes.insert(route);
        assert_eq!(routes.len(), 1);
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let client = Client { namespace: "shop", labels: Some(&labels) };
        let found = || match routes.tables(PORT).of(client.namespace).find(&head, client) {
            Found::Route(route) => Some(route.name.clone()),
            Found::NoMatch | Found::NoRoutes => None,
        };
        assert_eq!(found(), found());
    }
    if let Ok(policy) = l7::Authorization::decode(wire) {
        decide(policy, &head);
    }
}

fn decide(policy: l7::Authorization, request: &RequestHead<'_>) {
    let mut policies = PolicySet::default();
    // What cannot be understood refuses what it may be about.
    let is_understood = policies.insert(policy).is_ok();
    let Ok(namespace) = "shop".parse() else { return };
    let policies = policies.of(&GatewayKey { namespace, name: "waypoint".into() }, None);
    let peer = Peer::new(PEER, None);
    let destination = SocketAddr::new(PEER, PORT);
    let subject =
        Subject { peer: &peer, remote: PEER, destination, server_name: None, token: None };
    for request in [None, Some(request)] {
        let decided = || policies.decide(&subject, request).verdict;
        assert_eq!(decided(), decided(), "{is_understood}");
    }
}

fn request(path: &[u8], header: &[u8]) -> Option<Parts> {
    let request = Request::builder().uri(path).header("x", header).body(()).ok()?;
    Some(request.into_parts().0)
}
