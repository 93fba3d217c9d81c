//! Decisions by a second evaluator, which reads policies as they come and knows no index.

use mesh_api::proto::l7::{Authorization, Target, target};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

/// A request, as the reference sees it.
#[derive(Clone, Debug)]
struct Asked {
    identity: Option<(&'static str, &'static str)>,
    address: &'static str,
    method: &'static str,
    host: &'static str,
    path: &'static str,
    port: u16,
    header: Option<&'static str>,
    service: &'static str,
}

fn text_hits(condition: &StringMatch, value: &str) -> bool {
    match condition.kind.as_ref().unwrap() {
        Kind::Exact(text) => value == text,
        Kind::Prefix(text) => value.starts_with(text),
        Kind::Suffix(text) => value.ends_with(text),
        Kind::Present(_) => !value.is_empty(),
        Kind::Regex(_) => unreachable!("not drawn"),
    }
}

/// Returns whether values of a property that has `alternatives` are as they have to be.
fn values_hold(any_of: &[StringMatch], none_of: &[StringMatch], alternatives: &[String]) -> bool {
    let hit = |list: &[StringMatch]| {
        list.iter().any(|one| alternatives.iter().any(|value| text_hits(one, value)))
    };
    (any_of.is_empty() || hit(any_of)) && !hit(none_of)
}

fn in_block(block: &str, address: &str) -> bool {
    block.parse::<ipnet::IpNet>().unwrap().contains(&address.parse::<IpAddr>().unwrap())
}

fn source_holds(source: &Source, asked: &Asked) -> bool {
    let principal = asked.identity.map(|(ns, sa)| format!("cluster.local/ns/{ns}/sa/{sa}"));
    let namespace = asked.identity.map(|(namespace, _)| namespace.to_owned());
    let blocks = |list: &[String]| list.iter().any(|block| in_block(block, asked.address));
    values_hold(&source.principals, &source.not_principals, principal.as_slice())
        && values_hold(&source.namespaces, &source.not_namespaces, namespace.as_slice())
        && (source.ip_blocks.is_empty() || blocks(&source.ip_blocks))
        && !blocks(&source.not_ip_blocks)
}

fn operation_holds(operation: &Operation, asked: &Asked) -> bool {
    let bare = asked.host.split(':').next().unwrap().to_lowercase();
    let hosts = [asked.host.to_lowercase(), bare];
    let paths = |list: &[PathPattern]| -> Vec<StringMatch> {
        let value = |pattern: &PathPattern| match pattern.kind.as_ref().unwrap() {
            path_pattern::Kind::Value(value) => value.clone(),
            path_pattern::Kind::Template(_) => unreachable!("not drawn"),
        };
        list.iter().map(value).collect()
    };
    let port = u32::from(asked.port);
    values_hold(&operation.hosts, &operation.not_hosts, &hosts)
        && values_hold(&operation.methods, &operation.not_methods, &[asked.method.to_owned()])
        && values_hold(
            &paths(&operation.paths),
            &paths(&operation.not_paths),
            &[asked.path.to_owned()],
        )
        && (operation.ports.is_empty() || operation.ports.contains(&port))
        && !operation.not_ports.contains(&port)
}

fn condition_holds(condition: &Condition, asked: &Asked) -> bool {
    let header = asked.header.map(str::to_owned);
    values_hold(&condition.values, &condition.not_values, header.as_slice())
}

fn policy_matches(policy: &Authorization, asked: &Asked) -> bool {
    policy.rules.iter().any(|rule| {
        (rule.from.is_empty() || rule.from.iter().any(|source| source_holds(source, asked)))
            && (rule.to.is_empty() || rule.to.iter().any(|to| operation_holds(to, asked)))
            && rule.when.iter().all(|condition| condition_holds(condition, asked))
    })
}

fn is_for(policy: &Authorization, asked: &Asked) -> bool {
    policy.targets.iter().any(|target| match target.kind.as_ref().unwrap() {
        target::Kind::Service(service) => service.hostname == asked.service,
        target::Kind::Gateway(gateway) => gateway == "shop/waypoint",
        target::Kind::All(_) => true,
    })
}

/// Returns whether a request is allowed, and whether it is noted.
fn reference(policies: &[Authorization], asked: &Asked) -> (bool, bool) {
    let of = |action: l7::Action| {
        let wanted = i32::from(action);
        policies.iter().filter(move |policy| policy.action == wanted && is_for(policy, asked))
    };
    let any = |action| of(action).any(|policy| policy_matches(policy, asked));
    let refused = any(l7::Action::Custom) || any(l7::Action::Deny);
    let permitted = of(l7::Action::Allow).next().is_none() || any(l7::Action::Allow);
    (!refused && permitted, any(l7::Action::Audit))
}

fn condition_of(texts: &'static [&'static str]) -> impl Strategy<Value = StringMatch> {
    (select(texts), 0..5).prop_map(|(text, how)| match how {
        0 => prefix(&text[..text.len() / 2]),
        1 => suffix(&text[text.len() / 2..]),
        2 => present(),
        _ => exact(text),
    })
}

fn some(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<StringMatch>> {
    prop_oneof![3 => Just(vec![]), 2 => vec(condition_of(texts), 1..3)]
}

const PRINCIPALS: &[&str] = &["cluster.local/ns/shop/sa/web", "cluster.local/ns/bank/sa/web"];
const NAMESPACES: &[&str] = &["shop", "bank"];
const BLOCKS: &[&str] = &["10.0.0.0/8", "10.1.0.0/16", "::/0"];
const HOSTS: &[&str] = &["cart", "cart:80", "web"];
const METHODS: &[&str] = &["GET", "PUT"];
const PATHS: &[&str] = &["/a", "/a/b", "/b"];
const VALUES: &[&str] = &["red", "blue"];
const PORTS: &[u32] = &[80, 81];

fn blocks() -> impl Strategy<Value = Vec<String>> {
    let block = select(BLOCKS).prop_map(str::to_owned);
    prop_oneof![3 => Just(vec![]), 1 => vec(block, 1..3)]
}

fn source() -> impl Strategy<Value = Source> {
    let texts = (some(PRINCIPALS), some(PRINCIPALS), some(NAMESPACES), some(NAMESPACES));
    (texts, blocks(), blocks()).prop_map(|(texts, ip_blocks, not_ip_blocks)| {
        let (principals, not_principals, namespaces, not_namespaces) = texts;
        let source = Source {
            principals,
            not_principals,
            namespaces,
            not_namespaces,
            ip_blocks,
            not_ip_blocks,
            ..Default::default()
        };
        // One that says nothing is refused when it is compiled.
        if source == Source::default() {
            Source { not_namespaces: vec![exact("none")], ..source }
        } else {
            source
        }
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let ports = || prop_oneof![3 => Just(vec![]), 1 => vec(select(PORTS), 1..3)];
    let texts = (some(HOSTS), some(HOSTS), some(METHODS), some(METHODS), some(PATHS), some(PATHS));
    (texts, ports(), ports()).prop_map(|(texts, ports, not_ports)| {
        let (hosts, not_hosts, methods, not_methods, paths, not_paths) = texts;
        let operation = Operation {
            hosts,
            not_hosts,
            methods,
            not_methods,
            ports,
            not_ports,
            paths: paths.into_iter().map(path).collect(),
            not_paths: not_paths.into_iter().map(path).collect(),
        };
        if operation == Operation::default() {
            Operation { not_ports: vec![1], ..operation }
        } else {
            operation
        }
    })
}

fn rule() -> impl Strategy<Value = l7::Rule> {
    let condition = (some(VALUES), vec(condition_of(VALUES), 1..3)).prop_map(|(values, not)| {
        let not_values = if values.is_empty() { not } else { vec![] };
        Condition { key: "request.headers[x-team]".into(), values, not_values }
    });
    let lists = (vec(source(), 0..3), vec(operation(), 0..3), vec(condition, 0..2));
    lists.prop_map(|(from, to, when)| l7::Rule { from, to, when })
}

fn policies() -> impl Strategy<Value = Vec<Authorization>> {
    let service = |hostname: &str| {
        target::Kind::Service(l7::ServiceRef {
            namespace: "shop".into(),
            hostname: hostname.into(),
        })
    };
    let kinds = [
        service("cart"),
        service("web"),
        target::Kind::Gateway("shop/waypoint".into()),
        target::Kind::Gateway("shop/other".into()),
        target::Kind::All(true),
    ];
    let targets = vec(select(kinds.to_vec()), 1..3);
    let one = (0..4_i32, targets, vec(rule(), 0..3));
    vec(one, 0..5).prop_map(|list| {
        let policy = |(index, (action, targets, rules)): (usize, (i32, Vec<target::Kind>, _))| {
            let targets = targets.into_iter().map(|kind| Target { kind: Some(kind) }).collect();
            let policy = policy(&format!("p{index}"), l7::Action::Allow, rules);
            Authorization { action, targets, ..policy }
        };
        list.into_iter().enumerate().map(policy).collect()
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let identity = option::of((select(NAMESPACES), select(&["web", "db"][..])));
    let address = select(&["10.0.0.1", "10.1.0.1", "192.0.2.1", "2001:db8::1"][..]);
    let what = (select(METHODS), select(&["cart", "CART:80", "web:81"][..]), select(PATHS));
    let header = option::of(select(VALUES));
    let service = select(&["cart", "web"][..]);
    let rest = (select(&[80_u16, 81][..]), header, service);
    (identity, address, what, rest).prop_map(|(identity, address, what, rest)| {
        let (method, host, path) = what;
        let (port, header, service) = rest;
        Asked { identity, address, method, host, path, port, header, service }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn decisions_are_those_of_a_second_evaluator(policies in policies(), asked in vec(asked(), 1..8)) {
        let set = set(policies.clone());
        for asked in asked {
            let identity = asked.identity.map(|(namespace, account)| {
                format!("spiffe://cluster.local/ns/{namespace}/sa/{account}").parse().unwrap()
            });
            let peer = Peer::new(asked.address.parse().unwrap(), identity);
            let mut request = Request::builder().method(asked.method).uri(asked.path);
            request = request.header("host", asked.host);
            if let Some(value) = asked.header {
                request = request.header("x-team", value);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let destination = SocketAddr::new("10.96.0.1".parse().unwrap(), asked.port);
            let subject = Subject { destination, ..subject(&peer, None) };
            let of = set.of(&gateway(), Some(&service(asked.service)));
            let decided = of.decide(&subject, Some(&RequestHead::of(&parts, "http")));
            let found = (matches!(decided.verdict, Verdict::Allow(_)), decided.audited.is_some());
            prop_assert_eq!(found, reference(&policies, &asked), "{:?}", asked);
        }
    }
}
