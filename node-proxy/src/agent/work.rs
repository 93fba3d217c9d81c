//! Carries out what the plan says.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::StatusCode;
use mesh_api::xds_client::Backoff;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{sleep, sleep_until, timeout},
};

use super::{
    kubernetes::Api,
    plan::{Action, Plan, Pods},
    wanted::Authority,
};
use crate::api::{
    Inventory, Note, PodSpec, PodState, PodStatus,
    client::{Client, ClientError},
};

/// Requests to capture at a time, which carries them out one after the other: the last one must not
/// wait for longer than a request may take.
const CAPTURE_REQUESTS: usize = 4;

/// Reports to the API server at a time: a node that is started has many, and is not alone.
const REPORTS: usize = 8;

/// Decides and remembers; all else is asked of [`Hands`].
struct Worker<A> {
    authority: A,
    plan: Plan,
    /// As capture has them; nothing is done while it is away.
    pods: Option<Pods>,
    registered: Vec<PodSpec>,
    /// What capture was told of the pods.
    noted: Option<Vec<Note>>,
}

/// What can be done, and how much of it at a time.
struct Hands {
    capture: Client,
    api: Option<Api>,
    capture_requests: Semaphore,
    reports: Semaphore,
}

/// Something to do.
enum Errand {
    Act(Action),
    Note(Vec<Note>),
}

/// How it ended.
enum Outcome {
    Enrolled(Box<PodStatus>),
    Done,
    Failed(String),
}

/// Goes by what comes by `events` until nothing more can come.
pub(super) async fn work<A: Authority>(
    authority: A,
    mut events: mpsc::Receiver<A::Event>,
    capture: Client,
    api: Option<Api>,
) {
    let mut worker = Worker {
        authority,
        plan: Plan::default(),
        pods: None,
        registered: Vec::new(),
        noted: None,
    };
    let (send, mut inventories) = watch::channel(None);
    let following = follow_capture(capture.clone(), send);
    tokio::pin!(following);
    let hands = Hands::new(capture, api);
    let mut running = FuturesUnordered::new();
    loop {
        running.extend(worker.due(Instant::now()).into_iter().map(|errand| hands.run(errand)));
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => worker.authority.take(event),
                None => return,
            },
            Ok(()) = inventories.changed() => {
                worker.take_inventory(inventories.borrow_and_update().clone());
            }
            Some((errand, outcome)) = running.next() => worker.finish(&errand, outcome),
            () = until(worker.plan.next_time()) => {}
            () = &mut following => return,
        }
    }
}

/// Keeps `inventory` up to date, until nobody wants it. There is none while capture is away.
async fn follow_capture(capture: Client, inventory: watch::Sender<Option<Inventory>>) {
    let (mut known, mut failures, mut looks) = (None, Backoff::default(), Backoff::default());
    while !inventory.is_closed() {
        let asked = match known {
            // What a proxy has reached is not counted as a change: it is looked at again.
            Some(_) if has_pending(inventory.borrow().as_ref()) => {
                let wait = looks.after(Duration::ZERO, 0.0);
                timeout(wait, capture.inventory(known)).await
            }
            _ => Ok(capture.inventory(known).await),
        };
        match asked {
            Ok(Ok(found)) => {
                if !has_pending(Some(&found)) {
                    looks = Backoff::default();
                }
                (known, failures) = (Some(found.version), Backoff::default());
                inventory.send_replace(Some(found));
            }
            Err(_) => known = None,
            Ok(Err(error)) => {
                if inventory.send_replace(None).is_some() {
                    tracing::warn!(%error, "lost capture; enrolled pods stay so");
                }
                known = None;
                sleep(failures.after(Duration::ZERO, rand::random())).await;
            }
        }
    }
}

fn has_pending(inventory: Option<&Inventory>) -> bool {
    let pods = inventory.map(|inventory| &inventory.pods);
    pods.into_iter().flatten().any(|pod| pod.state == PodState::Pending)
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

// === impl Worker ===

impl<A: Authority> Worker<A> {
    /// Returns what to do now.
    fn due(&mut self, now: Instant) -> Vec<Errand> {
        let (Some(pods), Some(wanted)) = (&self.pods, self.authority.wanted(&self.registered))
        else {
            return Vec::new();
        };
        let actions = self.plan.next(now, &wanted, pods);
        let mut errands: Vec<_> = actions.into_iter().map(Errand::Act).collect();
        let notes = self.plan.notes(&wanted);
        if self.noted.as_ref() != Some(&notes) {
            self.noted = Some(notes.clone());
            errands.push(Errand::Note(notes));
        }
        errands
    }

    fn take_inventory(&mut self, inventory: Option<Inventory>) {
        let Some(Inventory { pods, registered, .. }) = inventory else {
            // Another capture process knows nothing of what this one was told.
            (self.pods, self.noted) = (None, None);
            return;
        };
        self.pods = Some(pods.into_iter().map(|pod| (pod.key(), pod)).collect());
        self.registered = registered;
    }

    /// Notes how an errand ended, also in what is known, which may be older.
    fn finish(&mut self, errand: &Errand, outcome: Outcome) {
        match (errand, outcome) {
            (Errand::Act(action), outcome) => self.conclude(action, outcome),
            // Without a capture that could be told; the next one is.
            (Errand::Note(_), Outcome::Failed(error)) => {
                tracing::debug!(error, "cannot tell capture what becomes of the pods");
            }
            (Errand::Note(_), Outcome::Enrolled(_) | Outcome::Done) => {}
        }
    }

    fn conclude(&mut self, action: &Action, outcome: Outcome) {
        let result = match outcome {
            Outcome::Enrolled(status) => {
                if let Some(pods) = &mut self.pods {
                    pods.insert(status.key(), *status);
                }
                Ok(())
            }
            Outcome::Done => {
                match action {
                    Action::Release(pod) => {
                        if let Some(pods) = &mut self.pods {
                            pods.remove(pod);
                        }
                    }
                    Action::Mark(pod, mark) => self.authority.marked(pod, mark.clone()),
                    Action::Enrol(_) => {}
                }
                Ok(())
            }
            Outcome::Failed(error) => Err(error),
        };
        let error = result.clone().err();
        let is_news = self.plan.done(action, result, Instant::now(), rand::random());
        match (action, error) {
            (_, Some(_)) if !is_news => {}
            (Action::Enrol(spec), Some(error)) => {
                tracing::warn!(pod = %spec.key(), error, "cannot enrol a pod; trying again");
            }
            (Action::Release(pod), Some(error)) => {
                tracing::warn!(%pod, error, "cannot release a pod; trying again");
            }
            (Action::Mark(pod, _), Some(error)) => {
                tracing::warn!(%pod, error, "cannot report on a pod; trying again");
            }
            (Action::Enrol(spec), None) => tracing::info!(pod = %spec.key(), "pod enrolled"),
            (Action::Release(pod), None) => tracing::info!(%pod, "pod released"),
            (Action::Mark(..), None) => {}
        }
    }
}

// === impl Hands ===

impl Hands {
    fn new(capture: Client, api: Option<Api>) -> Self {
        let (capture_requests, reports) =
            (Semaphore::new(CAPTURE_REQUESTS), Semaphore::new(REPORTS));
        Self { capture, api, capture_requests, reports }
    }

    async fn run(&self, errand: Errand) -> (Errand, Outcome) {
        let outcome = match &errand {
            Errand::Note(notes) => self.capture.note(notes).await.into(),
            Errand::Act(Action::Enrol(spec)) => {
                // Never closed; without a turn it would only be slower.
                let _turn = self.capture_requests.acquire().await;
                match self.capture.add(spec).await {
                    Ok(status) => Outcome::Enrolled(Box::new(status)),
                    Err(error) => Outcome::Failed(error.to_string()),
                }
            }
            Errand::Act(Action::Release(pod)) => {
                // As above.
                let _turn = self.capture_requests.acquire().await;
                match self.capture.remove(pod).await {
                    // It has vanished in the meantime.
                    Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => {
                        Outcome::Done
                    }
                    result => result.into(),
                }
            }
            Errand::Act(Action::Mark(pod, mark)) => {
                // As above.
                let _turn = self.reports.acquire().await;
                match &self.api {
                    Some(api) => api.mark(pod, mark).await.into(),
                    None => Outcome::Done,
                }
            }
        };
        (errand, outcome)
    }
}

// === impl Outcome ===

impl<E: std::fmt::Display> From<Result<(), E>> for Outcome {
    fn from(result: Result<(), E>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}
