//! The files that a step of a rotation writes: pure.

use std::time::SystemTime;

use mesh_api::identity::TrustDomain;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{
    contents::{CERTIFICATE, Contents, KEY, NEXT_CERTIFICATE, NEXT_KEY, ROOTS, ROTATION, Write},
    error::CaError,
    rotation::{Rotation, Step},
    sign::new_root,
};

/// Returns the files to write, in this order; the next step waits for `until`.
pub(super) fn writes(
    step: Step,
    contents: &Contents,
    roots: &str,
    (now, until): (SystemTime, SystemTime),
    trust_domain: &TrustDomain,
) -> Result<Vec<Write>, CaError> {
    let rotation = |rotation: Rotation| (ROTATION, Some(rotation.to_string()));
    match step {
        Step::Begin => {
            let next = new_root(trust_domain, now)?;
            let roots = joined(roots, &next.certificate);
            Ok(vec![
                (NEXT_KEY, Some(next.key)),
                (NEXT_CERTIFICATE, Some(next.certificate)),
                (ROOTS, Some(roots)),
                rotation(Rotation::Spreading { until }),
            ])
        }
        Step::Switch => Ok(vec![rotation(Rotation::Switched { until })]),
        Step::Finish => {
            let missing = || CaError::unusable(NEXT_CERTIFICATE, "it is gone");
            let next = contents.next.clone().ok_or_else(missing)?;
            let old = &contents.signer.certificate;
            // Equal if this step was interrupted before.
            let roots = (*old != next.certificate).then(|| (ROOTS, Some(without(roots, old))));
            let rest = [
                (KEY, Some(next.key)),
                (CERTIFICATE, Some(next.certificate)),
                (ROTATION, None),
                (NEXT_KEY, None),
                (NEXT_CERTIFICATE, None),
            ];
            Ok(roots.into_iter().chain(rest).collect())
        }
    }
}

fn joined(roots: &str, further: &str) -> String {
    format!("{}\n{}", roots.trim_end(), further)
}

/// Returns `roots` without one certificate, both as PEM.
fn without(roots: &str, certificate: &str) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).ok();
    let unwanted = der(certificate);
    let kept = roots
        .split_inclusive(END)
        .filter(|block| der(block).is_some_and(|this| Some(&this) != unwanted.as_ref()));
    let mut kept: Vec<_> = kept.map(str::trim).collect();
    kept.push("");
    kept.join("\n")
}
