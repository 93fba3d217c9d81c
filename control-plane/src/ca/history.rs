//! Which certificates are in use, and so which roots and signers may come and go.
//!
//! Pure: no clock, no files; times are given.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;

use super::bundle::{Bundle, Probe};

/// What was issued, by whom, and who can verify it.
#[derive(Debug)]
pub(super) struct History {
    /// The roots in use, and since when everyone who holds a certificate has them.
    roots: Vec<(CertificateDer<'static>, SystemTime)>,
    /// Former signers, and when the last of their certificates ends.
    former: Vec<(Probe, SystemTime)>,
    /// No certificate issued until now lives longer.
    issued_until: SystemTime,
}

/// Why a change of the files has to wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Premature {
    /// The new signer's root was not made known beforehand.
    #[error(
        "workloads do not know the root of the new ca-cert.pem; first add it to root-cert.pem \
         and leave the other files as they are"
    )]
    UnknownRoot,
    /// The new signer's root has not reached every workload.
    #[error(
        "the root of the new ca-cert.pem reaches the last workload in {} s; the new files are used \
         then", seconds(*.0)
    )]
    NotSpread(SystemTime),
    /// Certificates of the former signer are in use.
    #[error(
        "certificates of a root that root-cert.pem lacks are in use for {} s; the new files are \
         used then", seconds(*.0)
    )]
    InUse(SystemTime),
}

/// Seconds from now, for people.
fn seconds(until: SystemTime) -> u64 {
    until.duration_since(SystemTime::now()).unwrap_or_default().as_secs()
}

// === impl History ===

impl History {
    /// Begins with the files that a process finds: whoever starts it has seen to it that they fit.
    pub(super) fn new(bundle: &Bundle, issued_until: SystemTime) -> Self {
        let roots = bundle.roots().iter().map(|root| (root.clone(), UNIX_EPOCH)).collect();
        Self { roots, former: Vec::new(), issued_until }
    }

    /// Returns when the last certificate ends.
    pub(super) fn issued_until(&self) -> SystemTime {
        self.issued_until
    }

    /// Takes note that certificates live as long as this.
    pub(super) fn issued(&mut self, end: SystemTime) {
        self.issued_until = self.issued_until.max(end);
    }

    /// Returns whether `next` may replace `current` without a certificate that fails to verify.
    pub(super) fn admits(
        &self,
        current: &Bundle,
        next: &Bundle,
        now: SystemTime,
    ) -> Result<(), Premature> {
        if current.certificate() == next.certificate() {
            return self.check_former(next, now);
        }
        let trusting = |root: &CertificateDer<'static>| {
            next.probe().verify(std::slice::from_ref(root)).is_ok()
        };
        let trusted_from =
            self.roots.iter().filter(|(root, _)| trusting(root)).map(|(_, from)| *from).min();
        match trusted_from {
            None => return Err(Premature::UnknownRoot),
            Some(from) if from > now => return Err(Premature::NotSpread(from)),
            Some(_) => {}
        }
        if self.issued_until > now && current.probe().verify(next.roots()).is_err() {
            return Err(Premature::InUse(self.issued_until));
        }
        self.check_former(next, now)
    }

    /// Takes note that `next` replaces `current`.
    pub(super) fn adopt(&mut self, current: &Bundle, next: &Bundle, now: SystemTime) {
        if current.certificate() != next.certificate() {
            self.former.push((current.probe().clone(), self.issued_until));
        }
        self.former.retain(|(_, until)| *until > now);
        let since = |root: &CertificateDer<'static>| {
            let known = self.roots.iter().find(|(other, _)| other == root);
            // Certificates issued before came without it.
            known.map_or(self.issued_until, |(_, from)| *from)
        };
        self.roots = next.roots().iter().map(|root| (root.clone(), since(root))).collect();
    }

    fn check_former(&self, next: &Bundle, now: SystemTime) -> Result<(), Premature> {
        for (probe, until) in &self.former {
            if *until > now && probe.verify(next.roots()).is_err() {
                return Err(Premature::InUse(*until));
            }
        }
        Ok(())
    }
}
