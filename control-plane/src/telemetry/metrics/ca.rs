//! Metrics of the certificate authority.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::gauge::Gauge;

use super::{BareCounter, Registrar};

/// Metrics of the certificate authority.
#[derive(Debug)]
pub struct CaMetrics {
    /// Certificate requests.
    pub csr_count: BareCounter,
    /// Certificates issued.
    pub issued: BareCounter,
    /// Requests that are not acceptable as such.
    pub csr_parsing_errors: BareCounter,
    /// Requests for another identity than the caller may have.
    pub id_extraction_errors: BareCounter,
    /// Callers that are not known, or may not have what they ask for.
    pub authentication_failures: BareCounter,
    /// Certificates that could not be signed.
    pub sign_errors: BareCounter,
    root_expiry: Gauge,
    root_seconds: Gauge,
    chain_expiry: Gauge,
    chain_seconds: Gauge,
}

// === impl CaMetrics ===

impl CaMetrics {
    pub(super) fn register(r: &mut Registrar) -> Self {
        Self {
            csr_count: r.add("citadel_server_csr_count", "Certificate requests"),
            issued: r.add("citadel_server_success_cert_issuance_count", "Certificates issued"),
            csr_parsing_errors: r.add(
                "citadel_server_csr_parsing_err_count",
                "Certificate requests that are not acceptable as such",
            ),
            id_extraction_errors: r.add(
                "citadel_server_id_extraction_err_count",
                "Certificate requests for another identity than the caller may have",
            ),
            authentication_failures: r.add(
                "citadel_server_authentication_failure_count",
                "Callers that are not known, or may not have what they ask for",
            ),
            sign_errors: r
                .add("citadel_server_csr_sign_err_count", "Certificates that could not be signed"),
            root_expiry: r.add(
                "citadel_server_root_cert_expiry_timestamp",
                "Unix time at which the last root ends",
            ),
            root_seconds: r
                .add("citadel_server_root_cert_expiry_seconds", "Seconds until the last root ends"),
            chain_expiry: r.add(
                "citadel_server_cert_chain_expiry_timestamp",
                "Unix time at which the signing certificate, or one of its chain, ends",
            ),
            chain_seconds: r.add(
                "citadel_server_cert_chain_expiry_seconds",
                "Seconds until the signing certificate, or one of its chain, ends",
            ),
        }
    }

    /// Takes note of when roots and the signing certificate end.
    pub fn set_expiry(&self, roots: SystemTime, chain: SystemTime, now: SystemTime) {
        self.root_expiry.set(seconds_between(UNIX_EPOCH, roots));
        self.root_seconds.set(seconds_between(now, roots));
        self.chain_expiry.set(seconds_between(UNIX_EPOCH, chain));
        self.chain_seconds.set(seconds_between(now, chain));
    }
}

/// Returns the seconds from one time to a later one; negative if it is earlier.
fn seconds_between(from: SystemTime, to: SystemTime) -> i64 {
    match to.duration_since(from) {
        Ok(time) => i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        Err(error) => -i64::try_from(error.duration().as_secs()).unwrap_or(i64::MAX),
    }
}
