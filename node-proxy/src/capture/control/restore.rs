//! Takes up the pods of a predecessor that ended without a word.

use std::{sync::Arc, time::Instant};

use fairlead_ebpf::NetnsCookie;

use super::{Control, Shared};
use crate::{
    api::ApiError,
    capture::{
        enrolment::Enrolment,
        programs::{Programs, ProgramsError},
        records::Record,
    },
};

// === impl Control ===

impl Control {
    /// Enrols again the pods on record that still exist, and removes what is left in the kernel of
    /// those that do not.
    pub async fn restore(&self) -> Result<(), ProgramsError> {
        let shared = &self.0;
        let mut programs = shared.programs.lock().await;
        let records = shared
            .records
            .load()
            .map_err(|cause| ProgramsError::Io { what: "reading the enrolment records", cause })?;
        for record in records {
            let key = record.spec.key();
            match shared.resume(&mut programs, record).await {
                Ok(true) => {}
                Ok(false) => tracing::info!(pod = %key, "a pod on record is gone; forgotten"),
                Err(error) => tracing::error!(pod = %key, %error, "cannot enrol a pod on record"),
            }
        }
        shared.remove_strays(&mut programs)
    }
}

// === impl Shared ===

impl Shared {
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
        enrolment.fwmark_accept.clone_from(&record.fwmark_accept);
        if record.draining {
            enrolment.addresses = record.addresses.clone();
            if let Err(error) = enrolment.restore().await {
                tracing::warn!(pod = %record.spec.key(), %error, "cannot restore the routing");
            }
            self.forget_record(&record);
            return Ok(true);
        }
        self.enrol(programs, record.spec, enrolment, Instant::now()).await?;
        Ok(true)
    }

    /// A pod on record that could not be enrolled keeps its capture: it fails closed.
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
