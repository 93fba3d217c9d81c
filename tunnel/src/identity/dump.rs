//! Certificates for operators, as Istio's node proxy shows them: never a key.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, time::ASN1Time};

use super::{CertificateInfo, Validity};

/// Returns what there is to be seen of the certificates of workloads at this time.
pub fn certificates(infos: &[CertificateInfo], now: SystemTime) -> Value {
    infos.iter().map(|info| certificate(info, now)).collect()
}

fn certificate(info: &CertificateInfo, now: SystemTime) -> Value {
    json!({
        "identity": info.identity.to_string(),
        "state": state(info, now),
        "certChain": info.chain.iter().map(described).collect::<Value>(),
        "rootCerts": info.roots.iter().map(described).collect::<Value>(),
        "lastError": info.last_error,
    })
}

fn state(info: &CertificateInfo, now: SystemTime) -> String {
    match (&info.validity, &info.last_error) {
        (Some(validity), _) if now < validity.not_after => "Available".to_owned(),
        (Some(_), None) => "Unavailable: it has expired".to_owned(),
        (_, Some(error)) => format!("Unavailable: {error}"),
        (None, None) => "Initializing".to_owned(),
    }
}

fn described(certificate: &CertificateDer<'_>) -> Value {
    let pem = pem::encode(&pem::Pem::new("CERTIFICATE", certificate.as_ref()));
    let parsed = X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed);
    let validity = Validity::of_der(certificate).ok();
    json!({
        "pem": BASE64_STANDARD.encode(pem),
        "serialNumber": parsed.map(|parsed| parsed.raw_serial_as_string()),
        "validFrom": validity.and_then(|validity| rfc_3339(validity.not_before)),
        "expirationTime": validity.and_then(|validity| rfc_3339(validity.not_after)),
    })
}

/// Writes a time, to the second, as RFC 3339 does.
fn rfc_3339(time: SystemTime) -> Option<String> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let time = ASN1Time::from_timestamp(i64::try_from(seconds).ok()?).ok()?.to_datetime();
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second) = time.to_hms();
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_api::identity::Identity;

    use super::*;
    use crate::testing;

    fn info() -> CertificateInfo {
        CertificateInfo {
            identity: "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap(),
            serial: None,
            validity: None,
            chain: Vec::new(),
            roots: Vec::new(),
            last_error: None,
        }
    }

    #[tokio::test]
    async fn the_whole_chain_and_the_roots_are_shown_and_no_key() {
        let (store, _dir) = testing::identities();
        let identity: Identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let handle = store.acquire(&identity);
        handle.wait_ready().await;
        let info = store.certificates().remove(0);
        let end = info.validity.unwrap().not_after;
        let expired = certificates(std::slice::from_ref(&info), end);
        assert_eq!(expired[0]["state"], "Unavailable: it has expired");
        let shown = certificates(std::slice::from_ref(&info), SystemTime::now());
        let shown = &shown[0];
        assert_eq!(shown["identity"], identity.to_string());
        assert_eq!(shown["state"], "Available");
        for (list, certificates) in [("certChain", &info.chain), ("rootCerts", &info.roots)] {
            let listed = shown[list].as_array().unwrap();
            assert_eq!(listed.len(), certificates.len(), "{list}");
            for (listed, certificate) in listed.iter().zip(certificates) {
                let pem = BASE64_STANDARD.decode(listed["pem"].as_str().unwrap()).unwrap();
                let pem = pem::parse(pem).unwrap();
                assert_eq!((pem.tag(), pem.contents()), ("CERTIFICATE", certificate.as_ref()));
            }
        }
        assert_eq!(shown["certChain"][0]["serialNumber"].as_str(), info.serial.as_deref());
        let end = rfc_3339(end);
        assert_eq!(shown["certChain"][0]["expirationTime"].as_str(), end.as_deref());
    }

    #[test]
    fn without_a_certificate_the_reason_is_shown() {
        let failed = CertificateInfo { last_error: Some("no route".to_owned()), ..info() };
        let shown = certificates(&[info(), failed], SystemTime::now());
        assert_eq!(
            [&shown[0]["state"], &shown[1]["state"]],
            ["Initializing", "Unavailable: no route"]
        );
    }

    #[test]
    fn times_are_written_as_rfc_3339_does() {
        let at = |seconds| rfc_3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(at(1_772_356_502).as_deref(), Some("2026-03-01T09:15:02Z"));
        assert_eq!(at(u64::from(u32::MAX) * 1_000_000), None);
    }
}
