//! What the authority certifies, seen from outside.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use fairlead_lab::{Host as _, PodSpec, mesh::ControlledMesh, python, wait_for};
use mesh_api::{
    control_plane::ControlPlane,
    proto::ca::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_client::IstioCertificateServiceClient,
    },
};
use prost_types::{Struct, Value, value::Kind};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use tonic::{Request, Status};

use super::wait_for_answer;
use crate::{
    clients::{Answer, SOON, curl},
    mesh::{HTTP, vip4},
};

/// Asks the authority for a certificate of `identity`, from node 1 and with the token in a file.
fn ask(
    mesh: &ControlledMesh,
    token: PathBuf,
    identity: &str,
) -> Result<Result<IstioCertificateResponse, Status>> {
    let control_plane = ControlPlane {
        address: mesh.plane.address().to_string().parse()?,
        server_name: None,
        roots: mesh.plane.root_cert(),
        token,
        cluster_id: "Kubernetes".to_owned(),
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.try_into()?)];
    let value = Value { kind: Some(Kind::StringValue(identity.to_owned())) };
    let mut request = Request::new(IstioCertificateRequest {
        csr: params.serialize_request(&KeyPair::generate()?)?.pem()?,
        validity_duration: 3600,
        metadata: Some(Struct { fields: [("ImpersonatedIdentity".to_owned(), value)].into() }),
    });
    mesh.lab.node(1).netns().enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            control_plane.authorize(&mut request).await?;
            let mut client = IstioCertificateServiceClient::new(control_plane.connect().await?);
            Ok(client.create_certificate(request).await.map(tonic::Response::into_inner))
        })
    })
}

#[test]
fn a_nodes_token_gets_the_identities_of_pods_on_that_node_only() -> Result<()> {
    let mesh = ControlledMesh::new("cptoken")?;
    let (of_n1, of_n2) = (mesh.plane.token_of("n1"), mesh.plane.token_of("n2"));
    let refusals =
        || mesh.plane.metrics().map(|m| m.sum("citadel_server_authentication_failure_count", &[]));
    for (token, pod, granted) in [
        (&of_n1, &mesh.a, true),
        (&of_n1, &mesh.c, true),
        (&of_n2, &mesh.b, true),
        // Stolen, or used by a node that was broken into.
        (&of_n1, &mesh.b, false),
        (&of_n2, &mesh.a, false),
        // Another trust domain is not asked for in this way, a pod that does not take part is.
        (&of_n1, &mesh.outsider, true),
    ] {
        let before = refusals()?;
        let answer = ask(&mesh, token.clone(), &pod.identity())?;
        assert_eq!(answer.is_ok(), granted, "{}: {answer:?}", pod.identity());
        if let Err(status) = answer {
            let message = format!("no running pod of {} is known on node", pod.identity());
            assert!(status.message().contains(&message), "{status}");
            assert!(refusals()? > before);
            let told = |line: &str| line.contains("refused") && line.contains(&pod.identity());
            // Lines are written a moment after the answer.
            wait_for("a line about the refusal", SOON, || {
                Ok(mesh.plane.log()?.lines().any(told).then_some(()))
            })?;
        }
    }
    let nobody = mesh.lab.dir().join("stolen");
    std::fs::write(&nobody, "a-token-that-nobody-gave-out")?;
    let status = ask(&mesh, nobody, &mesh.a.identity())?.err().context("granted")?;
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    Ok(())
}

#[test]
fn a_pod_that_is_said_to_run_elsewhere_gets_no_certificate_and_no_connection() -> Result<()> {
    let mesh = ControlledMesh::new("cpelsewhere")?;
    let imposter = mesh
        .lab
        .node(1)
        .add_pod(PodSpec::new("imposter").namespace("shop").service_account("b"))?;
    let _server = imposter.serve(python("http_server.py", &[HTTP.to_string()]), HTTP)?;
    // The node says that it has a pod of the account; the control plane knows none there.
    mesh.n1.enrol(&imposter)?;
    wait_for("the refusal", SOON, || {
        let log = mesh.plane.log()?;
        Ok(log.contains("no running pod of spiffe://cluster.local/ns/shop/sa/b").then_some(()))
    })?;
    assert!(curl(&imposter, vip4(20, 80))?.is_refused());
    assert!(curl(&mesh.a, vip4(10, 80))?.is_ok());
    // Once it is said to run here, it does.
    mesh.write_pod(&imposter)?;
    wait_for_answer(&imposter, vip4(20, 80), Answer::is_ok)?;
    Ok(())
}
