//! The server: requests to the store, and what tests do to it behind its clients' back.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    faults::Faults, object::Object, path::Place, resource, store::Store, token::TokenUser,
};

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    store: Mutex<Store>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) tokens: Mutex<HashMap<String, TokenUser>>,
    pub(crate) requests: Mutex<Vec<String>>,
    /// Tells watches that something happened.
    pub(crate) changes: watch::Sender<()>,
    /// Tells watches to break off.
    pub(crate) dropped_watches: watch::Sender<()>,
}

// === impl ApiServer ===

impl ApiServer {
    /// Starts on a free port of the loopback address; the namespaces `default` and `kube-system`
    /// exist.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new()),
            faults: Mutex::default(),
            tokens: Mutex::default(),
            requests: Mutex::default(),
            changes: watch::Sender::new(()),
            dropped_watches: watch::Sender::new(()),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        let server = Self { shared, address, accepting };
        for namespace in ["default", "kube-system"] {
            server.apply(&json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": { "name": namespace, "labels": { "kubernetes.io/metadata.name": namespace } },
            }))?;
        }
        Ok(server)
    }

    /// Returns where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns a configuration with which `kubectl` and others find it.
    pub fn kubeconfig(&self) -> String {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": { "server": self.url() } }],
            "users": [{ "name": "test", "user": { "token": "test" } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "current-context": "test",
        });
        config.to_string()
    }

    /// Creates an object, or replaces it.
    pub fn apply(&self, object: &Value) -> Result<Object> {
        let (place, name) = placed(object)?;
        let object = object.as_object().context("not an object")?.clone();
        let mut store = self.shared.store();
        let stored = match store.get(&place, &name) {
            Ok(_) => store.update(&place, &name, object, false),
            Err(_) => store.create(&place, object),
        };
        drop(store);
        self.shared.changes.send_replace(());
        stored.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))
    }

    /// Deletes an object of which `object` names kind, namespace and name.
    pub fn delete(&self, object: &Value) -> Result<()> {
        let (place, name) = placed(object)?;
        let deleted = self.shared.store().delete(&place, &name);
        self.shared.changes.send_replace(());
        deleted.map(drop).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))
    }

    /// Returns the stored object of which `object` names kind, namespace and name.
    pub fn get(&self, object: &Value) -> Result<Option<Object>> {
        let (place, name) = placed(object)?;
        Ok(self.shared.store().get(&place, &name).ok().cloned())
    }

    /// Makes a token known to `TokenReview`.
    pub fn add_token(&self, token: &str, user: TokenUser) {
        lock(&self.shared.tokens).insert(token.to_owned(), user);
    }

    /// Shows these faults from here on.
    pub fn set_faults(&self, faults: Faults) {
        *lock(&self.shared.faults) = faults;
    }

    /// Forgets what happened: watches that begin at an old version are told 410.
    pub fn compact(&self) {
        self.shared.store().compact();
    }

    /// Breaks off all watches, in the middle of nowhere.
    pub fn drop_watches(&self) {
        self.shared.dropped_watches.send_replace(());
        self.shared.changes.send_replace(());
    }

    /// Returns method, path and `Whole` or `Metadata` of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.requests).clone()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.accepting.abort();
        // Watches hold connections open.
        self.drop_watches();
    }
}

/// Returns where an object belongs, by its own words.
fn placed(object: &Value) -> Result<(Place, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let api_version = text(&object["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let kind = text(&object["kind"]);
    let found = resource::RESOURCES.iter().find(|r| r.group == group && r.kind == kind);
    let (resource, version) = found
        .and_then(|found| resource::find(group, version, found.plural))
        .with_context(|| format!("{api_version} {kind} is not known here"))?;
    let namespace = resource.namespaced.then(|| text(&object["metadata"]["namespace"]));
    Ok((Place { resource, version, namespace }, text(&object["metadata"]["name"])))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(serve(socket, shared.clone()));
    }
}

async fn serve(socket: TcpStream, shared: Arc<Shared>) {
    let answer = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, io::Error>(shared.answer(request).await) }
    });
    // Clients come and go as they like.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await;
}

// === impl Shared ===

impl Shared {
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
