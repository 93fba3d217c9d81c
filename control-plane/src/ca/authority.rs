//! The authority: its files, taken up as they change, and the certificates that it issues.

mod cluster;

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
use rustls::pki_types::PrivateKeyDer;
use tokio::{sync::watch, time::sleep};
use tracing::{error, info, warn};

use super::{
    bundle::Bundle,
    contents::{CERTIFICATE, Contents, Write},
    directory::CaDirectory,
    error::CaError,
    history::History,
    rotation::{Step, due, until_next_look},
    secret::{CaSecrets, Snapshot},
    sign::{
        DEFAULT_CERTIFICATE_TTL, Issued, MAX_CERTIFICATE_TTL, MIN_CERTIFICATE_TTL, Subject,
        new_root,
    },
    step,
};
use crate::{telemetry::metrics::Metrics, watch::Watched};

/// How far ahead the end of the last certificate is recorded, so that it is rarely written: one part
/// of a lifetime in so many. An hour of a day.
const RECORD_AHEAD_PART: u32 = 24;

/// Time that every replica takes at most to learn of a change of what they share, or not to certify
/// anyone: then the API server does not answer it, and what it said of tokens holds for a minute.
const SPREAD_TIME: Duration = Duration::from_mins(10);

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
    storage: Storage,
    options: AuthorityOptions,
    clock: Clock,
    metrics: Arc<Metrics>,
    bundle: ArcSwap<Bundle>,
    /// Tells that there is another bundle.
    replaced: watch::Sender<()>,
    state: Mutex<State>,
}

/// Where the files are.
#[derive(Debug)]
enum Storage {
    Directory(CaDirectory),
    Secrets(Box<CaSecrets>),
}

/// What the files say at the start.
struct Opened {
    contents: Contents,
    issued_until: SystemTime,
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
        let opened = read_or_create(&directory, &options, clock.now())?;
        Self::with(Storage::Directory(directory), opened, options, clock, metrics)
    }

    fn with(
        storage: Storage,
        Opened { contents, issued_until }: Opened,
        options: AuthorityOptions,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, CaError> {
        let bundle = Bundle::load(&contents, &options.trust_domain, clock.now())?;
        let history = History::new(&bundle, issued_until);
        let authority = Self {
            storage,
            options,
            clock,
            metrics,
            bundle: ArcSwap::from_pointee(bundle),
            replaced: watch::Sender::new(()),
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

    /// Returns what tells each time that there is another bundle.
    pub fn replaced(&self) -> watch::Receiver<()> {
        self.replaced.subscribe()
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
        match &self.storage {
            Storage::Directory(directory) => self.refresh_directory(directory),
            // They come when they have changed.
            Storage::Secrets(_) => Ok(()),
        }
    }

    /// Takes up changes of the files as they come. Returns only if they cannot be watched.
    pub async fn follow(self: Arc<Self>) -> Result<(), CaError> {
        let directory = match &self.storage {
            Storage::Directory(directory) => directory,
            Storage::Secrets(secrets) => {
                self.follow_secrets(secrets).await;
                return Ok(());
            }
        };
        let mut changes = Watched::directory(directory.path())?;
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

    fn refresh_directory(&self, directory: &CaDirectory) -> Result<(), CaError> {
        let mut state = self.lock();
        let locked = directory.lock()?;
        loop {
            let missing = || CaError::unusable(CERTIFICATE, "it is gone");
            let contents = locked.contents()?.ok_or_else(missing)?;
            let Some((step, files)) = self.advance(&mut state, &contents)? else { return Ok(()) };
            for file in files {
                locked.write(file)?;
            }
            info!(?step, "rotation of the root");
        }
    }

    /// Takes up a Secret; returns the step of a rotation that is due.
    fn take_snapshot(&self, snapshot: &Snapshot) -> Result<Option<(Step, Vec<Write>)>, CaError> {
        let mut state = self.lock();
        if let Some(end) = snapshot.issued_until {
            state.history.issued(end);
        }
        self.advance(&mut state, &snapshot.contents)
    }

    /// Takes up what the files say; returns the step of a rotation that is due, and what it writes.
    fn advance(
        &self,
        state: &mut State,
        contents: &Contents,
    ) -> Result<Option<(Step, Vec<Write>)>, CaError> {
        let now = self.clock.now();
        self.take_up(state, contents, now)?;
        self.show_expiry();
        let bundle = self.bundle.load();
        let step = due(bundle.rotation(), bundle.not_before(), bundle.not_after(), now);
        let Some(step) = step.filter(|_| !bundle.is_plugged_in()) else { return Ok(None) };
        let spread = match self.storage {
            Storage::Directory(_) => Duration::ZERO,
            Storage::Secrets(_) => SPREAD_TIME,
        };
        let until = state.history.issued_until().max(now) + spread;
        let (roots, trust_domain) = (bundle.roots_pem(), &self.options.trust_domain);
        Ok(Some((step, step::writes(step, contents, roots, (now, until), trust_domain)?)))
    }

    fn take_up(
        &self,
        state: &mut State,
        contents: &Contents,
        now: SystemTime,
    ) -> Result<(), CaError> {
        if *contents == state.contents {
            return Ok(());
        }
        let next = Bundle::load(contents, &self.options.trust_domain, now)?;
        let current = self.bundle.load_full();
        if !state.contents.announced(contents, now) {
            state.history.admits(&current, &next, now)?;
        }
        state.history.adopt(&current, &next, now);
        state.contents = contents.clone();
        info!(?next, "the authority's files are in use");
        self.bundle.store(Arc::new(next));
        self.replaced.send_replace(());
        Ok(())
    }

    fn note_issued(&self, state: &mut State, end: SystemTime) {
        let ahead = self.options.default_ttl / RECORD_AHEAD_PART;
        let early = match self.storage {
            Storage::Directory(_) => Duration::ZERO,
            // Writing takes time: others are to know of it before they have to.
            Storage::Secrets(_) => ahead / 2,
        };
        if end + early <= state.history.issued_until() {
            return;
        }
        let recorded = end + ahead;
        state.history.issued(recorded);
        let directory = match &self.storage {
            Storage::Directory(directory) => directory,
            Storage::Secrets(secrets) => return secrets.issued(recorded),
        };
        // A short write, once an hour at most with certificates of a day.
        let written = directory.lock().and_then(|locked| locked.record_issued_until(recorded));
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
) -> Result<Opened, CaError> {
    let locked = directory.lock()?;
    if let Some(contents) = locked.contents()? {
        let longest = now + options.max_ttl;
        return Ok(Opened { contents, issued_until: locked.issued_until()?.unwrap_or(longest) });
    }
    let root = new_root(&options.trust_domain, now)?;
    for file in Contents::of_root(&root) {
        locked.write(file)?;
    }
    locked.record_issued_until(now)?;
    let gone = || CaError::unusable(CERTIFICATE, "it is gone");
    let contents = locked.contents()?.ok_or_else(gone)?;
    Ok(Opened { contents, issued_until: now })
}
