use http::{Method, Request};
use mesh_api::proto::l7::{self, StringMatch, path_match::Kind, string_match};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::balance::Labels;

fn wire(id: usize, order: &[u8], path: Option<l7::PathMatch>) -> l7::Route {
    let response = l7::DirectResponse { status: 200, ..Default::default() };
    let http = l7::HttpRoute {
        r#match: Some(l7::HttpMatch { path, ..Default::default() }),
        action: Some(l7::http_route::Action::DirectResponse(response)),
        ..Default::default()
    };
    l7::Route {
        id: id.to_string(),
        service: Some(l7::ServiceRef { namespace: "shop".into(), hostname: "cart".into() }),
        order: order.to_vec().into(),
        name: format!("route-{id}"),
        traffic: Some(l7::route::Traffic::Http(http)),
        ..Default::default()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "fields of messages are optional")]
fn path(kind: Kind, ignore_case: bool) -> Option<l7::PathMatch> {
    Some(l7::PathMatch { kind: Some(kind), ignore_case })
}

fn with_method(mut route: l7::Route, method: &str) -> l7::Route {
    let exact = StringMatch { kind: Some(string_match::Kind::Exact(method.into())) };
    if let Some(l7::route::Traffic::Http(http)) = &mut route.traffic {
        http.r#match.get_or_insert_default().method = Some(exact);
    }
    route
}

/// A client of whom nothing is known.
const ANYBODY: Client<'_> = Client { namespace: "", labels: None };

fn labelled(labels: Option<&Labels>) -> Client<'_> {
    Client { namespace: "shop", labels }
}

fn app(name: &str) -> Labels {
    Labels::from([("app".to_owned(), name.to_owned())])
}

fn table(routes: Vec<l7::Route>) -> RouteTable {
    let mut service = ServiceRoutes::default();
    for route in routes {
        service.insert(Route::try_from(route).unwrap());
    }
    service.tables(80).all
}

fn found(table: &RouteTable, method: &str, path: &str) -> Option<String> {
    let request = Request::builder().method(method).uri(path).body(()).unwrap();
    let (parts, ()) = request.into_parts();
    match table.find(&RequestHead::of(&parts, "http"), ANYBODY) {
        Found::Route(route) => Some(route.name.to_string()),
        Found::NoMatch | Found::NoRoutes => None,
    }
}

#[test]
fn the_first_in_order_that_matches_is_found() {
    let exact = |text: &str| path(Kind::Exact(text.into()), false);
    let prefix = |text: &str| path(Kind::Prefix(text.into()), false);
    let elements = |text: &str| path(Kind::Elements(text.into()), false);
    let regex = |text: &str| path(Kind::Regex(text.into()), false);
    let table = table(vec![
        wire(9, &[9], prefix("/")),
        wire(1, &[1], exact("/login")),
        with_method(wire(2, &[2], elements("/api/v1")), "POST"),
        wire(3, &[3], regex("/api/v[12]/users/.*")),
        wire(4, &[4], elements("/api")),
        wire(5, &[5], prefix("/api/v1/never")),
        wire(6, &[6], path(Kind::Prefix("/STATIC".into()), true)),
    ]);
    for (method, path, expected) in [
        ("GET", "/login", 1),
        ("GET", "/login/", 9),
        ("POST", "/api/v1/users/7", 2),
        ("GET", "/api/v1/users/7", 3),
        ("GET", "/api/v3/users/7", 4),
        ("GET", "/api/v1/never", 4),
        ("GET", "/apiary", 9),
        ("GET", "/Static/x", 6),
    ] {
        let name = format!("route-{expected}");
        assert_eq!(found(&table, method, path), Some(name), "{method} {path}");
    }
}

#[test]
fn a_service_with_routes_refuses_what_none_matches_and_one_without_does_not() {
    let (parts, ()) = Request::builder().uri("/x").body(()).unwrap().into_parts();
    let head = RequestHead::of(&parts, "http");
    assert!(matches!(RouteTable::default().find(&head, ANYBODY), Found::NoRoutes));
    let only = table(vec![wire(0, &[], path(Kind::Exact("/y".into()), false))]);
    assert!(matches!(only.find(&head, ANYBODY), Found::NoMatch));
}

#[test]
fn a_route_is_for_its_ports_until_it_is_removed() {
    let mut service = ServiceRoutes::default();
    let all = wire(2, &[2], None);
    let web = l7::Route { ports: vec![80, 8080], ..wire(1, &[1], None) };
    let split = l7::TcpRoute { destinations: vec![] };
    let tcp = l7::Route {
        traffic: Some(l7::route::Traffic::Tcp(split)),
        ports: vec![5432],
        ..wire(3, &[3], None)
    };
    for route in [all, web, tcp] {
        service.insert(Route::try_from(route).unwrap());
    }
    let name = |service: &ServiceRoutes, port| found(&service.tables(port).all, "GET", "/");
    assert_eq!(name(&service, 80).as_deref(), Some("route-1"));
    assert_eq!(name(&service, 5432).as_deref(), Some("route-2"));
    assert!(
        service.tables(5432).all.tcp(ANYBODY).is_some()
            && service.tables(80).all.tcp(ANYBODY).is_none()
    );
    service.remove("1");
    assert_eq!(name(&service, 80).as_deref(), Some("route-2"));
    service.insert(Route::try_from(wire(2, &[0], path(Kind::Exact("/z".into()), false))).unwrap());
    assert_eq!(name(&service, 80), None);
    service.remove("2");
    service.remove("3");
    assert!(service.is_empty());
}

#[test]
fn routes_of_a_namespace_hold_for_its_clients_in_place_of_those_for_all() {
    let mut service = ServiceRoutes::default();
    let exact = |text: &str| path(Kind::Exact(text.into()), false);
    let all = wire(1, &[1], None);
    let own = l7::Route { client_namespace: "bank".into(), ..wire(2, &[2], exact("/own")) };
    let tcp = |id, name: &str| {
        let split = l7::TcpRoute { destinations: vec![] };
        let traffic = Some(l7::route::Traffic::Tcp(split));
        l7::Route { traffic, client_namespace: name.into(), ..wire(id, &[0], None) }
    };
    for route in [all, own, tcp(3, ""), tcp(4, "tools")] {
        service.insert(Route::try_from(route).unwrap());
    }
    let tables = service.tables(80);
    for (namespace, path, http, tcp) in [
        ("shop", "/own", Some(1), 3),
        ("bank", "/own", Some(2), 3),
        ("bank", "/", None, 3),
        ("tools", "/", Some(1), 4),
    ] {
        let table = tables.of(namespace);
        let name = http.map(|id| format!("route-{id}"));
        assert_eq!(found(table, "GET", path), name, "{namespace} {path}");
        assert_eq!(*table.tcp(ANYBODY).unwrap().name, *format!("route-{tcp}"), "{namespace}");
    }
    service.remove("1");
    service.remove("3");
    let tables = service.tables(80);
    let (parts, ()) = Request::builder().uri("/x").body(()).unwrap().into_parts();
    let head = RequestHead::of(&parts, "http");
    assert!(
        matches!(tables.of("shop").find(&head, ANYBODY), Found::NoRoutes),
        "only others have routes"
    );
    assert!(matches!(tables.of("bank").find(&head, ANYBODY), Found::NoMatch));
}

#[test]
fn routes_for_labels_hold_for_clients_that_have_them_and_are_none_for_others() {
    let web = || app("web");
    let http = l7::Route { client_labels: web(), ..wire(1, &[1], None) };
    let own = path(Kind::Exact("/own".into()), false);
    let all = wire(2, &[2], own);
    let tcp = |id, client_labels| {
        let split = l7::TcpRoute { destinations: vec![] };
        let traffic = Some(l7::route::Traffic::Tcp(split));
        let order = [u8::try_from(id).unwrap()];
        Route::try_from(l7::Route { traffic, client_labels, ..wire(id, &order, None) }).unwrap()
    };
    let mut service = ServiceRoutes::default();
    service.insert(tcp(4, web()));
    assert!(service.tables(80).all.depends_on_labels());
    service.insert(tcp(5, Labels::new()));
    service.insert(Route::try_from(http).unwrap());
    let only = service.tables(80).all;
    service.insert(Route::try_from(all).unwrap());
    let both = service.tables(80).all;
    for (client, path, expected, expected_of_only, expected_tcp) in [
        (Some(app("web")), "/own", "route-1", "route-1", "route-4"),
        (Some(app("web")), "/", "route-1", "route-1", "route-4"),
        (Some(app("cart")), "/own", "route-2", "no routes", "route-5"),
        (Some(app("cart")), "/", "no match", "no routes", "route-5"),
        (None, "/own", "route-2", "no routes", "route-5"),
        (None, "/", "no match", "no routes", "route-5"),
    ] {
        let (parts, ()) = Request::get(path).body(()).unwrap().into_parts();
        let head = RequestHead::of(&parts, "http");
        let said = |table: &RouteTable| match table.find(&head, labelled(client.as_ref())) {
            Found::Route(route) => route.name.to_string(),
            Found::NoMatch => "no match".to_owned(),
            Found::NoRoutes => "no routes".to_owned(),
        };
        assert_eq!(said(&both), expected, "{client:?} {path}");
        assert_eq!(said(&only), expected_of_only, "{client:?} {path}");
        assert_eq!(*both.tcp(labelled(client.as_ref())).unwrap().name, *expected_tcp, "{client:?}");
    }
    assert!(both.depends_on_labels());
    for id in ["1", "4"] {
        service.remove(id);
    }
    assert!(!service.tables(80).all.depends_on_labels(), "nobody's labels are looked at");
}

#[test]
fn a_route_that_is_invalid_says_where() {
    let valid = wire(1, &[], None);
    for (route, field) in [
        (l7::Route { traffic: None, ..valid.clone() }, "traffic"),
        (l7::Route { service: None, ..valid.clone() }, "service"),
        (l7::Route { ports: vec![80, 0], ..valid.clone() }, "ports[1]"),
        (wire(1, &[], path(Kind::Regex("(".into()), false)), "http.match.path.regex"),
        (wire(1, &[], Some(l7::PathMatch::default())), "http.match.path.kind"),
    ] {
        assert_eq!(Route::try_from(route).unwrap_err().field, field);
    }
}

#[test]
fn among_50_000_routes_a_request_is_compared_with_those_of_its_path() {
    const ROUTES: usize = 50_000;
    let route = |n: usize| {
        let text = format!("/s/{n}");
        let kind = if n.is_multiple_of(2) { Kind::Exact(text) } else { Kind::Elements(text) };
        wire(n, &n.to_be_bytes(), path(kind, false))
    };
    let table = table((0..ROUTES).map(route).collect());
    for n in [0, 1, ROUTES / 2, ROUTES - 1] {
        let path = format!("/s/{n}");
        assert_eq!(found(&table, "GET", &path), Some(format!("route-{n}")));
        let mut compared = 0;
        table.paths.visit(&path, &mut |candidates: &[usize]| compared += candidates.len());
        // Each of its characters may end a shorter one.
        assert!(compared <= path.len(), "{path}: {compared}");
    }
    assert_eq!(found(&table, "GET", "/s/50001"), None);
}

#[test]
fn a_lookup_among_many_routes_allocates_nothing() {
    let routes = (0_usize..1000).map(|id| {
        let text = format!("/service-{}/method-{id}", id % 7);
        let kind = match id % 3 {
            0 => Kind::Exact(text),
            1 => Kind::Prefix(text),
            _ => Kind::Elements(text),
        };
        wire(id, &id.to_be_bytes(), path(kind, false))
    });
    let table = table(routes.collect());
    let request = Request::builder().uri("/service-1/method-995/x").body(()).unwrap();
    let (parts, ()) = request.into_parts();
    let allocations = allocation_counter::measure(|| {
        let head = RequestHead::of(&parts, "http");
        assert!(
            matches!(table.find(&head, ANYBODY), Found::Route(route) if &*route.name == "route-995")
        );
    });
    assert_eq!(allocations.count_total, 0);
}

/// What is asked of the table, without an index.
fn first_match(
    routes: &[Entry<HttpRoute>],
    request: &RequestHead<'_>,
    client: Client<'_>,
) -> Option<Arc<str>> {
    let is_for =
        |entry: &&Entry<HttpRoute>| entry.clients.include(client) && entry.route.matches(request);
    routes.iter().find(is_for).map(|entry| entry.route.name.clone())
}

fn text() -> impl Strategy<Value = String> {
    "(/[abAB]{0,2}){0,3}/?"
}

const PATTERNS: &[&str] =
    &["/a.*", "/(a|b)/.*", ".*b", "(?i)/a/b", "/a?b", "/[ab]{2}/?.*", "/ab|/ba"];

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        text().prop_map(Kind::Exact),
        text().prop_map(Kind::Prefix),
        text().prop_map(Kind::Elements),
        select(PATTERNS).prop_map(|pattern| Kind::Regex(pattern.to_owned())),
    ]
}

/// A name, or none.
type Name = Option<&'static str>;

/// Path, method, label and namespace of clients, and order of a route.
type Drawn = (Option<(Kind, bool)>, Name, Name, Name, u8);

fn routes() -> impl Strategy<Value = Vec<l7::Route>> {
    let method = option::weighted(0.3, select(&["GET", "PUT"][..]));
    let label = option::weighted(0.3, select(&["web", "cart"][..]));
    let namespace = option::weighted(0.3, select(&["shop", "bank"][..]));
    let matched = option::weighted(0.9, (kind(), any::<bool>()));
    let one = (matched, method, label, namespace, any::<u8>());
    vec(one, 0..40).prop_map(|list| {
        let route = |(id, (matched, method, label, namespace, order)): (usize, Drawn)| {
            let path = matched.and_then(|(kind, ignore_case)| path(kind, ignore_case));
            let client_labels = label.map(app).unwrap_or_default();
            let source_namespace = namespace.unwrap_or_default().to_owned();
            let route = l7::Route { client_labels, source_namespace, ..wire(id, &[order], path) };
            match method {
                Some(method) => with_method(route, method),
                None => route,
            }
        };
        list.into_iter().enumerate().map(route).collect()
    })
}

proptest! {
    #[test]
    fn the_index_finds_what_asking_one_route_after_the_other_does(
        routes in routes(),
        paths in vec(text(), 1..20),
    ) {
        let table = table(routes);
        let methods = [Method::GET, Method::PUT];
        for (path, method) in paths.iter().zip(methods.iter().cycle()) {
            let (mut parts, ()) = Request::builder().body(()).unwrap().into_parts();
            parts.method = method.clone();
            let head = RequestHead { path, ..RequestHead::of(&parts, "http") };
            for client in [None, Some(&app("web"))].map(labelled) {
                let expected = first_match(&table.http, &head, client);
                let found = match table.find(&head, client) {
                    Found::Route(route) => Some(route.name.clone()),
                    Found::NoMatch | Found::NoRoutes => None,
                };
                prop_assert_eq!(found, expected, "{} {} of {:?}", method, path, client);
            }
        }
    }
}
