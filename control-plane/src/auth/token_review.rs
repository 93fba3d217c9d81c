//! Tokens that a Kubernetes API server vouches for.
//!
//! Each token is shown to the server once (`TokenReview`), however many requests come with it, and
//! what the server says of a good one holds for [`cache::TTL`]. That a token is not good, or that
//! the server does not answer, is never remembered.

mod cache;
mod verdict;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{
    Client,
    api::{Api, PostParams},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use self::cache::{Cache, Known};
use super::{AuthError, Authenticator, Caller, digest::digest_of};

/// Time for the server to answer; within what a new connection has to introduce itself.
const REVIEW_TIME: Duration = Duration::from_secs(10);

/// Reviews at once: a flood of wrong tokens must not become one of the API server.
const REVIEWS_AT_ONCE: usize = 64;

type Answer = Result<Caller, AuthError>;

/// An answer that several requests wait for.
type Flight = Shared<BoxFuture<'static, Answer>>;

/// Asks an API server whom tokens belong to.
#[derive(Clone)]
pub struct TokenReviews(Arc<Inner>);

struct Inner {
    reviews: Api<TokenReview>,
    audiences: Vec<String>,
    places: Semaphore,
    cache: Mutex<Cache<Flight>>,
}

// === impl TokenReviews ===

impl TokenReviews {
    /// Asks the server of `client` about tokens for any of the given audiences.
    pub fn new(client: Client, audiences: Vec<String>) -> Self {
        Self(Arc::new(Inner {
            reviews: Api::all(client),
            audiences,
            places: Semaphore::new(REVIEWS_AT_ONCE),
            cache: Mutex::default(),
        }))
    }

    /// Returns the answer to come, of a review under way or of a new one.
    fn flight(&self, token: &str) -> Result<Caller, Flight> {
        let digest = digest_of(token);
        let mut cache = self.0.lock();
        match cache.get(&digest, Instant::now()) {
            Some(Known::Caller(caller)) => return Ok(caller),
            Some(Known::Asked(flight)) => return Err(flight),
            None => {}
        }
        let (inner, token) = (Arc::clone(&self.0), token.to_owned());
        // A task of its own, which ends even if nobody waits any more.
        let review = tokio::spawn(async move {
            let answer = inner.review(token).await;
            inner.lock().answered(&digest, answer.as_ref().ok(), Instant::now());
            answer
        });
        let ended = |error| Err(AuthError::Unavailable(format!("the review ended: {error}")));
        let flight = review.map(move |answer| answer.unwrap_or_else(ended)).boxed().shared();
        cache.asked(digest, flight.clone(), Instant::now());
        Err(flight)
    }
}

impl Authenticator for TokenReviews {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Answer> {
        match self.flight(token) {
            Ok(caller) => Box::pin(std::future::ready(Ok(caller))),
            Err(flight) => flight.boxed(),
        }
    }
}

impl fmt::Debug for TokenReviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviews").field("audiences", &self.0.audiences).finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    async fn review(&self, token: String) -> Answer {
        let answer = timeout(REVIEW_TIME, async {
            let _place = self.places.acquire().await;
            self.ask(token).await
        });
        let late = || AuthError::Unavailable("the API server does not answer in time".to_owned());
        answer.await.unwrap_or_else(|_| Err(late()))
    }

    async fn ask(&self, token: String) -> Answer {
        let audiences = Some(self.audiences.clone());
        let spec = TokenReviewSpec { token: Some(token), audiences };
        let review = TokenReview { spec, ..TokenReview::default() };
        match self.reviews.create(&PostParams::default(), &review).await {
            Ok(review) => verdict::caller(review.status.unwrap_or_default(), &self.audiences),
            Err(error) => {
                tracing::warn!(%error, "tokens cannot be reviewed");
                Err(AuthError::Unavailable("the API server does not review them".to_owned()))
            }
        }
    }

    /// Nothing that can panic is done with the cache half changed.
    fn lock(&self) -> MutexGuard<'_, Cache<Flight>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fairlead_kube_api::{ApiServer, Faults, TokenUser};
    use futures_util::future::join_all;
    use kube::Config;

    use super::*;

    async fn setting() -> (ApiServer, TokenReviews) {
        let server = ApiServer::start().await.unwrap();
        let user = TokenUser {
            namespace: "istio-system".to_owned(),
            service_account: "ztunnel".to_owned(),
            pod: None,
            node: Some("n1".to_owned()),
            audiences: vec!["istio-ca".to_owned()],
        };
        server.add_token("good", user);
        let client = Client::try_from(Config::new(server.url().parse().unwrap())).unwrap();
        (server, TokenReviews::new(client, vec!["istio-ca".to_owned()]))
    }

    #[tokio::test]
    async fn requests_that_come_together_ask_once() {
        let (server, reviews) = setting().await;
        let faults = Faults { delay: Duration::from_millis(200), ..Faults::default() };
        server.set_faults(faults);
        for token in ["good", "bad"] {
            let before = server.requests().len();
            let answers = join_all((0..16).map(|_| reviews.authenticate(token))).await;
            assert!(answers.iter().all(|answer| answer.is_ok() == (token == "good")), "{token}");
            assert_eq!(server.requests().len() - before, 1, "{token}");
        }
    }

    #[tokio::test]
    async fn only_what_is_known_is_remembered() {
        let (server, reviews) = setting().await;
        let missing_group = Some("authentication.k8s.io");
        server.set_faults(Faults { missing_group, ..Faults::default() });
        let failed = reviews.authenticate("good").await;
        assert!(matches!(failed, Err(AuthError::Unavailable(_))), "{failed:?}");
        server.set_faults(Faults::default());
        for (token, asked) in [("good", 1), ("good", 0), ("bad", 1), ("bad", 1)] {
            let before = server.requests().len();
            assert_eq!(reviews.authenticate(token).await.is_ok(), token == "good");
            assert_eq!(server.requests().len() - before, asked, "{token}");
        }
    }
}
