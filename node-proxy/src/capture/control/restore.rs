//! Takes up the pods of a predecessor that ended without a word.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_ebpf::NetnsCookie;
use tokio::time::sleep;

use super::{Control, Shared};
use crate::{
    api::ApiError,
    capture::{
        enrolment::Enrolment,
        programs::{Programs, ProgramsError},
        records::Record,
    },
    telemetry::readiness::Gate,
};

/// Pause before pods on record that could not be enrolled are tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

// === impl Control ===

impl Control {
    /// Enrols again the pods on record that still exist, and removes what is left in the kernel of
    /// those that do not. Opens `complete` once that is done. Never returns.
    pub async fn restore(&self, complete: &Gate) {
        loop {
            match self.0.restore_all().await {
                Ok(0) => break,
                Ok(failed) => {
                    tracing::error!(failed, "pods on record are not in the mesh; trying again");
                }
                Err(error) => tracing::error!(%error, "cannot take up the pods on record"),
            }
            sleep(RETRY_INTERVAL).await;
        }
        complete.open();
        std::future::pending::<()>().await;
    }
}

// === impl Shared ===

impl Shared {
    /// Returns how many pods on record could not be enrolled. Those keep their capture, so that
    /// they fail closed.
    async fn restore_all(self: &Arc<Self>) -> Result<usize, ProgramsError> {
        let mut programs = self.programs.lock().await;
        let records = self
            .records
            .load()
            .map_err(|cause| ProgramsError::Io { what: "reading the enrolment records", cause })?;
        let mut failed = 0;
        for record in records {
            let key = record.spec.key();
            if self.pods().contains_key(&key) {
                continue;
            }
            match self.resume(&mut programs, record).await {
                Ok(true) => {}
                Ok(false) => tracing::info!(pod = %key, "a pod on record is gone; forgotten"),
                Err(error) => {
                    failed += 1;
                    tracing::error!(pod = %key, %error, "cannot enrol a pod on record");
                }
            }
        }
        self.remove_strays(&mut programs)?;
        Ok(failed)
    }

    /// Returns whether the pod still exists.
    async fn resume(
        self: &Arc<Self>,
        programs: &mut Programs,
        record: Record,
    ) -> Result<bool, ApiError> {
        let found = Enrolment::inspect(&record.spec.netns).await.ok();
        let same = found.filter(|found| found.netns.cookie().0 == record.netns_cookie);
        let Some(mut enrolment) = same else {
            self.forget_record(&record);
            return Ok(false);
        };
        enrolment.sysctls.clone_from(&record.sysctls);
        if record.draining {
            enrolment.addresses = record.addresses.clone();
            if let Err(error) = enrolment.restore().await {
                tracing::warn!(pod = %record.spec.key(), %error, "cannot restore the routing");
            }
            self.forget_record(&record);
            return Ok(true);
        }
        self.enrol(programs, record.spec, Arc::new(enrolment), Instant::now()).await?;
        Ok(true)
    }

    /// Removes the capture of pods that are on no record.
    fn remove_strays(&self, programs: &mut Programs) -> Result<(), ProgramsError> {
        let records = self.records.load().unwrap_or_default();
        let known: Vec<_> = records.iter().map(|record| NetnsCookie(record.netns_cookie)).collect();
        for stray in programs.captured()?.into_iter().filter(|pod| !known.contains(pod)) {
            programs.release(stray)?;
        }
        Ok(())
    }

    fn forget_record(&self, record: &Record) {
        if let Err(error) = self.records.remove(&record.spec.key()) {
            tracing::warn!(pod = %record.spec.key(), %error, "cannot remove the enrolment record");
        }
    }
}
