use mesh_api::proto::l7::{
    Variant, consistent_hash, load_balancer::Algorithm, resource::Kind, upstream_tls::Mode,
};

use super::{destination_rule, shop};
use crate::{
    fixture::{applied, l7, object},
    mesh::{Event, Mesh},
    object::ObjectKind,
};

/// How `cart` is used by the waypoint of its namespace.
fn variants(more: &str) -> Vec<Variant> {
    let name = "destination/shop/shop/cart.shop.svc.cluster.local";
    match l7(&shop(more)).remove(name) {
        Some(Kind::Destination(destination)) => destination.variants,
        None => Vec::new(),
        other => panic!("{other:?}"),
    }
}

/// How `cart` is used as a whole, by a rule with `policy`.
fn lowered(policy: &str) -> Variant {
    let rule = destination_rule("shop", "r", &format!("host: cart, trafficPolicy: {{{policy}}}"));
    let [variant] = <[Variant; 1]>::try_from(variants(&rule)).unwrap();
    variant
}

/// Largest number of connections, port and subset of each variant.
fn limits(more: &str) -> Vec<(u32, String, u32)> {
    let limit =
        |variant: &Variant| variant.connection_pool.as_ref().map_or(0, |p| p.max_connections);
    variants(more).into_iter().map(|v| (v.port, v.subset.clone(), limit(&v))).collect()
}

fn limit(number: u32) -> String {
    format!("connectionPool: {{tcp: {{maxConnections: {number}}}}}")
}

#[test]
fn ports_and_subsets_replace_what_they_say_themselves() {
    let (one, two, three, four) = (limit(1), limit(2), limit(3), limit(4));
    let lb = "loadBalancer: {simple: RANDOM}";
    let rule = format!(
        "host: cart, trafficPolicy: {{{one}, portLevelSettings: [{{port: {{number: 80}}, {lb}}}]}}, \
         subsets: [{{name: plain, labels: {{v: '1'}}}}, {{name: own, trafficPolicy: {{{three}}}}}, \
         {{name: ported, trafficPolicy: {{{two}, portLevelSettings: [{{port: {{number: 9000}}, \
         {four}}}]}}}}]"
    );
    let told = limits(&destination_rule("shop", "r", &rule));
    let expected = [
        (0, "", 1),
        (80, "", 0),
        (0, "plain", 1),
        (80, "plain", 0),
        (0, "own", 3),
        (80, "own", 3),
        (0, "ported", 2),
        (80, "ported", 2),
        (9000, "ported", 4),
    ];
    let expected = expected.map(|(port, subset, limit)| (port, subset.to_owned(), limit));
    assert_eq!(told, expected);
    let all = variants(&destination_rule("shop", "r", &rule));
    assert!(all[1].load_balancer.is_some() && all[0].load_balancer.is_none());
    assert_eq!(all[2].labels["v"], "1");
}

#[test]
fn the_rule_of_the_consumer_comes_before_the_service_s_and_the_root_s() {
    let fqdn = "cart.shop.svc.cluster.local";
    let rule = |namespace: &str, name: &str, host: &str, more: &str, number| {
        let policy = limit(number);
        let spec = format!("host: '{host}', {more} trafficPolicy: {{{policy}}}");
        destination_rule(namespace, name, &spec)
    };
    let root = rule("istio-system", "root", fqdn, "", 9);
    let wide = rule("shop", "wide", "*.cluster.local", "", 2);
    let close = rule("shop", "close", "*.shop.svc.cluster.local", "", 3);
    let exact = rule("shop", "exact", "cart", "", 4);
    let hidden = rule("istio-system", "root", fqdn, "exportTo: ['.'],", 9);
    let selecting = rule("shop", "exact", "cart", "workloadSelector: {matchLabels: {a: b}},", 5);
    let elsewhere = rule("bank", "r", fqdn, "", 7);
    let cases = [
        (root.clone(), Some(9)),
        (root.clone() + &wide, Some(2)),
        (root.clone() + &wide + &close, Some(3)),
        (root.clone() + &wide + &close + &exact, Some(4)),
        (hidden, None),
        (root + &selecting, Some(9)),
        (elsewhere, None),
    ];
    for (yaml, expected) in cases {
        let found = limits(&yaml).first().map(|(_, _, limit)| *limit);
        assert_eq!(found, expected, "{yaml}");
    }
}

#[test]
fn rules_of_one_host_are_merged_the_oldest_first() {
    let dated = |name: &str, date: &str, spec: &str| {
        let dated = format!("namespace: shop, creationTimestamp: '{date}'");
        destination_rule("shop", name, spec).replace("namespace: shop", &dated)
    };
    let (one, two) = (limit(1), limit(2));
    let old = dated("b", "2024", "host: cart, subsets: [{name: x, labels: {v: old}}]");
    let new = dated(
        "a",
        "2025",
        &format!("host: cart, trafficPolicy: {{{two}}}, subsets: [{{name: x}}, {{name: y}}]"),
    );
    let last = dated("c", "2026", &format!("host: cart, trafficPolicy: {{{one}}}"));
    let other = dated("d", "2026", "host: cart, exportTo: ['.'], subsets: [{name: z}]");
    let told = variants(&(old + &new + &last + &other));
    let subsets: Vec<_> = told.iter().map(|v| v.subset.as_str()).collect();
    assert_eq!(subsets, ["", "x", "y"]);
    assert_eq!(told[1].labels.get("v").map(String::as_str), Some("old"));
    assert_eq!(told[0].connection_pool.as_ref().unwrap().max_connections, 2);
}

#[test]
fn algorithms_are_told_with_their_parameters() {
    let algorithm = |fields: &str| {
        let balancer = lowered(&format!("loadBalancer: {{{fields}}}")).load_balancer.unwrap();
        (format!("{:?}", balancer.algorithm.unwrap()), balancer.warmup.is_some())
    };
    let simple = [
        ("simple: LEAST_CONN", "Simple(LeastRequest)", false),
        ("simple: ROUND_ROBIN, warmup: {duration: 10s}", "Simple(RoundRobin)", true),
        ("simple: RANDOM, warmupDurationSecs: 10s", "Simple(Random)", false),
        ("simple: PASSTHROUGH", "Simple(Passthrough)", false),
        ("warmupDurationSecs: 10s", "Simple(LeastRequest)", true),
    ];
    for (fields, expected, warms_up) in simple {
        assert_eq!(algorithm(fields), (expected.to_owned(), warms_up), "{fields}");
    }
    let hash = |fields: &str| {
        let policy = format!("loadBalancer: {{consistentHash: {{{fields}}}}}");
        match lowered(&policy).load_balancer.unwrap().algorithm {
            Some(Algorithm::ConsistentHash(hash)) => (hash.key.unwrap(), hash.table.unwrap()),
            other => panic!("{other:?}"),
        }
    };
    let (key, table) = hash("httpHeaderName: X-User");
    assert_eq!(key, consistent_hash::Key::Header("x-user".into()));
    assert_eq!(table, consistent_hash::Table::MinimumRingSize(1024));
    let (key, table) = hash("httpCookie: {name: c, path: /, ttl: 0s}, maglev: {tableSize: 65537}");
    let consistent_hash::Key::Cookie(cookie) = key else { panic!("{key:?}") };
    assert_eq!(cookie.ttl, Some(prost_types::Duration::default()));
    let (key, _) = hash("httpCookie: {name: c, attributes: [{name: SameSite, value: Lax}]}");
    let consistent_hash::Key::Cookie(cookie) = key else { panic!("{key:?}") };
    let [attribute] = &cookie.attributes[..] else { panic!("{cookie:?}") };
    assert_eq!((attribute.name.as_str(), attribute.value.as_str()), ("SameSite", "Lax"));
    assert_eq!(table, consistent_hash::Table::MaglevTableSize(65537));
    assert_eq!(hash("useSourceIp: true").0, consistent_hash::Key::SourceIp(true));
}

#[test]
fn limits_and_errors_are_told_with_their_defaults() {
    let pool = lowered(
        "connectionPool: {tcp: {maxConnections: 1, connectTimeout: 2s, idleTimeout: 5s}, http: \
         {http1MaxPendingRequests: 1, http2MaxRequests: 3, maxRequestsPerConnection: 4, maxRetries: \
         5, idleTimeout: 0s, useClientProtocol: true, http2KeepAlive: {interval: 7s, timeout: 3s}}}",
    )
    .connection_pool
    .unwrap();
    assert_eq!((pool.max_connections, pool.max_pending_requests, pool.max_requests), (1, 1, 3));
    assert_eq!((pool.max_requests_per_connection, pool.max_retries), (4, 5));
    assert_eq!(pool.idle_timeout, Some(prost_types::Duration::default()));
    assert_eq!(pool.tcp_idle_timeout.map(|idle| idle.seconds), Some(5));
    let probes = pool.http2_keepalive.unwrap();
    assert_eq!(
        probes.interval.zip(probes.timeout).map(|(i, t)| (i.seconds, t.seconds)),
        Some((7, 3))
    );
    assert_eq!(pool.http_version(), mesh_api::proto::l7::HttpVersion::AsClient);
    let usual = lowered("outlierDetection: {}").outlier_detection.unwrap();
    assert_eq!((usual.consecutive_5xx, usual.consecutive_gateway_errors), (5, 0));
    assert_eq!((usual.max_ejection_percent, usual.consecutive_local_failures), (10, 0));
    assert_eq!(usual.interval.unwrap().seconds, 10);
    assert_eq!(usual.base_ejection_time.unwrap().seconds, 30);
    let written = lowered(
        "outlierDetection: {consecutive5xxErrors: 0, consecutiveErrors: 7, interval: 5s, \
         baseEjectionTime: 5s, maxEjectionPercent: 100, splitExternalLocalOriginErrors: true}",
    )
    .outlier_detection
    .unwrap();
    assert_eq!((written.consecutive_5xx, written.consecutive_gateway_errors), (0, 7));
    assert_eq!((written.max_ejection_percent, written.consecutive_local_failures), (100, 5));
}

#[test]
fn localities_tls_and_the_rest_are_told() {
    let locality = |fields: &str| {
        lowered(&format!("loadBalancer: {{{fields}}}")).load_balancer.unwrap().locality.unwrap()
    };
    let spread = locality("localityLbSetting: {distribute: [{from: a/*, to: {b/*: 100}}]}");
    assert_eq!((spread.distribute[0].from.as_str(), spread.distribute[0].to["b/*"]), ("a/*", 100));
    assert!(locality("localityLbSetting: {enabled: false}").disabled);
    let zones = locality("zoneAwareLbSetting: {failoverPriority: [k]}");
    assert_eq!(zones.failover_priority, ["k"]);
    let tls = lowered("tls: {mode: SIMPLE, sni: a.b}").tls.unwrap();
    assert_eq!((tls.mode(), tls.sni.as_str()), (Mode::Simple, "a.b"));
    let revoked = lowered("tls: {mode: SIMPLE, caCrl: /etc/crl.pem}").tls.unwrap();
    assert_eq!(revoked.revocation_list, "/etc/crl.pem");
    assert!(lowered("tls: {mode: ISTIO_MUTUAL}").tls.is_none());
    let budget = lowered("retryBudget: {}, proxyProtocol: {version: V2}");
    assert_eq!(budget.proxy_protocol, 2);
    let budget = budget.retry_budget.unwrap();
    assert_eq!((budget.percent, budget.min_concurrency), (Some(20.0), 3));
    let none = lowered("retryBudget: {percent: 0}").retry_budget.unwrap();
    assert_eq!(none.percent, Some(0.0));
}

#[test]
fn what_the_mesh_configuration_says_holds_where_no_rule_says_it() {
    let config = "---
{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: \
 'defaultTrafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}, outlierDetection: \
 {consecutive5xxErrors: 3}}'}}
";
    let errors = |more: &str| {
        let all = variants(&(config.to_owned() + more)).into_iter();
        all.map(|v| v.outlier_detection.map_or(0, |d| d.consecutive_5xx)).collect::<Vec<_>>()
    };
    let limits = |more: &str| limits(&(config.to_owned() + more));
    let of = |subset: &str, limit| (0, subset.to_owned(), limit);
    // Services are told of as soon as waypoints send them anything.
    let used = super::virtual_service(
        "v",
        "hosts: [cart], http: [{route: [{destination: {host: cart}}]}]",
    );
    assert_eq!(limits(&used), [of("", 7)]);
    let rule = |spec: &str| destination_rule("shop", "r", &format!("host: cart, {spec}"));
    let random = rule("trafficPolicy: {loadBalancer: {simple: RANDOM}}");
    assert_eq!((limits(&random), errors(&random)), (vec![of("", 7)], vec![3]));
    let own = rule(&format!("trafficPolicy: {{{}}}, subsets: [{{name: a}}]", limit(1)));
    assert_eq!((limits(&own), errors(&own)), (vec![of("", 1), of("a", 1)], vec![3, 3]));
    let subset = rule("subsets: [{name: a}]");
    assert_eq!(limits(&subset), [of("", 7), of("a", 7)]);
}

#[test]
fn the_mesh_says_how_endpoints_are_chosen_where_neither_a_rule_nor_the_service_does() {
    let config = |setting: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio, namespace: \
             istio-system}}, data: {{mesh: 'localityLbSetting: {{{setting}}}'}}}}\n"
        )
    };
    let used = super::virtual_service(
        "v",
        "hosts: [cart], http: [{route: [{destination: {host: cart}}]}]",
    );
    let priorities = |more: &str| {
        let localities = variants(more).into_iter().map(|v| v.load_balancer?.locality);
        let told = localities.map(|l| l.map(|l| (l.failover_priority, l.disabled)));
        told.collect::<Vec<_>>()
    };
    let said = |keys: &[&str], disabled| {
        Some((keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>(), disabled))
    };
    let mesh = config("failoverPriority: [rack]");
    assert_eq!(priorities(&(mesh.clone() + &used)), [said(&["rack"], false)]);
    assert_eq!(priorities(&(config("enabled: false") + &used)), [said(&[], true)]);
    // What is so in any case is not told.
    for setting in ["", "enabled: true"] {
        assert_eq!(priorities(&(config(setting) + &used)), []);
    }
    let rule = |policy: &str| {
        let spec = format!("host: cart, trafficPolicy: {{loadBalancer: {{{policy}}}}}");
        mesh.clone() + &destination_rule("shop", "r", &spec)
    };
    assert_eq!(priorities(&rule("simple: RANDOM")), [said(&["rack"], false)]);
    let own = "localityLbSetting: {failoverPriority: [row]}";
    assert_eq!(priorities(&rule(own)), [said(&["row"], false)]);
    assert_eq!(priorities(&rule("localityLbSetting: {enabled: false}")), [said(&[], true)]);
    assert_eq!(priorities(&rule("zoneAwareLbSetting: {enabled: true}")), [said(&[], false)]);
}

#[test]
fn what_a_service_says_of_its_endpoints_comes_before_what_the_mesh_says() {
    let config = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: \
                  istio-system}, data: {mesh: 'localityLbSetting: {enabled: false}'}}\n";
    let used = super::virtual_service(
        "v",
        "hosts: [cart], http: [{route: [{destination: {host: cart}}]}]",
    );
    let name = "destination/shop/shop/cart.shop.svc.cluster.local";
    let mut mesh = shop(&(config.to_owned() + &used));
    assert!(l7(&mesh).contains_key(name));
    let (yes, no) = ("PreferClose", "anything");
    for (value, is_told) in [(yes, false), (no, true)] {
        let namespace = format!(
            "---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, labels: \
             {{istio.io/use-waypoint: w}}, annotations: {{networking.istio.io/traffic-distribution: \
             {value}}}}}}}\n"
        );
        mesh.apply(applied(&namespace));
        assert_eq!(l7(&mesh).contains_key(name), is_told, "{value}");
    }
}

#[test]
fn how_connections_are_made_in_the_mesh_holds_where_no_rule_says_it() {
    let config = "---
{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: \
 '{connectTimeout: 3s, tcpKeepalive: {probes: 4}}'}}
";
    let used = super::virtual_service(
        "v",
        "hosts: [cart], http: [{route: [{destination: {host: cart}}]}]",
    );
    let rule = |spec: &str| destination_rule("shop", "r", &format!("host: cart, {spec}"));
    let told = |more: &str| {
        let [variant] = <[Variant; 1]>::try_from(variants(&(config.to_owned() + more))).unwrap();
        let pool = variant.connection_pool.unwrap();
        (pool.connect_timeout.unwrap().seconds, pool.tcp_keepalive.map(|probes| probes.probes))
    };
    assert_eq!(told(&used), (3, Some(4)));
    let tcp =
        |field: &str| rule(&format!("trafficPolicy: {{connectionPool: {{tcp: {{{field}}}}}}}"));
    assert_eq!(told(&tcp("connectTimeout: 1s")), (1, Some(4)));
    assert_eq!(told(&tcp("tcpKeepalive: {probes: 2}")), (3, Some(2)));
}

/// What is warned of because of these rules.
fn warnings(rules: &str) -> Vec<String> {
    warnings_of(&shop(rules))
}

fn warnings_of(mesh: &Mesh) -> Vec<String> {
    let warnings = mesh.warnings();
    let of_rules = warnings.into_iter().filter(|(key, _)| key.kind == ObjectKind::DestinationRule);
    of_rules.flat_map(|(_, warnings)| warnings).map(|warning| warning.to_string()).collect()
}

#[test]
fn what_a_rule_says_in_vain_is_warned_of_by_its_field() {
    let at = "spec.trafficPolicy";
    let failover = "loadBalancer: {localityLbSetting: {failoverPriority: [k]}}";
    let outliers = "outlierDetection: {}";
    let cases = [
        (format!("trafficPolicy: {{{outliers}}}"), vec![]),
        (
            "trafficPolicy: {tunnel: {targetHost: a, targetPort: 1}}".to_owned(),
            vec![format!("{at}.tunnel has no effect: waypoints ask no other proxy")],
        ),
        (
            "trafficPolicy: {retryBudget: {budgetInterval: 10s}}".to_owned(),
            vec![format!("{at}.retryBudget.budgetInterval has no effect: ")],
        ),
        (
            format!("trafficPolicy: {{{failover}}}"),
            vec![format!("{at}.loadBalancer.localityLbSetting has no effect: ")],
        ),
        (format!("trafficPolicy: {{{failover}, {outliers}}}"), vec![]),
        // A subset has what it does not say itself from the rule, a port has not.
        (
            format!(
                "trafficPolicy: {{{outliers}, portLevelSettings: [{{port: {{number: 80}}, \
                 {failover}}}]}}, subsets: [{{name: s, trafficPolicy: {{{failover}}}}}]"
            ),
            vec![format!("{at}.portLevelSettings[0].loadBalancer.localityLbSetting has no effect")],
        ),
        (
            "trafficPolicy: {loadBalancer: {warmup: {duration: 1s}, consistentHash: {useSourceIp: \
             false}}}"
                .to_owned(),
            vec![
                format!("{at}.loadBalancer.warmup has no effect: "),
                format!("{at}.loadBalancer.consistentHash.useSourceIp has no effect: "),
            ],
        ),
        (
            "trafficPolicy: {loadBalancer: {simple: RANDOM, warmupDurationSecs: 1s}}".to_owned(),
            vec![format!("{at}.loadBalancer.warmupDurationSecs has no effect: ")],
        ),
        (
            "trafficPolicy: {loadBalancer: {zoneAwareLbSetting: {minClusterSize: 3}}}".to_owned(),
            vec![format!("{at}.loadBalancer.zoneAwareLbSetting.minClusterSize has no effect: ")],
        ),
        (
            "workloadSelector: {matchLabels: {a: b}}".to_owned(),
            vec!["spec.workloadSelector has no effect: ".to_owned()],
        ),
    ];
    for (spec, expected) in cases {
        let found = warnings(&destination_rule("shop", "r", &format!("host: cart, {spec}")));
        assert_eq!(found.len(), expected.len(), "{spec}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(&expected), "{spec}: {found}");
        }
    }
}

#[test]
fn a_rule_is_told_what_an_older_one_says_of_the_same_host() {
    let rule = |name: &str, spec: &str| destination_rule("shop", name, spec);
    let policy = "trafficPolicy: {loadBalancer: {simple: RANDOM}}";
    let older = rule("a", &format!("host: cart, {policy}, subsets: [{{name: x}}]"));
    let newer = rule("b", &format!("host: cart, {policy}, subsets: [{{name: y}}, {{name: x}}]"));
    let told = |field: &str| {
        format!(
            "{field} has no effect, as shop/a is older and says it of the same host: put both into one \
             object"
        )
    };
    let both = warnings(&(older.clone() + &newer));
    assert_eq!(both, [told("spec.trafficPolicy"), told("spec.subsets[1]")]);
    assert_eq!(warnings(&(newer.clone() + &older)), both);
    assert_eq!(warnings(&newer), [""; 0]);
    // It goes with the other one.
    let mut mesh = shop(&(older.clone() + &newer));
    mesh.apply(vec![Event::Deleted(object(&older).key())]);
    assert_eq!(warnings_of(&mesh), [""; 0]);
}
