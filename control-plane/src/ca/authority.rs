//! The authority: its files, taken up as they change, and the certificates that it issues.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use fairlead_component::clock::Clock;
use mesh_api::identity::TrustDomain;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{
    bundle::Bundle,
    directory::{
        CERTIFICATE, CaDirectory, Contents, KEY, Locked, NEXT_CERTIFICATE, NEXT_KEY, ROOTS,
        ROTATION,
    },
    error::CaError,
    history::History,
    rotation::{Rotation, Step, due, until_next_look},
    sign::{
        DEFAULT_CERTIFICATE_TTL, Issued, MAX_CERTIFICATE_TTL, MIN_CERTIFICATE_TTL, Subject,
        new_root,
    },
};
use crate::{telemetry::metrics::Metrics, watch::Watched};

/// How far ahead the end of the last certificate is recorded, so that it is rarely written: one part
/// of a lifetime in so many. An hour of a day.
const RECORD_AHEAD_PART: u32 = 24;

/// How certificates are issued.
#[derive(Clone, Debug)]
pub struct AuthorityOptions {
    /// Trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// Lifetime unless wished otherwise.
    pub default_ttl: Duration,
    /// Longest lifetime.
    pub max_ttl: Duration,
}

/// The authority.
#[derive(Debug)]
pub struct Authority {
    directory: CaDirectory,
    options: AuthorityOptions,
    clock: Clock,
    metrics: Arc<Metrics>,
    bundle: ArcSwap<Bundle>,
    state: Mutex<State>,
}

struct State {
    /// What `bundle` was made of.
    contents: Contents,
    history: History,
}

// === impl AuthorityOptions ===

impl Default for AuthorityOptions {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            default_ttl: DEFAULT_CERTIFICATE_TTL,
            max_ttl: MAX_CERTIFICATE_TTL,
        }
    }
}

impl AuthorityOptions {
    /// Returns the lifetime of a certificate for which `seconds` are wished.
    pub fn ttl(&self, seconds: i64) -> Result<Duration, CaError> {
        match u64::try_from(seconds) {
            Ok(0) | Err(_) => Ok(self.default_ttl.min(self.max_ttl)),
            Ok(seconds) if seconds < MIN_CERTIFICATE_TTL.as_secs() => Err(CaError::TooShort),
            Ok(seconds) => Ok(Duration::from_secs(seconds).min(self.max_ttl)),
        }
    }
}

// === impl Authority ===

impl Authority {
    /// Opens the authority in a directory, with a new root if it holds none.
    pub fn open(
        directory: &Path,
        options: AuthorityOptions,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, CaError> {
        let directory = CaDirectory::open(directory)?;
        let now = clock.now();
        let (contents, issued_until) = read_or_create(&directory, &options, now)?;
        let bundle = Bundle::load(&contents, &options.trust_domain, now)?;
        let history = History::new(&bundle, issued_until);
        let authority = Self {
            directory,
            options,
            clock,
            metrics,
            bundle: ArcSwap::from_pointee(bundle),
            state: Mutex::new(State { contents, history }),
        };
        authority.show_expiry();
        Ok(Arc::new(authority))
    }

    /// Returns how certificates are issued.
    pub fn options(&self) -> &AuthorityOptions {
        &self.options
    }

    /// Returns what certificates are issued with now.
    pub fn bundle(&self) -> Arc<Bundle> {
        self.bundle.load_full()
    }

    /// Issues a certificate, of the longest lifetime at most; also returns what it was issued with.
    pub fn issue(
        &self,
        subject: &Subject,
        key: &impl PublicKeyData,
        ttl: Duration,
    ) -> Result<(Issued, Arc<Bundle>), CaError> {
        let now = self.clock.now();
        let ttl = ttl.min(self.options.max_ttl);
        let bundle = {
            let mut state = self.lock();
            let bundle = self.bundle.load_full();
            // Noted before the signer can change, so that its successor knows of it.
            self.note_issued(&mut state, now + ttl);
            bundle
        };
        Ok((bundle.issue(subject, key, ttl, now)?, bundle))
    }

    /// Issues a certificate with a fresh key to this server.
    pub fn issue_to_server(
        &self,
        names: &[String],
    ) -> Result<(Issued, PrivateKeyDer<'static>), CaError> {
        let key = KeyPair::generate()?;
        let subject = Subject::Server(names.to_vec());
        let (issued, _) = self.issue(&subject, &key, self.options.default_ttl)?;
        Ok((issued, PrivateKeyDer::Pkcs8(key.serialize_der().into())))
    }

    /// Takes up changed files and every step of a rotation that is due.
    pub fn refresh(&self) -> Result<(), CaError> {
        let now = self.clock.now();
        let mut state = self.lock();
        let locked = self.directory.lock()?;
        loop {
            self.take_up(&mut state, &locked, now)?;
            let bundle = self.bundle.load();
            let (begin, end) = (bundle.not_before(), bundle.not_after());
            let step = due(bundle.rotation(), begin, end, now);
            let Some(step) = step.filter(|_| !bundle.is_plugged_in()) else { break };
            self.take_step(step, &state, &locked, now)?;
            info!(?step, "rotation of the root");
        }
        self.show_expiry();
        Ok(())
    }

    /// Takes up changes of the files as they come. Returns only if they cannot be watched.
    pub async fn follow(self: Arc<Self>) -> Result<(), CaError> {
        let mut changes = Watched::directory(self.directory.path())?;
        loop {
            let this = Arc::clone(&self);
            let refreshed = tokio::task::spawn_blocking(move || this.refresh()).await;
            if let Ok(Err(error)) = refreshed {
                error!(%error, "the authority's files are not used as they are; it goes on as before");
            }
            // Steps become due by time.
            let next_look = until_next_look(self.bundle.load().rotation(), self.clock.now());
            tokio::select! {
                () = sleep(next_look) => {}
                more = changes.changed() => if !more { return Ok(()) },
            }
        }
    }

    fn take_up(
        &self,
        state: &mut State,
        locked: &Locked<'_>,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let missing = || CaError::unusable(CERTIFICATE, "it is gone");
        let contents = locked.contents()?.ok_or_else(missing)?;
        if contents == state.contents {
            return Ok(());
        }
        let next = Bundle::load(&contents, &self.options.trust_domain, now)?;
        let current = self.bundle.load_full();
        state.history.admits(&current, &next, now)?;
        state.history.adopt(&current, &next, now);
        state.contents = contents;
        info!(?next, "the authority's files are in use");
        self.bundle.store(Arc::new(next));
        Ok(())
    }

    fn take_step(
        &self,
        step: Step,
        state: &State,
        locked: &Locked<'_>,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let until = state.history.issued_until().max(now);
        let missing = || CaError::unusable(NEXT_CERTIFICATE, "it is gone");
        match step {
            Step::Begin => {
                let next = new_root(&self.options.trust_domain, now)?;
                let bundle = self.bundle.load();
                locked.write(NEXT_KEY, &next.key)?;
                locked.write(NEXT_CERTIFICATE, &next.certificate)?;
                locked.write(ROOTS, &joined(bundle.roots_pem(), &next.certificate))?;
                locked.write(ROTATION, &Rotation::Spreading { until }.to_string())
            }
            Step::Switch => locked.write(ROTATION, &Rotation::Switched { until }.to_string()),
            Step::Finish => {
                let next = state.contents.next.as_ref().ok_or_else(missing)?;
                let old = &state.contents.signer;
                // Equal if this step was interrupted before.
                if old.certificate != next.certificate {
                    let roots = self.bundle.load().roots_pem().to_owned();
                    locked.write(ROOTS, &without(&roots, &old.certificate))?;
                }
                locked.write(KEY, &next.key)?;
                locked.write(CERTIFICATE, &next.certificate)?;
                locked.remove(ROTATION)?;
                locked.remove(NEXT_KEY)?;
                locked.remove(NEXT_CERTIFICATE)
            }
        }
    }

    fn note_issued(&self, state: &mut State, end: SystemTime) {
        if end <= state.history.issued_until() {
            return;
        }
        let recorded = end + self.options.default_ttl / RECORD_AHEAD_PART;
        state.history.issued(recorded);
        // A short write, once an hour at most with certificates of a day.
        let written = self.directory.lock().and_then(|locked| locked.record_issued_until(recorded));
        if let Err(error) = written {
            warn!(%error, "the end of the last certificate is not recorded: after a restart, \
                   steps of a rotation wait for the longest lifetime that a certificate may have");
        }
    }

    fn show_expiry(&self) {
        let bundle = self.bundle.load();
        self.metrics.ca.set_expiry(bundle.roots_end(), bundle.not_after(), self.clock.now());
    }

    /// History and contents are replaced together, after everything that can fail.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The contents hold the key.
        f.debug_struct("State").field("history", &self.history).finish_non_exhaustive()
    }
}

fn read_or_create(
    directory: &CaDirectory,
    options: &AuthorityOptions,
    now: SystemTime,
) -> Result<(Contents, SystemTime), CaError> {
    let locked = directory.lock()?;
    if let Some(contents) = locked.contents()? {
        let longest = now + options.max_ttl;
        return Ok((contents, locked.issued_until()?.unwrap_or(longest)));
    }
    let root = new_root(&options.trust_domain, now)?;
    locked.write(ROOTS, &root.certificate)?;
    // The key first: a certificate that is there has its key.
    locked.write(KEY, &root.key)?;
    locked.write(CERTIFICATE, &root.certificate)?;
    locked.record_issued_until(now)?;
    let gone = || CaError::unusable(CERTIFICATE, "it is gone");
    Ok((locked.contents()?.ok_or_else(gone)?, now))
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
