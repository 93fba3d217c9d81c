//! The clients of a node proxy: of discovery, and of certificates.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use mesh_api::{
    control_plane::ControlPlane,
    proto::{
        ca::{
            IstioCertificateRequest,
            istio_certificate_service_client::IstioCertificateServiceClient,
        },
        discovery::Node,
    },
    xds_client::{Change, Event, MeshResource, Session, mesh_subscriptions, run},
};
use prost_types::{Struct, value::Kind};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Request, Status};

use crate::plane::{Plane, SOON};

/// How the control plane answers before it knows anything.
const NOT_READ_YET: &str = "the first state is still being read";

/// What a client of everything knows.
pub(crate) struct Client {
    pub(crate) known: BTreeMap<String, MeshResource>,
    events: mpsc::Receiver<Event<MeshResource>>,
}

// === impl Client ===

impl Client {
    /// Subscribes to everything.
    pub(crate) fn connect(plane: &Plane) -> Result<Self> {
        let session = Session::new(Node::default(), mesh_subscriptions());
        let (send, events) = mpsc::channel(16);
        tokio::spawn(run(control_plane(plane)?, session, send));
        Ok(Self { events, known: BTreeMap::new() })
    }

    pub(crate) async fn until(
        &mut self,
        done: impl Fn(&BTreeMap<String, MeshResource>) -> bool,
    ) -> Result<()> {
        while !done(&self.known) {
            let event = timeout(SOON, self.events.recv())
                .await
                .with_context(|| format!("known: {:?}", self.known.keys().collect::<Vec<_>>()))?;
            match event.context("the client ended")? {
                Event::Update(update) => {
                    anyhow::ensure!(update.rejections.is_empty(), "{:?}", update.rejections);
                    for change in update.changes {
                        match change {
                            Change::Updated(name, resource) => {
                                self.known.insert(name.to_string(), resource);
                            }
                            Change::Removed(name) => {
                                self.known.remove(&*name);
                            }
                        }
                    }
                }
                Event::Connected => {}
                // It is told to ask again, and does.
                Event::Disconnected(end) if end.to_string().contains(NOT_READ_YET) => {}
                Event::Disconnected(end) => anyhow::bail!("{end}"),
            }
        }
        Ok(())
    }
}

/// Asks for a certificate of an identity, and returns the chain.
pub(crate) async fn certify(plane: &Plane, identity: &str) -> Result<Result<Vec<String>, Status>> {
    let control_plane = control_plane(plane)?;
    let mut client = IstioCertificateServiceClient::new(control_plane.connect().await?);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.try_into()?)];
    let csr = params.serialize_request(&KeyPair::generate()?)?.pem()?;
    let value = prost_types::Value { kind: Some(Kind::StringValue(identity.to_owned())) };
    let metadata = Struct { fields: [("ImpersonatedIdentity".to_owned(), value)].into() };
    let mut request = Request::new(IstioCertificateRequest {
        csr,
        validity_duration: 3600,
        metadata: Some(metadata),
    });
    control_plane.authorize(&mut request).await?;
    let response = client.create_certificate(request).await;
    Ok(response.map(|response| response.into_inner().cert_chain))
}

/// Returns the way to a control plane: the roots are in `root-cert.pem`, the token in `token`.
fn control_plane(plane: &Plane) -> Result<ControlPlane> {
    let port = plane.address.rsplit_once(':').context("no port")?.1;
    Ok(ControlPlane {
        address: format!("https://localhost:{port}").parse()?,
        server_name: None,
        roots: plane.dir.path().join("root-cert.pem"),
        token: plane.dir.path().join("token"),
        cluster_id: "Kubernetes".to_owned(),
    })
}
