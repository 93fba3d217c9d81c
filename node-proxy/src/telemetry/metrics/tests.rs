use std::{sync::Arc, thread};

use fairlead_component::logging::DroppedLines;
use mesh_api::workload::{Workload, WorkloadUid};

use super::{
    ConnectionLabels, End, NodeMetrics, Outside, Reporter, traffic::Traffic, worker::WorkerMetrics,
};
use crate::telemetry::{
    fixtures::{end, labels, policy_key, workload},
    reason::CloseReason,
};

fn encoded(metrics: &NodeMetrics) -> String {
    metrics.encode().unwrap()
}

/// The value of the only sample of `name` that has all of `parts` in its labels.
fn value(text: &str, name: &str, parts: &[&str]) -> u64 {
    let samples: Vec<_> = text
        .lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name))
        .filter(|line| parts.iter().all(|part| line.contains(part)))
        .collect();
    assert_eq!(samples.len(), 1, "{name} {parts:?} in\n{text}");
    samples[0].rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn one_connection_is_encoded_with_exactly_the_documented_names_and_labels() {
    let metrics = NodeMetrics::new(DroppedLines::default());
    let worker = metrics.worker();
    let counters = worker.connection(&labels("cart"));
    counters.opened();
    counters.request_bytes(311);
    counters.response_bytes(20_480);
    counters.closed(&CloseReason::NotAllowed { policy: policy_key() });
    let series = |flags: &str| {
        [
            "reporter=\"source\",source_workload=\"cart\",source_canonical_service=\"cart\",",
            "source_canonical_revision=\"v1\",source_workload_namespace=\"shop\",",
            "source_principal=\"spiffe://cluster.local/ns/shop/sa/cart\",source_app=\"cart\",",
            "source_version=\"v1\",source_cluster=\"Kubernetes\",",
            "destination_service=\"cache.shop.svc.cluster.local\",",
            "destination_service_namespace=\"shop\",destination_service_name=\"cache\",",
            "destination_workload=\"cache\",destination_canonical_service=\"cache\",",
            "destination_canonical_revision=\"v1\",destination_workload_namespace=\"shop\",",
            "destination_principal=\"spiffe://cluster.local/ns/shop/sa/cache\",",
            "destination_app=\"cache\",destination_version=\"v1\",",
            "destination_cluster=\"Kubernetes\",connection_security_policy=\"mutual_tls\",",
            "source_region=\"eu\",source_zone=\"eu-1\",destination_region=\"eu\",",
            "destination_zone=\"eu-1\",request_protocol=\"tcp\",response_flags=\"",
            flags,
            "\"",
        ]
        .concat()
    };
    let text = encoded(&metrics);
    for (name, flags, value) in [
        ("istio_tcp_connections_opened_total", "-", 1),
        ("istio_tcp_connections_closed_total", "DENY", 1),
        ("istio_tcp_connections_failed_total", "DENY", 1),
        ("istio_tcp_received_bytes_total", "-", 311),
        ("istio_tcp_sent_bytes_total", "-", 20_480),
    ] {
        let line = format!("{name}{{{}}} {value}", series(flags));
        assert!(text.lines().any(|l| l == line), "{line}\nin\n{text}");
    }
    assert_eq!(text.lines().filter(|l| l.contains("source_workload=")).count(), 5);
}

#[test]
fn what_is_not_known_is_labelled_unknown() {
    let metrics = NodeMetrics::new(DroppedLines::default());
    let unknown = ConnectionLabels {
        reporter: Reporter::Destination,
        source: End::default(),
        destination: End { identity: None, ..end("cache") },
        service: None,
        outside: None,
    };
    metrics.worker().connection(&unknown).opened();
    let text = encoded(&metrics);
    let facts = [
        "source_workload=\"unknown\"",
        "source_principal=\"unknown\"",
        "destination_principal=\"unknown\"",
        "destination_service=\"unknown\"",
        "connection_security_policy=\"unknown\"",
        "destination_workload=\"cache\"",
    ];
    assert_eq!(value(&text, "istio_tcp_connections_opened_total", &facts), 1);
}

#[test]
fn what_the_mesh_does_not_know_has_the_names_that_istios_proxies_give_it() {
    let metrics = NodeMetrics::new(DroppedLines::default());
    for outside in [Outside::Passed, Outside::Refused] {
        let destination = End::default();
        let labels = ConnectionLabels {
            destination,
            service: None,
            outside: Some(outside),
            ..labels("cart")
        };
        metrics.worker().connection(&labels).opened();
    }
    let text = encoded(&metrics);
    for name in ["PassthroughCluster", "BlackHoleCluster"] {
        let name = format!("destination_service_name=\"{name}\"");
        let facts = [name.as_str(), "destination_service=\"unknown\""];
        assert_eq!(value(&text, "istio_tcp_connections_opened_total", &facts), 1);
    }
}

#[test]
fn a_hostile_name_cannot_forge_a_sample() {
    let metrics = NodeMetrics::new(DroppedLines::default());
    let hostile = Workload { workload_name: "x\"} 1\nforged 1\\".into(), ..workload("cart") };
    let mut labels = labels("cart");
    labels.source.workload = Some(Arc::new(hostile));
    metrics.worker().connection(&labels).opened();
    let text = encoded(&metrics);
    assert!(text.lines().all(|line| !line.starts_with("forged")), "{text}");
    assert!(text.contains(r#"source_workload="x\"} 1\nforged 1\\""#), "{text}");
}

#[test]
fn counts_from_several_threads_sum_exactly_into_one_series() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 10_000;
    let metrics = NodeMetrics::new(DroppedLines::default());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let worker = metrics.worker();
                for _ in 0..ROUNDS {
                    let counters = worker.connection(&labels("cart"));
                    counters.opened();
                    counters.request_bytes(3);
                    counters.response_bytes(5);
                    counters.closed(&CloseReason::Completed);
                }
            });
        }
    });
    let text = encoded(&metrics);
    let total = THREADS * ROUNDS;
    let cart = ["source_workload=\"cart\""];
    assert_eq!(value(&text, "istio_tcp_connections_opened_total", &cart), total);
    assert_eq!(value(&text, "istio_tcp_connections_closed_total", &cart), total);
    assert_eq!(value(&text, "istio_tcp_received_bytes_total", &cart), 3 * total);
    assert_eq!(value(&text, "istio_tcp_sent_bytes_total", &cart), 5 * total);
}

#[test]
fn pods_of_one_deployment_share_a_series() {
    let metrics = NodeMetrics::new(DroppedLines::default());
    let worker = metrics.worker();
    let first = worker.connection(&labels("cart"));
    let mut other = labels("cart");
    other.source.workload = Some(Arc::new(Workload {
        uid: WorkloadUid("Kubernetes//Pod/shop/cart-1".into()),
        name: "cart-1".into(),
        ..workload("cart")
    }));
    assert!(Arc::ptr_eq(&first, &worker.connection(&other)));
    other.source.identity = None;
    assert!(!Arc::ptr_eq(&first, &worker.connection(&other)));
}

#[test]
fn label_sets_beyond_the_bound_are_counted_in_one_overflow_series() {
    let traffic = Arc::new(Traffic::new(2));
    let mut metrics = NodeMetrics::new(DroppedLines::default());
    metrics.registry = prometheus_client::registry::Registry::default();
    metrics.registry.register_collector(Box::new(Arc::clone(&traffic)));
    let workers = [WorkerMetrics::new(Arc::clone(&traffic)), WorkerMetrics::new(traffic)];
    for name in ["a", "b", "c", "d", "c"] {
        workers[0].connection(&labels(name)).opened();
    }
    for name in ["e", "a"] {
        workers[1].connection(&labels(name)).opened();
    }
    let text = encoded(&metrics);
    let opened = "istio_tcp_connections_opened_total";
    assert_eq!(value(&text, opened, &["source_workload=\"a\""]), 2);
    assert_eq!(value(&text, opened, &["source_workload=\"b\""]), 1);
    assert_eq!(value(&text, opened, &["source_workload=\"overflow\"", "reporter=\"overflow\""]), 4);
    assert_eq!(value(&text, "fairlead_metric_series_overflow_total", &[]), 4);
}

#[test]
fn a_socket_is_counted_until_it_is_dropped() {
    let metrics = NodeMetrics::new(DroppedLines::default());
    let (first, second) = (metrics.worker(), metrics.worker());
    let _kept = first.socket(Reporter::Source);
    let dropped = second.socket(Reporter::Source);
    let name = "istio_tcp_sockets_open";
    assert_eq!(value(&encoded(&metrics), name, &["source"]), 2);
    drop(dropped);
    assert_eq!(value(&encoded(&metrics), name, &["source"]), 1);
    assert_eq!(value(&encoded(&metrics), name, &["destination"]), 0);
}

#[test]
fn the_metrics_of_the_process_have_their_names() {
    let metrics = NodeMetrics::new(DroppedLines::default());
    metrics.limit("connections").inc();
    metrics.limit("connections").inc();
    metrics.config_reloads.rejected.inc();
    (0..4).for_each(|_| metrics.pods.start());
    metrics.pods.stop();
    metrics.pods_waiting.set(2);
    metrics.tunnels_open.outbound.inc();
    let text = encoded(&metrics);
    for (name, label, expected) in [
        ("istio_build", "component=\"fairlead-node\",tag=", 1),
        ("fairlead_limit_reached_total", "limit=\"connections\"", 2),
        ("fairlead_config_reloads_total", "result=\"rejected\"", 1),
        ("fairlead_config_reloads_total", "result=\"applied\"", 0),
        ("fairlead_pods_enrolled", "", 3),
        ("workload_manager_active_proxy_count", "", 3),
        ("workload_manager_pending_proxy_count", "", 2),
        ("workload_manager_proxies_started_total", "", 4),
        ("workload_manager_proxies_stopped_total", "", 1),
        ("fairlead_pods_waiting", "", 2),
        ("fairlead_tunnels_open", "direction=\"outbound\"", 1),
        ("fairlead_tunnels_open", "direction=\"inbound\"", 0),
        ("fairlead_log_lines_dropped_total", "", 0),
        ("fairlead_metric_series_overflow_total", "", 0),
    ] {
        assert_eq!(value(&text, name, &[label]), expected, "{name}");
    }
    assert!(text.ends_with("# EOF\n"));
}
