//! The certificate service as clients call it.

use std::{sync::Arc, time::Duration};

use mesh_api::{
    identity::Identity,
    proto::ca::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_server::IstioCertificateService,
    },
};
use prost_types::{Struct, value::Kind};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tracing::{debug, error, info};

use super::{
    authority::Authority,
    authorize::{Denied, IssuePolicy, Placement},
    csr::Csr,
    error::CaError,
    sign::Subject,
};
use crate::{auth::Caller, telemetry::metrics::Metrics};

/// Name of the metadata's field with the identity that a node proxy asks for.
const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// Time for the news of a pod to arrive after the request for its certificate: a node learns of its
/// pods from its own container runtime. Shorter than clients wait for an answer.
const NEWS_TIMEOUT: Duration = Duration::from_secs(2);

/// The certificate service.
#[derive(Clone, Debug)]
pub struct CertificateService {
    /// Signs.
    pub authority: Arc<Authority>,
    /// Says who may ask for what.
    pub policy: Arc<IssuePolicy>,
    /// Says where workloads run.
    pub placement: Arc<dyn Placement>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

// === impl CertificateService ===

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.metrics.ca.csr_count.inc();
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Status::unauthenticated("no caller"))?;
        let result = self.create(&caller, request.get_ref()).await;
        if let Err(status) = &result {
            let message = status.message();
            info!(caller = %caller.account, reason = message, "certificate refused");
        }
        result.map(Response::new)
    }
}

impl CertificateService {
    async fn create(
        &self,
        caller: &Caller,
        request: &IstioCertificateRequest,
    ) -> Result<IstioCertificateResponse, Status> {
        let csr = Csr::parse(&request.csr).map_err(|error| {
            self.metrics.ca.csr_parsing_errors.inc();
            Status::invalid_argument(error.to_string())
        })?;
        let impersonated = impersonated(request.metadata.as_ref())?;
        let identity = self.decide(caller, impersonated).await.map_err(|denied| {
            self.metrics.ca.authentication_failures.inc();
            Status::unauthenticated(denied.to_string())
        })?;
        csr.check_identity(&identity).map_err(|error| {
            self.metrics.ca.id_extraction_errors.inc();
            Status::invalid_argument(error.to_string())
        })?;
        let ttl = self.authority.options().ttl(request.validity_duration);
        let ttl = ttl.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let subject = Subject::Workload(identity);
        let (issued, bundle) =
            self.authority.issue(&subject, csr.key(), ttl).map_err(|error| self.failed(&error))?;
        self.metrics.ca.issued.inc();
        debug!(caller = %caller.account, ?subject, "certificate issued");
        let mut cert_chain: Vec<_> = issued.chain.iter().map(to_pem).collect();
        cert_chain.push(bundle.roots_pem().to_owned());
        Ok(IstioCertificateResponse { cert_chain })
    }

    /// Decides as soon as the mesh knows enough to grant the identity, or after a while.
    async fn decide(
        &self,
        caller: &Caller,
        impersonated: Option<&str>,
    ) -> Result<Identity, Denied> {
        // Before the first look, so that no change is missed.
        let mut changes = self.placement.changes();
        let look = || self.policy.decide(caller, impersonated, &*self.placement);
        let granted = async {
            loop {
                match look() {
                    Err(denied) if denied.is_for_want_of_news() => {
                        // Without anybody to bring news, the answer stays.
                        changes.changed().await.map_err(|_| denied)?;
                    }
                    decided => return decided,
                }
            }
        };
        timeout(NEWS_TIMEOUT, granted).await.unwrap_or_else(|_| look())
    }

    fn failed(&self, error: &CaError) -> Status {
        self.metrics.ca.sign_errors.inc();
        error!(%error, "cannot sign");
        Status::internal("the certificate cannot be signed; see the log of the control plane")
    }
}

/// Returns the identity that is asked for in place of the caller's own.
fn impersonated(metadata: Option<&Struct>) -> Result<Option<&str>, Status> {
    let field = metadata.and_then(|metadata| metadata.fields.get(IMPERSONATED_IDENTITY));
    match field.map(|value| &value.kind) {
        None => Ok(None),
        Some(Some(Kind::StringValue(identity))) => Ok(Some(identity)),
        Some(_) => {
            Err(Status::invalid_argument(format!("{IMPERSONATED_IDENTITY} has to be a string")))
        }
    }
}

fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate.as_ref()), config)
}
