use super::*;

fn control_plane(dir: &std::path::Path) -> ControlPlane {
    ControlPlane {
        address: "https://127.0.0.1:1".parse().unwrap(),
        server_name: None,
        roots: dir.join("root-cert.pem"),
        token: dir.join("token"),
        cluster_id: "Kubernetes".to_owned(),
    }
}

#[tokio::test]
async fn the_token_of_each_call_is_the_one_in_the_file_then() {
    let dir = tempfile::tempdir().unwrap();
    let control_plane = control_plane(dir.path());
    for (content, expected) in
        [("first\n", Some("Bearer first")), ("second", Some("Bearer second")), (" \n", None)]
    {
        std::fs::write(&control_plane.token, content).unwrap();
        let mut request = Request::new(());
        let authorized = control_plane.authorize(&mut request).await;
        let value = request.metadata().get("authorization").map(|v| v.to_str().unwrap());
        assert_eq!((authorized.is_ok(), value), (expected.is_some(), expected), "{content:?}");
    }
}

#[tokio::test]
async fn what_is_no_token_is_named_without_being_shown() {
    let dir = tempfile::tempdir().unwrap();
    let control_plane = control_plane(dir.path());
    let long = "x".repeat(17 << 10);
    for content in ["two words", "a\nb", "\u{fe}", "", &long] {
        std::fs::write(&control_plane.token, content).unwrap();
        let error = control_plane.authorize(&mut Request::new(())).await.unwrap_err().to_string();
        assert!(error.contains("token"), "{error}");
        assert!(content.is_empty() || !error.contains(content), "{error}");
    }
    std::fs::write(&control_plane.token, "secret").unwrap();
    let mut request = Request::new(());
    control_plane.authorize(&mut request).await.unwrap();
    assert!(!format!("{request:?}").contains("secret"));
}

#[tokio::test]
async fn without_usable_roots_nothing_is_connected_to() {
    let dir = tempfile::tempdir().unwrap();
    let control_plane = control_plane(dir.path());
    let error = control_plane.connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Read { .. }), "{error}");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for content in ["", "nothing", broken] {
        std::fs::write(&control_plane.roots, content).unwrap();
        let error = control_plane.connect().await.unwrap_err();
        assert!(matches!(error, ConnectError::Roots { .. }), "{content:?}: {error}");
    }
}
