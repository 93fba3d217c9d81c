//! Random policies and flows.

use std::net::{IpAddr, SocketAddr};

use mesh_api::{
    identity::Identity,
    policy::Flow,
    proto::security::{
        Address, Authorization, Clause, Match, Rule, ServiceAccountMatch, StringMatch,
        string_match::MatchType,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// Namespace of the workload that the flows go to.
pub(crate) const WORKLOAD_NAMESPACE: &str = "a";

const NAMESPACES: [&str; 3] = ["a", "ab", "b"];
const SERVICE_ACCOUNTS: [&str; 3] = ["x", "xy", "y"];
const TRUST_DOMAINS: [&str; 2] = ["td", "td2"];
const POLICY_NAMES: [&str; 3] = ["p", "q", "r"];
const PORTS: [u16; 3] = [80, 81, 443];
const ADDRESSES: [&str; 7] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.1.1",
    "192.168.0.1",
    "::ffff:10.0.0.1",
    "fd00::1",
    "fd00::1:0:0:0:1",
];
const RANGES: [(&str, u32); 16] = [
    ("0.0.0.0", 0),
    ("10.0.0.0", 8),
    ("10.0.0.9", 24),
    ("10.0.0.0", 31),
    ("10.0.0.1", 32),
    ("192.168.0.1", 32),
    ("::", 0),
    ("fd00::", 8),
    ("fd00::", 64),
    ("fd00::1", 128),
    ("::ffff:10.0.0.0", 80),
    ("::ffff:10.0.0.0", 96),
    ("::ffff:10.0.0.0", 120),
    ("::ffff:10.0.0.1", 128),
    ("::ffff:0.0.0.0", 95),
    ("::fffe:10.0.0.1", 96),
];

/// Policies, the keys that a workload names, and connections to the workload.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) policies: Vec<Authorization>,
    pub(crate) keys: Vec<String>,
    pub(crate) connections: Vec<Connection>,
}

/// A flow that owns the peer's identity.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) source: IpAddr,
    pub(crate) peer: Option<Identity>,
    pub(crate) destination: SocketAddr,
}

// === impl Connection ===

impl Connection {
    pub(crate) fn flow(&self) -> Flow<'_> {
        let Self { source, peer, destination } = self;
        Flow { source: *source, identity: peer.as_ref(), destination: *destination }
    }
}

pub(crate) fn case(connections: usize) -> impl Strategy<Value = Case> {
    (policies(), keys(), vec(connection(), connections))
        .prop_map(|(policies, keys, connections)| Case { policies, keys, connections })
}

/// Policies with any numbers, octets and texts that the wire can carry.
pub(crate) fn arbitrary_policies() -> impl Strategy<Value = Vec<Authorization>> {
    let address = (vec(any::<u8>(), 0..18), 0..140_u32)
        .prop_map(|(octets, length)| Address { address: octets.into(), length });
    let text = option::of(any::<String>().prop_map(MatchType::Prefix))
        .prop_map(|match_type| StringMatch { match_type });
    let any_match = (
        vec(prop_oneof![4 => string_match(), 1 => text], 0..3),
        vec(prop_oneof![2 => range(), 1 => address], 0..3),
        vec(prop_oneof![4 => 1..70_000_u32, 1 => any::<u32>()], 0..3),
        any::<bool>(),
    )
        .prop_map(|(strings, ranges, ports, negated)| {
            let mut m = Match { source_ips: ranges, destination_ports: ports, ..Match::default() };
            *(if negated { &mut m.not_principals } else { &mut m.namespaces }) = strings;
            m
        });
    let enumeration = || prop_oneof![8 => 0..3_i32, 1 => any::<i32>()];
    let name =
        prop_oneof![8 => select(&POLICY_NAMES[..]).prop_map(str::to_owned), 1 => any::<String>()];
    let policy = (name, enumeration(), enumeration(), vec(any_match, 0..3)).prop_map(
        |(name, scope, action, matches)| Authorization {
            namespace: WORKLOAD_NAMESPACE.into(),
            rules: vec![Rule { clauses: vec![Clause { matches }] }],
            name,
            scope,
            action,
            ..Authorization::default()
        },
    );
    vec(policy, 0..4)
}

/// Connections of an authenticated and of an unauthenticated peer.
pub(crate) fn fixed_connections() -> Vec<Connection> {
    let connection = |source: &str, peer: Option<&str>| Connection {
        source: source.parse().unwrap(),
        peer: peer.map(|peer| peer.parse().unwrap()),
        destination: "10.0.0.1:80".parse().unwrap(),
    };
    vec![
        connection("10.0.0.1", Some("spiffe://td/ns/a/sa/x")),
        connection("::ffff:10.0.0.1", Some("spiffe://td2/ns/ab/sa/xy")),
        connection("fd00::1", None),
    ]
}

/// Policies of distinct keys: each is taken at most once from the few there are.
fn policies() -> impl Strategy<Value = Vec<Authorization>> {
    let mut keys = Vec::new();
    for namespace in NAMESPACES {
        keys.extend(POLICY_NAMES.map(|name| (namespace, name)));
    }
    let keys = proptest::sample::subsequence(keys, 0..5).prop_shuffle();
    let clauses = || vec(vec(flow_match(), 0..=2).prop_map(clause), 0..=2);
    let rules = move || vec(clauses().prop_map(rule), 0..=2);
    keys.prop_flat_map(move |keys| {
        keys.into_iter()
            .map(|(namespace, name)| {
                let kind = (0..3_i32, 0..2_i32, prop::bool::weighted(0.25));
                (kind, rules()).prop_map(move |((scope, action, dry_run), rules)| Authorization {
                    name: name.into(),
                    namespace: namespace.into(),
                    scope,
                    action,
                    rules,
                    dry_run,
                    extensions: Vec::new(),
                })
            })
            .collect::<Vec<_>>()
    })
}

fn keys() -> impl Strategy<Value = Vec<String>> {
    let key = (select(&NAMESPACES[..]), select(&POLICY_NAMES[..]));
    let key = key.prop_map(|(namespace, name)| format!("{namespace}/{name}"));
    prop_oneof![3 => Just(Vec::new()), 2 => vec(key, 1..3), 1 => Just(vec!["a/unknown".to_owned()])]
}

fn rule(clauses: Vec<Clause>) -> Rule {
    Rule { clauses }
}

fn clause(matches: Vec<Match>) -> Clause {
    Clause { matches }
}

/// A match that sets few of its fields, or none.
fn flow_match() -> impl Strategy<Value = Match> + Clone {
    let set = vec(0..12_usize, 0..=3);
    let values = (
        vec(string_match(), 1..3),
        vec(principal_match(), 1..3),
        vec(range(), 1..3),
        vec(select(&PORTS[..]).prop_map(u32::from), 1..3),
        vec(account_match(), 1..3),
    );
    (set, values).prop_map(|(set, (namespaces, principals, ranges, ports, accounts))| {
        let mut m = Match::default();
        for field in set {
            match field {
                0 => m.namespaces.clone_from(&namespaces),
                1 => m.not_namespaces.clone_from(&namespaces),
                2 => m.principals.clone_from(&principals),
                3 => m.not_principals.clone_from(&principals),
                4 => m.source_ips.clone_from(&ranges),
                5 => m.not_source_ips.clone_from(&ranges),
                6 => m.destination_ips.clone_from(&ranges),
                7 => m.not_destination_ips.clone_from(&ranges),
                8 => m.destination_ports.clone_from(&ports),
                9 => m.not_destination_ports.clone_from(&ports),
                10 => m.service_accounts.clone_from(&accounts),
                _ => m.not_service_accounts.clone_from(&accounts),
            }
        }
        m
    })
}

fn string_match() -> impl Strategy<Value = StringMatch> + Clone {
    pattern(prop_oneof![8 => select(&NAMESPACES[..]), 1 => Just("")].prop_map(str::to_owned))
}

/// Patterns that are pieces of principals, cut anywhere.
fn principal_match() -> impl Strategy<Value = StringMatch> + Clone {
    let piece = (identity(), any::<bool>(), prop_oneof![1 => Just(0), 4 => 0..30_usize]).prop_map(
        |(identity, from_end, cut)| {
            let id = identity.to_string();
            let principal = id.strip_prefix("spiffe://").unwrap_or(&id);
            let cut = cut.min(principal.len());
            if from_end {
                principal[principal.len() - cut..].to_owned()
            } else {
                principal[..cut].to_owned()
            }
        },
    );
    pattern(piece)
}

fn pattern<S>(text: S) -> impl Strategy<Value = StringMatch> + Clone
where
    S: Strategy<Value = String> + Clone,
{
    (text, 0..4_u8).prop_map(|(text, kind)| {
        let match_type = match kind {
            0 => MatchType::Exact(text),
            1 => MatchType::Prefix(text),
            2 => MatchType::Suffix(text),
            _ => MatchType::Presence(()),
        };
        StringMatch { match_type: Some(match_type) }
    })
}

fn account_match() -> impl Strategy<Value = ServiceAccountMatch> + Clone {
    (select(&NAMESPACES[..]), select(&SERVICE_ACCOUNTS[..])).prop_map(|(namespace, account)| {
        ServiceAccountMatch { namespace: namespace.into(), service_account: account.into() }
    })
}

fn range() -> impl Strategy<Value = Address> + Clone {
    select(&RANGES[..]).prop_map(|(address, length)| {
        let octets = match address.parse().unwrap() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        Address { address: octets.into(), length }
    })
}

fn identity() -> impl Strategy<Value = Identity> + Clone {
    (select(&TRUST_DOMAINS[..]), select(&NAMESPACES[..]), select(&SERVICE_ACCOUNTS[..])).prop_map(
        |(trust_domain, namespace, service_account)| Identity {
            trust_domain: trust_domain.parse().unwrap(),
            namespace: namespace.parse().unwrap(),
            service_account: service_account.parse().unwrap(),
        },
    )
}

fn connection() -> impl Strategy<Value = Connection> {
    let address = || select(&ADDRESSES[..]).prop_map(|address| address.parse().unwrap());
    let peer = option::weighted(0.75, identity());
    (address(), peer, address(), select(&PORTS[..])).prop_map(|(source, peer, to, port)| {
        Connection { source, peer, destination: SocketAddr::new(to, port) }
    })
}
