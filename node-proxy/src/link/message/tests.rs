use super::*;

const POD: PodId = PodId { netns: 4711, enrolment: 99 };

/// Messages as version 1 writes them. They never change: the previous release speaks them.
#[test]
fn messages_to_a_proxy_are_those_of_version_1() {
    let served = ServedPod {
        pod: POD,
        namespace: "shop".parse().unwrap(),
        name: "cart-0".parse().unwrap(),
        service_account: "cart".parse().unwrap(),
        addresses: vec!["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
    };
    let counted = CountedPod {
        namespace: "shop".parse().unwrap(),
        name: "cart-0".parse().unwrap(),
        counts: vec![5, 0, 2],
    };
    let pod = POD;
    let table = [
        (ToProxy::Hello { version: 1 }, r#"{"type":"hello","version":1}"#),
        (ToProxy::Register, r#"{"type":"register"}"#),
        (ToProxy::Endpoints, r#"{"type":"endpoints"}"#),
        (
            ToProxy::Serve(served),
            r#"{"type":"serve","pod":{"netns":4711,"enrolment":99},"namespace":"shop","name":"cart-0","service_account":"cart","addresses":["10.1.0.2","fd00::2"]}"#,
        ),
        (
            ToProxy::Sockets { pod, kind: SocketKind::DeliveryV4, error: None },
            r#"{"type":"sockets","pod":{"netns":4711,"enrolment":99},"kind":"delivery_v4"}"#,
        ),
        (
            ToProxy::Sockets { pod, kind: SocketKind::OutboundV6, error: Some(24) },
            r#"{"type":"sockets","pod":{"netns":4711,"enrolment":99},"kind":"outbound_v6","error":24}"#,
        ),
        (ToProxy::Resolve { pod }, r#"{"type":"resolve","pod":{"netns":4711,"enrolment":99}}"#),
        (ToProxy::Recorded, r#"{"type":"recorded"}"#),
        (ToProxy::Release { pod }, r#"{"type":"release","pod":{"netns":4711,"enrolment":99}}"#),
        (ToProxy::Cut { pod }, r#"{"type":"cut","pod":{"netns":4711,"enrolment":99}}"#),
        (ToProxy::Describe { request: 7 }, r#"{"type":"describe","request":7}"#),
        (ToProxy::PodLimitReached, r#"{"type":"pod_limit_reached"}"#),
        (ToProxy::Waiting { pods: 3 }, r#"{"type":"waiting","pods":3}"#),
        (
            ToProxy::Counted { pods: vec![counted], last: true },
            r#"{"type":"counted","pods":[{"namespace":"shop","name":"cart-0","counts":[5,0,2]}],"last":true}"#,
        ),
        (
            ToProxy::Drain { grace_ms: 25_000, succeeded: true },
            r#"{"type":"drain","grace_ms":25000,"succeeded":true}"#,
        ),
    ];
    for (message, text) in table {
        assert_eq!(serde_json::to_string(&message).unwrap(), text);
        assert_eq!(serde_json::from_str::<ToProxy>(text).unwrap(), message);
    }
}

#[test]
fn messages_to_capture_are_those_of_version_1() {
    let pod = POD;
    let report = PodReport { pod, connections: 3, problem: Some("no certificate".to_owned()) };
    let table = [
        (
            ToCapture::Hello { version: 1, holding: 2, draining: false },
            r#"{"type":"hello","version":1,"holding":2,"draining":false}"#,
        ),
        (ToCapture::Holding { pod }, r#"{"type":"holding","pod":{"netns":4711,"enrolment":99}}"#),
        (ToCapture::HoldingEndpoints, r#"{"type":"holding_endpoints"}"#),
        (ToCapture::Registered, r#"{"type":"registered"}"#),
        (ToCapture::Serving { pod }, r#"{"type":"serving","pod":{"netns":4711,"enrolment":99}}"#),
        (
            ToCapture::Resolving { pod },
            r#"{"type":"resolving","pod":{"netns":4711,"enrolment":99}}"#,
        ),
        (
            ToCapture::RefuseDatagrams { pod, refuse: true },
            r#"{"type":"refuse_datagrams","pod":{"netns":4711,"enrolment":99},"refuse":true}"#,
        ),
        (
            ToCapture::Need { pod, kind: SocketKind::DatagramV4, count: 8 },
            r#"{"type":"need","pod":{"netns":4711,"enrolment":99},"kind":"datagram_v4","count":8}"#,
        ),
        (ToCapture::Quit, r#"{"type":"quit"}"#),
        (ToCapture::Complete, r#"{"type":"complete"}"#),
        (ToCapture::Silent { pod }, r#"{"type":"silent","pod":{"netns":4711,"enrolment":99}}"#),
        (ToCapture::Idle { pod }, r#"{"type":"idle","pod":{"netns":4711,"enrolment":99}}"#),
        (
            ToCapture::Need { pod, kind: SocketKind::OutboundV4, count: 8 },
            r#"{"type":"need","pod":{"netns":4711,"enrolment":99},"kind":"outbound_v4","count":8}"#,
        ),
        (
            ToCapture::Pods { request: 7, pods: vec![report], last: true },
            r#"{"type":"pods","request":7,"pods":[{"pod":{"netns":4711,"enrolment":99},"connections":3,"problem":"no certificate"}],"last":true}"#,
        ),
    ];
    for (message, text) in table {
        assert_eq!(serde_json::to_string(&message).unwrap(), text);
        assert_eq!(serde_json::from_str::<ToCapture>(text).unwrap(), message);
    }
}

#[test]
fn messages_and_fields_of_a_later_release_are_ignored() {
    let later = r#"{"type":"hello","version":9,"colour":"blue"}"#;
    assert_eq!(serde_json::from_str::<ToProxy>(later).unwrap(), ToProxy::Hello { version: 9 });
    let later = r#"{"type":"paint","colour":"blue"}"#;
    assert_eq!(serde_json::from_str::<ToProxy>(later).unwrap(), ToProxy::Unknown);
    assert_eq!(serde_json::from_str::<ToCapture>(later).unwrap(), ToCapture::Unknown);
}

#[test]
fn the_longest_report_fits_one_message() {
    let report = PodReport {
        pod: PodId { netns: u64::MAX, enrolment: u64::MAX },
        connections: u64::MAX,
        problem: Some("x".repeat(MAX_PROBLEM_BYTES)),
    };
    let pods = vec![report; MAX_PODS_PER_MESSAGE];
    let message = ToCapture::Pods { request: u64::MAX, pods, last: false };
    let length = serde_json::to_vec(&message).unwrap().len();
    assert!(length <= crate::link::channel::MAX_MESSAGE_BYTES, "{length}");
}
