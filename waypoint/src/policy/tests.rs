mod reference;

use http::{Request, request::Parts};
use mesh_api::proto::l7::{
    self, Condition, Operation, PathPattern, Source, StringMatch, path_pattern, string_match::Kind,
    target,
};

use super::*;
use crate::route::RequestHead;

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn exact(text: &str) -> StringMatch {
    StringMatch { kind: Some(Kind::Exact(text.into())) }
}

fn prefix(text: &str) -> StringMatch {
    StringMatch { kind: Some(Kind::Prefix(text.into())) }
}

fn suffix(text: &str) -> StringMatch {
    StringMatch { kind: Some(Kind::Suffix(text.into())) }
}

fn present() -> StringMatch {
    StringMatch { kind: Some(Kind::Present(true)) }
}

fn path(value: StringMatch) -> PathPattern {
    PathPattern { kind: Some(path_pattern::Kind::Value(value)) }
}

fn template(text: &str) -> PathPattern {
    PathPattern { kind: Some(path_pattern::Kind::Template(text.into())) }
}

fn from(source: Source) -> l7::Rule {
    l7::Rule { from: vec![source], ..Default::default() }
}

fn to(operation: Operation) -> l7::Rule {
    l7::Rule { to: vec![operation], ..Default::default() }
}

fn when(key: &str, values: &[StringMatch], not_values: &[StringMatch]) -> l7::Rule {
    let (values, not_values) = (values.to_vec(), not_values.to_vec());
    let condition = Condition { key: key.into(), values, not_values };
    l7::Rule { when: vec![condition], ..Default::default() }
}

fn everywhere() -> l7::Target {
    l7::Target { kind: Some(target::Kind::All(true)) }
}

fn policy(name: &str, action: l7::Action, rules: Vec<l7::Rule>) -> l7::Authorization {
    l7::Authorization {
        namespace: "shop".into(),
        name: name.into(),
        action: action.into(),
        targets: vec![everywhere()],
        rules,
        ..Default::default()
    }
}

fn gateway() -> GatewayKey {
    "shop/waypoint".parse().unwrap()
}

fn service(hostname: &str) -> ServiceKey {
    ServiceKey { namespace: "shop".parse().unwrap(), hostname: hostname.into() }
}

fn set(policies: Vec<l7::Authorization>) -> PolicySet {
    let mut set = PolicySet::default();
    for policy in policies {
        set.insert(policy).unwrap();
    }
    set
}

fn client() -> Peer {
    Peer::new("10.0.0.1".parse().unwrap(), Some(CLIENT.parse().unwrap()))
}

fn subject<'a>(peer: &'a Peer, token: Option<&'a Token>) -> Subject<'a> {
    Subject {
        peer,
        remote: "192.0.2.7".parse().unwrap(),
        destination: "10.96.0.1:80".parse().unwrap(),
        server_name: Some("cart.shop"),
        token,
    }
}

fn token() -> Token {
    let list = |values: &[&str]| Claim::List(values.iter().map(ToString::to_string).collect());
    let inner = BTreeMap::from([("role".to_owned(), Claim::Text("admin".into()))]);
    Token {
        principal: "https://issuer.example/alice".into(),
        audiences: vec!["shop".into(), "bank".into()],
        presenter: Some("app".into()),
        claims: BTreeMap::from([
            ("groups".to_owned(), list(&["dev", "ops"])),
            ("realm".to_owned(), Claim::Nested(inner)),
        ]),
    }
}

fn request() -> Parts {
    let request = Request::builder()
        .method("POST")
        .uri("/cart/7/items?path=/admin")
        .header("host", "Cart.Shop:8080")
        .header("x-team", "red")
        .header("x-many", "a")
        .header("x-many", "b")
        .header("x-empty", "")
        .header("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/root/sa/admin")
        .header("source", "cluster.local/ns/root/sa/admin");
    request.body(()).unwrap().into_parts().0
}

/// Returns whether a rule matches a request of the client with its token.
fn matches(rule: &l7::Rule) -> bool {
    let policies = set(vec![policy("p", l7::Action::Allow, vec![rule.clone()])]);
    let (peer, token, parts) = (client(), token(), request());
    let head = RequestHead::of(&parts, "http");
    let decided = policies.of(&gateway(), None).decide(&subject(&peer, Some(&token)), Some(&head));
    matches!(decided.verdict, Verdict::Allow(Some(_)))
}

#[test]
fn sources_are_who_the_connection_proved_and_nothing_that_a_request_says() {
    let none = Source::default;
    for (source, expected) in [
        (Source { principals: vec![exact("cluster.local/ns/shop/sa/web")], ..none() }, true),
        (Source { principals: vec![exact("cluster.local/ns/root/sa/admin")], ..none() }, false),
        (Source { principals: vec![exact("cluster.local/ns/shop/sa/Web")], ..none() }, false),
        (Source { principals: vec![prefix("cluster.local/ns/shop/")], ..none() }, true),
        (Source { principals: vec![suffix("/sa/web"), exact("x")], ..none() }, true),
        (Source { principals: vec![present()], ..none() }, true),
        (Source { not_principals: vec![present()], ..none() }, false),
        (Source { not_principals: vec![suffix("/sa/admin")], ..none() }, true),
        (Source { namespaces: vec![exact("shop")], ..none() }, true),
        (Source { namespaces: vec![exact("root")], ..none() }, false),
        (
            Source { namespaces: vec![prefix("s")], not_namespaces: vec![exact("shop")], ..none() },
            false,
        ),
        (Source { ip_blocks: vec!["10.0.0.0/8".into()], ..none() }, true),
        (Source { ip_blocks: vec!["10.0.0.1".into()], ..none() }, true),
        (Source { ip_blocks: vec!["192.0.2.0/24".into()], ..none() }, false),
        (Source { not_ip_blocks: vec!["10.0.0.0/8".into()], ..none() }, false),
        (Source { remote_ip_blocks: vec!["192.0.2.0/24".into()], ..none() }, true),
        (Source { not_remote_ip_blocks: vec!["192.0.2.7".into()], ..none() }, false),
        (
            Source { request_principals: vec![exact("https://issuer.example/alice")], ..none() },
            true,
        ),
        (Source { request_principals: vec![prefix("https://issuer.example/")], ..none() }, true),
        (Source { request_principals: vec![suffix("/bob")], ..none() }, false),
        (
            Source { namespaces: vec![exact("shop")], ip_blocks: vec!["::/0".into()], ..none() },
            false,
        ),
    ] {
        assert_eq!(matches(&from(source.clone())), expected, "{source:?}");
    }
}

#[test]
fn operations_are_what_is_asked_for() {
    let none = Operation::default;
    for (operation, expected) in [
        (Operation { hosts: vec![exact("cart.shop:8080")], ..none() }, true),
        (Operation { hosts: vec![exact("cart.shop")], ..none() }, true),
        (Operation { hosts: vec![prefix("cart.shop:")], ..none() }, true),
        (Operation { hosts: vec![suffix(".SHOP")], ..none() }, true),
        (Operation { hosts: vec![exact("cart")], ..none() }, false),
        (Operation { not_hosts: vec![exact("CART.shop")], ..none() }, false),
        (Operation { methods: vec![exact("POST")], ..none() }, true),
        (Operation { methods: vec![exact("post")], ..none() }, false),
        (Operation { not_methods: vec![exact("GET")], ..none() }, true),
        (Operation { ports: vec![80], ..none() }, true),
        (Operation { ports: vec![8080], ..none() }, false),
        (Operation { not_ports: vec![80], ..none() }, false),
        (Operation { paths: vec![path(exact("/cart/7/items"))], ..none() }, true),
        (Operation { paths: vec![path(prefix("/cart/"))], ..none() }, true),
        (Operation { paths: vec![path(suffix("/admin"))], ..none() }, false),
        (Operation { paths: vec![template("/cart/{*}/items")], ..none() }, true),
        (Operation { paths: vec![template("/{*}/items")], ..none() }, false),
        (Operation { paths: vec![template("/cart/{**}")], ..none() }, true),
        (Operation { paths: vec![template("/{**}/items")], ..none() }, true),
        (Operation { paths: vec![template("/cart.7.items")], ..none() }, false),
        (Operation { not_paths: vec![template("/{*}/{*}/{*}")], ..none() }, false),
        (Operation { methods: vec![exact("POST")], ports: vec![81], ..none() }, false),
    ] {
        assert_eq!(matches(&to(operation.clone())), expected, "{operation:?}");
    }
}

#[test]
fn conditions_are_of_the_request_the_connection_and_the_token() {
    for (key, value, expected) in [
        ("request.headers[X-Team]", exact("red"), true),
        ("request.headers[x-team]", prefix("b"), false),
        ("request.headers[x-many]", exact("a,b"), true),
        ("request.headers[x-empty]", present(), false),
        ("request.headers[x-none]", present(), false),
        ("request.headers[host]", exact("cart.shop"), true),
        ("request.headers[:authority]", exact("cart.shop:8080"), true),
        ("request.headers[:method]", exact("POST"), true),
        ("source.ip", exact("10.0.0.0/8"), true),
        ("remote.ip", exact("10.0.0.0/8"), false),
        ("source.namespace", exact("shop"), true),
        ("source.principal", suffix("/web"), true),
        ("source.serviceAccount", exact("shop/web"), true),
        ("source.trustDomain", exact("cluster.local"), true),
        ("destination.ip", exact("10.96.0.1"), true),
        ("destination.port", exact("80"), true),
        ("destination.port", exact("81"), false),
        ("connection.sni", suffix(".shop"), true),
        ("request.auth.principal", suffix("/alice"), true),
        ("request.auth.audiences", exact("bank"), true),
        ("request.auth.presenter", exact("app"), true),
        ("request.auth.claims[groups]", exact("ops"), true),
        ("request.auth.claims[groups]", exact("dev,ops"), false),
        ("request.auth.claims[realm][role]", exact("admin"), true),
        ("request.auth.claims[realm]", present(), false),
        ("request.auth.claims[groups][role]", present(), false),
    ] {
        let value = [value];
        assert_eq!(matches(&when(key, &value, &[])), expected, "{key} {value:?}");
        assert_eq!(matches(&when(key, &[], &value)), !expected, "not {key} {value:?}");
    }
}

#[test]
fn what_is_missing_matches_nothing_and_no_refusal_either() {
    let stranger = Peer::new("10.0.0.1".parse().unwrap(), None);
    let (parts, ()) = Request::builder().uri("/").body(()).unwrap().into_parts();
    let head = RequestHead::of(&parts, "http");
    let subject = Subject { server_name: None, ..subject(&stranger, None) };
    for key in [
        "source.namespace",
        "source.principal",
        "source.serviceAccount",
        "source.trustDomain",
        "connection.sni",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
        "request.auth.claims[a]",
        "request.headers[a]",
    ] {
        for value in [exact(""), present(), prefix("")] {
            let value = [value];
            for (rule, expected) in
                [(when(key, &value, &[]), false), (when(key, &[], &value), true)]
            {
                let policies = set(vec![policy("p", l7::Action::Allow, vec![rule])]);
                let decided = policies.of(&gateway(), None).decide(&subject, Some(&head));
                let allowed = matches!(decided.verdict, Verdict::Allow(_));
                assert_eq!(allowed, expected, "{key} {value:?}");
            }
        }
    }
}

/// Decides the client's request by policies that apply everywhere.
fn verdict(policies: Vec<l7::Authorization>) -> Decision {
    let (peer, parts) = (client(), request());
    let head = RequestHead::of(&parts, "http");
    set(policies).of(&gateway(), None).decide(&subject(&peer, None), Some(&head))
}

#[test]
fn refusals_come_before_permissions() {
    use l7::Action::{Allow, Audit, Custom, Deny};
    let hit = || {
        vec![
            to(Operation { methods: vec![exact("GET")], ..Default::default() }),
            l7::Rule::default(),
        ]
    };
    let miss = || vec![to(Operation { methods: vec![exact("GET")], ..Default::default() })];
    let matched = |policy: &str| {
        format!("rbac_access_denied_matched_policy[ns[shop]-policy[{policy}]-rule[1]]")
    };
    let none = || "rbac_access_denied_matched_policy[none]".to_owned();
    for (policies, expected, audited) in [
        (vec![], "allowed".to_owned(), false),
        (vec![policy("a", Allow, hit())], "allowed by a".to_owned(), false),
        (vec![policy("a", Allow, miss())], none(), false),
        (vec![policy("a", Allow, vec![])], none(), false),
        (
            vec![policy("a", Allow, miss()), policy("b", Allow, hit())],
            "allowed by b".to_owned(),
            false,
        ),
        (vec![policy("a", Allow, hit()), policy("b", Deny, hit())], matched("b"), false),
        (vec![policy("a", Deny, hit()), policy("b", Custom, hit())], matched("b"), false),
        (vec![policy("a", Deny, miss())], "allowed".to_owned(), false),
        (vec![policy("a", Deny, vec![])], "allowed".to_owned(), false),
        (vec![policy("a", Custom, miss())], "allowed".to_owned(), false),
        (vec![policy("a", Audit, hit())], "allowed".to_owned(), true),
        (vec![policy("a", Audit, miss())], "allowed".to_owned(), false),
        (vec![policy("a", Audit, hit()), policy("b", Allow, miss())], none(), true),
    ] {
        let decided = verdict(policies.clone());
        let shown = match decided.verdict {
            Verdict::Allow(None) => "allowed".to_owned(),
            Verdict::Allow(Some(key)) => format!("allowed by {}", key.name),
            Verdict::Deny(denied) => denied.to_string(),
        };
        assert_eq!((shown, decided.audited.is_some()), (expected, audited), "{policies:?}");
        assert_eq!(decided.on_trial, None, "{policies:?}");
    }
}

#[test]
fn policies_on_trial_decide_nothing_and_say_what_they_would_have_decided() {
    use l7::Action::{Allow, Deny};
    let on_trial = |name, action, rules| {
        let policy = policy(name, action, rules);
        l7::Authorization { dry_run: true, ..policy }
    };
    let hit = || vec![l7::Rule::default()];
    let miss = || vec![to(Operation { methods: vec![exact("GET")], ..Default::default() })];
    let key = |name: &str| PolicyKey { namespace: "shop".parse().unwrap(), name: name.into() };
    let denied = |name| Verdict::Deny(Denied::Matched { policy: key(name), rule: 0 });
    for (policies, verdict_of_others, expected) in [
        (vec![on_trial("a", Deny, hit())], Verdict::Allow(None), Some(denied("a"))),
        (vec![on_trial("a", Deny, miss())], Verdict::Allow(None), None),
        (
            vec![on_trial("a", Allow, hit())],
            Verdict::Allow(None),
            Some(Verdict::Allow(Some(key("a")))),
        ),
        (
            vec![on_trial("a", Allow, miss())],
            Verdict::Allow(None),
            Some(Verdict::Deny(Denied::NoneMatched)),
        ),
        (
            vec![on_trial("a", Allow, hit()), on_trial("b", Deny, hit())],
            Verdict::Allow(None),
            Some(denied("b")),
        ),
        // They stand for themselves: others neither add to them nor take away.
        (
            vec![on_trial("a", Allow, miss()), policy("b", Allow, hit())],
            Verdict::Allow(Some(key("b"))),
            Some(Verdict::Deny(Denied::NoneMatched)),
        ),
        (
            vec![on_trial("a", Allow, hit()), policy("b", Deny, hit())],
            denied("b"),
            Some(Verdict::Allow(Some(key("a")))),
        ),
    ] {
        let decided = verdict(policies.clone());
        assert_eq!(
            (decided.verdict, decided.on_trial),
            (verdict_of_others, expected),
            "{policies:?}"
        );
    }
}

#[test]
fn the_server_name_of_a_connection_that_is_not_looked_into_is_never_allowed_and_always_refused() {
    let peer = client();
    for (values, not_values) in
        [(vec![suffix(".shop")], vec![]), (vec![], vec![exact("cart.shop")])]
    {
        for action in [l7::Action::Allow, l7::Action::Deny] {
            let rule = when("connection.sni", &values, &not_values);
            let policies = set(vec![policy("p", action, vec![rule])]);
            let unread = Subject { server_name: None, ..subject(&peer, None) };
            let decided = policies.of(&gateway(), None).decide(&unread, None);
            let is_refused = matches!(decided.verdict, Verdict::Deny(_));
            assert!(is_refused, "{action:?} {values:?} {not_values:?}");
        }
    }
}

#[test]
fn a_connection_that_is_not_looked_into_is_never_allowed_by_requests_and_refused_for_all() {
    let peer = client();
    let get = || Operation { methods: vec![exact("GET")], ..Default::default() };
    let get_on = |port| Operation { ports: vec![port], ..get() };
    for (action, operation, allowed) in [
        (l7::Action::Allow, get(), false),
        (
            l7::Action::Allow,
            Operation { not_methods: vec![exact("GET")], ..Default::default() },
            false,
        ),
        (l7::Action::Allow, Operation { ports: vec![80], ..Default::default() }, true),
        (l7::Action::Deny, get(), false),
        (l7::Action::Deny, get_on(80), false),
        (l7::Action::Deny, get_on(81), true),
    ] {
        let policies = set(vec![policy("p", action, vec![to(operation.clone())])]);
        let decided = policies.of(&gateway(), None).decide(&subject(&peer, None), None);
        let found = matches!(decided.verdict, Verdict::Allow(_));
        assert_eq!(found, allowed, "{action:?} {operation:?}");
    }
}

#[test]
fn a_policy_applies_to_its_targets_until_it_is_removed() {
    let on = |name: &str, kind| l7::Authorization {
        targets: vec![l7::Target { kind: Some(kind) }],
        ..policy(name, l7::Action::Deny, vec![l7::Rule::default()])
    };
    let cart = l7::ServiceRef { namespace: "shop".into(), hostname: "cart".into() };
    let mut policies = set(vec![
        on("service", target::Kind::Service(cart.clone())),
        on("gateway", target::Kind::Gateway("shop/other".into())),
    ]);
    let (peer, parts) = (client(), request());
    let denied = |policies: &PolicySet, gateway: &str, hostname: &str| {
        let of = policies.of(&gateway.parse().unwrap(), Some(&service(hostname)));
        let head = RequestHead::of(&parts, "http");
        matches!(of.decide(&subject(&peer, None), Some(&head)).verdict, Verdict::Deny(_))
    };
    assert!(denied(&policies, "shop/waypoint", "cart"));
    assert!(!denied(&policies, "shop/waypoint", "web"));
    assert!(denied(&policies, "shop/other", "web"));
    policies.insert(on("gateway", target::Kind::Service(cart))).unwrap();
    assert!(!denied(&policies, "shop/other", "web"));
    for name in ["service", "gateway"] {
        assert!(denied(&policies, "shop/waypoint", "cart"));
        policies.remove(&PolicyKey { namespace: "shop".parse().unwrap(), name: name.into() });
    }
    assert!(!denied(&policies, "shop/waypoint", "cart"));
}

#[test]
fn what_a_policy_that_is_not_understood_is_for_is_refused() {
    let rule = |rule| policy("p", l7::Action::Allow, vec![rule]);
    let ip = |text: &str| Source { ip_blocks: vec![text.into()], ..Default::default() };
    let paths = |template| Operation { paths: vec![template], ..Default::default() };
    for (wire, field) in [
        (rule(from(Source::default())), "rules[0].from[0]"),
        (rule(to(Operation::default())), "rules[0].to[0]"),
        (rule(from(ip("10.0.0.0/33"))), "rules[0].from[0].ip_blocks.any_of[0]"),
        (rule(to(paths(template("/a/{x}")))), "rules[0].to[0].paths[0].template"),
        (rule(to(paths(template("/a*")))), "rules[0].to[0].paths[0].template"),
        (rule(to(paths(template("/{**}/{*}")))), "rules[0].to[0].paths[0].template"),
        (rule(to(paths(template("a")))), "rules[0].to[0].paths[0].template"),
        (rule(when("request.nothing", &[exact("a")], &[])), "rules[0].when[0].key"),
        (rule(when("request.headers[]", &[exact("a")], &[])), "rules[0].when[0].key"),
        (rule(when("request.headers[a][b]", &[exact("a")], &[])), "rules[0].when[0].key"),
        (rule(when("source.ip", &[present()], &[])), "rules[0].when[0].values[0]"),
        (rule(when("destination.port", &[exact("x")], &[])), "rules[0].when[0].values[0]"),
        (rule(when("source.namespace", &[], &[])), "rules[0].when[0].values"),
        (l7::Authorization { action: 9, ..rule(l7::Rule::default()) }, "action"),
        (
            l7::Authorization { targets: vec![l7::Target::default()], ..rule(l7::Rule::default()) },
            "targets[0]",
        ),
    ] {
        let mut policies = PolicySet::default();
        assert_eq!(policies.insert(wire.clone()).unwrap_err().field, field);
        let (peer, parts) = (client(), request());
        let head = RequestHead::of(&parts, "http");
        let decided = policies.of(&gateway(), None).decide(&subject(&peer, None), Some(&head));
        assert!(matches!(decided.verdict, Verdict::Deny(_)), "{wire:?}");
    }
}

#[test]
fn a_decision_allocates_nothing() {
    let policies = (0..100).map(|number| {
        let method = if number % 2 == 0 { "GET" } else { "PUT" };
        let operation = Operation {
            hosts: vec![exact("cart.shop")],
            methods: vec![exact(method)],
            paths: vec![path(prefix("/cart"))],
            ..Default::default()
        };
        policy(&format!("p{number}"), l7::Action::Deny, vec![to(operation)])
    });
    let policies = set(policies.collect()).of(&gateway(), None);
    let (peer, parts) = (client(), request());
    let subject = subject(&peer, None);
    let allocations = allocation_counter::measure(|| {
        let head = RequestHead::of(&parts, "http");
        assert_eq!(policies.decide(&subject, Some(&head)).verdict, Verdict::Allow(None));
    });
    assert_eq!(allocations.count_total, 0);
}
