//! Takes up the pods of a predecessor that ended without a word.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use fairlead_ebpf::NetnsCookie;
use tokio::time::timeout;

use super::{Control, Enrolled, Shared, lifecycle::Who};
use crate::{
    api::ApiError,
    capture::{
        enrolment::Enrolment,
        programs::{Programs, ProgramsError},
        records::Record,
    },
    link::message::ToProxy,
};

/// Pause before pods on record that could not be enrolled are tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

// === impl Control ===

impl Control {
    /// Enrols again the pods on record that still exist, and removes what is left in the kernel of
    /// those that do not; then tells the proxies that this is all.
    pub async fn restore(&self) {
        let shared = &self.0;
        loop {
            match shared.restore_all().await {
                Ok(0) => break,
                Ok(failed) => {
                    tracing::error!(failed, "pods on record are not in the mesh; trying again");
                    // No map is full of proxies that died, however long this takes.
                    shared.exempt_only_proxies(&mut *shared.programs.lock().await);
                }
                Err(error) => tracing::error!(%error, "cannot take up the pods on record"),
            }
            // A proxy that appears may hold the listening sockets that were missing.
            let _ = timeout(RETRY_INTERVAL, shared.proxies.changed()).await;
        }
        let mut programs = shared.programs.lock().await;
        shared.recorded.store(true, Ordering::Release);
        shared.left().clear();
        shared.exempt_only_proxies(&mut programs);
        for link in shared.proxies.all() {
            // One that is being attached gets to know at the end of that.
            if link.progress().process.is_some() {
                shared.settle(&link);
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    /// Returns how many pods on record could not be enrolled. Those keep their capture, so that
    /// they fail closed. So do those whose record makes no sense, but nobody waits for them: only
    /// someone else can tell what they are.
    async fn restore_all(self: &Arc<Self>) -> Result<usize, ProgramsError> {
        let mut programs = self.programs.lock().await;
        let found = self.records.load().map_err(unread)?;
        self.note_unreadable(found.unreadable);
        let mut failed = 0;
        for record in found.records {
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
        let Some((path, mut enrolment)) = self.find_again(&record).await? else {
            self.forget_record(&record);
            return Ok(false);
        };
        enrolment.sysctls.clone_from(&record.sysctls);
        if record.draining {
            enrolment.addresses.clone_from(&record.addresses);
            self.resume_release(record, path, enrolment);
            return Ok(true);
        }
        self.register_again(&record, &enrolment)?;
        let pod = record.pod();
        let who = Who { spec: record.spec, origin: record.origin, path, pod };
        self.enrol(programs, who, Arc::new(enrolment), Instant::now()).await?;
        Ok(true)
    }

    /// Goes on waiting for the connections of a released pod, which a proxy may still have.
    fn resume_release(self: &Arc<Self>, record: Record, path: PathBuf, enrolment: Enrolment) {
        let pod = record.pod();
        let enrolled = Enrolled {
            spec: record.spec,
            origin: record.origin,
            path,
            pod,
            addresses: record.addresses,
            enrolment: Arc::new(enrolment),
            listeners: None,
            resolver: None,
            took: Duration::ZERO,
        };
        self.set(enrolled.clone());
        self.proxies.let_go(&ToProxy::Release { pod }, pod);
        tokio::spawn(self.clone().finish_release(enrolled));
    }

    /// Removes the capture of pods that are on no record. While a record makes no sense it may be
    /// that of any of them.
    pub(super) fn remove_strays(&self, programs: &mut Programs) -> Result<(), ProgramsError> {
        let found = self.records.load().map_err(unread)?;
        if !found.unreadable.is_empty() {
            return Ok(());
        }
        let known: Vec<_> =
            found.records.iter().map(|record| NetnsCookie(record.netns_cookie)).collect();
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

fn unread(cause: std::io::Error) -> ProgramsError {
    ProgramsError::Io { what: "reading the enrolment records", cause }
}
