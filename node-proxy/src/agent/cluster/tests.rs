use super::*;

fn pod(name: &str) -> SeenPod {
    SeenPod {
        namespace: "shop".parse().unwrap(),
        name: name.parse().unwrap(),
        uid: format!("uid-{name}"),
        service_account: "cart".parse().unwrap(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        mode: None,
        inject: None,
        has_sidecar: false,
        host_network: false,
        has_ended: false,
        mark: None,
    }
}

fn namespace(label: Option<&str>) -> SeenNamespace {
    SeenNamespace { name: "shop".to_owned(), mode: label.map(str::to_owned), injection: None }
}

fn key(name: &str) -> PodKey {
    pod(name).key()
}

fn cluster(pods: Vec<SeenPod>, namespaces: Vec<SeenNamespace>) -> Cluster {
    let mut cluster = Cluster::default();
    let pods = pods.into_iter().map(WatchEvent::InitApply).map(ClusterEvent::Pod);
    let namespaces = namespaces.into_iter().map(WatchEvent::InitApply).map(ClusterEvent::Namespace);
    for event in pods.chain(namespaces) {
        cluster.take(event);
    }
    cluster.take(ClusterEvent::Pod(WatchEvent::InitDone));
    cluster.take(ClusterEvent::Namespace(WatchEvent::InitDone));
    cluster
}

fn mode(mode: &str) -> Option<String> {
    Some(mode.to_owned()).filter(|mode| !mode.is_empty())
}

/// What becomes of a pod, in a word.
fn fate(cluster: &Cluster, name: &str) -> &'static str {
    match cluster.wanted(&[]).unwrap().pods.get(&key(name)) {
        Some(Fate::In(_)) => "in",
        Some(Fate::Later { .. }) => "later",
        Some(Fate::Out { .. }) => "out",
        None => "none",
    }
}

#[test]
fn a_pod_is_wanted_by_its_labels_once_it_can_be_enrolled() {
    let cases = [
        ("namespace opted in", pod("a"), Some("ambient"), "in"),
        ("nothing opted in", pod("a"), None, "none"),
        ("opted in itself", SeenPod { mode: mode("ambient"), ..pod("a") }, None, "in"),
        ("opted out itself", SeenPod { mode: mode("none"), ..pod("a") }, Some("ambient"), "none"),
        ("no address", SeenPod { addresses: vec![], ..pod("a") }, Some("ambient"), "later"),
        ("no address, not opted in", SeenPod { addresses: vec![], ..pod("a") }, None, "none"),
        (
            "in the node's network",
            SeenPod { host_network: true, ..pod("a") },
            Some("ambient"),
            "out",
        ),
        ("there, not opted in", SeenPod { host_network: true, ..pod("a") }, None, "none"),
        ("with a sidecar", SeenPod { has_sidecar: true, ..pod("a") }, Some("ambient"), "none"),
        ("ended", SeenPod { has_ended: true, ..pod("a") }, Some("ambient"), "none"),
    ];
    for (case, pod, label, expected) in cases {
        let cluster = cluster(vec![pod], vec![namespace(label)]);
        assert_eq!(fate(&cluster, "a"), expected, "{case}");
    }
}

#[test]
fn what_is_needed_to_enrol_a_pod_is_known() {
    let wanted = cluster(vec![pod("a")], vec![namespace(Some("ambient"))]).wanted(&[]).unwrap();
    let Fate::In(spec) = &wanted.pods[&key("a")] else { panic!("{wanted:?}") };
    assert_eq!((spec.uid.as_deref(), spec.netns.as_deref()), (Some("uid-a"), None));
    assert_eq!(spec.addresses, pod("a").addresses);
    assert_eq!(wanted.marks[&key("a")], Mark { uid: "uid-a".to_owned(), value: None });
}

#[test]
fn nothing_is_wanted_before_everything_was_listed_and_a_list_counts_when_it_is_whole() {
    let mut cluster = Cluster::default();
    cluster.take(ClusterEvent::Pod(WatchEvent::Init));
    cluster.take(ClusterEvent::Pod(WatchEvent::InitApply(pod("a"))));
    cluster.take(ClusterEvent::Pod(WatchEvent::InitDone));
    assert_eq!(cluster.wanted(&[]), None, "the namespaces are not known");
    cluster.take(ClusterEvent::Namespace(WatchEvent::InitApply(namespace(Some("ambient")))));
    assert_eq!(cluster.wanted(&[]), None);
    cluster.take(ClusterEvent::Namespace(WatchEvent::InitDone));
    assert_eq!(fate(&cluster, "a"), "in");

    cluster.take(ClusterEvent::Pod(WatchEvent::Init));
    cluster.take(ClusterEvent::Pod(WatchEvent::InitApply(pod("b"))));
    assert_eq!([fate(&cluster, "a"), fate(&cluster, "b")], ["in", "none"]);
    // The list broke off, and begins anew.
    cluster.take(ClusterEvent::Pod(WatchEvent::Init));
    cluster.take(ClusterEvent::Pod(WatchEvent::InitDone));
    assert_eq!([fate(&cluster, "a"), fate(&cluster, "b")], ["none", "none"]);
}

#[test]
fn a_pod_whose_namespace_is_not_known_is_neither_enrolled_nor_released() {
    let labelled = SeenPod { mode: mode("ambient"), ..pod("b") };
    let mut cluster = cluster(vec![pod("a"), labelled], vec![]);
    assert_eq!([fate(&cluster, "a"), fate(&cluster, "b")], ["later", "in"]);
    cluster.take(ClusterEvent::Namespace(WatchEvent::Apply(namespace(Some("ambient")))));
    assert_eq!(fate(&cluster, "a"), "in");
    cluster.take(ClusterEvent::Namespace(WatchEvent::Apply(namespace(None))));
    assert_eq!([fate(&cluster, "a"), fate(&cluster, "b")], ["none", "in"]);
    cluster.take(ClusterEvent::Pod(WatchEvent::Delete(pod("b"))));
    assert_eq!(fate(&cluster, "b"), "none");
}

#[test]
fn what_was_reported_is_remembered_for_that_very_pod() {
    let mut cluster = cluster(vec![pod("a")], vec![namespace(Some("ambient"))]);
    let value = |cluster: &Cluster| cluster.wanted(&[]).unwrap().marks[&key("a")].value;
    let mark = |uid: &str| Mark { uid: uid.to_owned(), value: Some(Redirection::Enabled) };
    cluster.marked(&key("a"), mark("another"));
    assert_eq!(value(&cluster), None);
    cluster.marked(&key("a"), mark("uid-a"));
    assert_eq!(value(&cluster), Some(Redirection::Enabled));
    let ended = SeenPod { has_ended: true, ..pod("a") };
    cluster.take(ClusterEvent::Pod(WatchEvent::Apply(ended)));
    assert!(cluster.wanted(&[]).unwrap().marks.is_empty(), "nobody asks about it any more");
}
