//! What becomes of requests when a service is ill or slow, and copies of requests.

use std::thread;

use anyhow::Result;
use serde_json::Value;

use super::{ALL_V1, Requests, SOME, SUBSETS, Story, Teller};
use crate::{
    bookinfo::{Bookinfo, FELT, Page, Reviews},
    wait_for,
};

const UNAVAILABLE: &str = "platform/kube/bookinfo-ratings-unavailable.yaml";
const DELAYED: &str = "platform/kube/bookinfo-ratings-delayed.yaml";
const RETRIES: &str = "networking/virtual-service-ratings-retries.yaml";
const OUTLIERS: &str = "networking/destination-rule-ratings-outliers.yaml";
const BREAKER: &str = "networking/ratings-circuit-breaking.yaml";
const MIRROR: &str = "networking/virtual-service-reviews-mirror-v3.yaml";

/// The pod that fails.
const FAILING: &str = "ratings-v-unavailable";

/// Requests of which one of two endpoints gets some: that it gets none has the odds of 2^-40.
const ENOUGH_FOR_BOTH: usize = 40;

/// Requests at once that are too many for a service that takes one and lets one wait; each thread of
/// the waypoint has a connection of its own in any case (as in Envoy), which comes on top.
const CROWD: usize = 8;

/// Failures are tried again at another endpoint.
pub fn retries(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    story.apply(&[UNAVAILABLE])?;
    let answers = ratings(&story, ENOUGH_FOR_BOTH)?;
    let failed = count(&answers, 503) > 0;
    story.holds("without a rule", failed, statuses(&answers), "some 503")?;
    story.apply(&[RETRIES])?;
    let before = story.mesh.asked(FAILING)?.len();
    let answers = ratings(&story, ENOUGH_FOR_BOTH)?;
    let all = count(&answers, 200) == answers.len();
    story.holds("with retries", all, statuses(&answers), "200 only")?;
    let tried = story.mesh.asked(FAILING)?.len() - before;
    story.holds("of them the failing pod had", tried > 0, tried, "some")?;
    story.delete(&[RETRIES, UNAVAILABLE])
}

/// An endpoint that fails three times in a row gets nothing any more.
pub fn outliers(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    story.apply(&[UNAVAILABLE, OUTLIERS])?;
    let answers = ratings(&story, ENOUGH_FOR_BOTH)?;
    let failed = count(&answers, 503);
    story.holds("answers of both pods", failed == 3, statuses(&answers), "3 x 503, then 200")?;
    let asked = story.mesh.asked(FAILING)?.len();
    story.holds("the failing pod was asked, in all", asked == 3, asked, 3)?;
    story.delete(&[OUTLIERS, UNAVAILABLE])
}

/// Copies of requests reach version 3, and what it answers reaches nobody.
pub fn mirroring(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    story.apply(&[SUBSETS, ALL_V1, MIRROR])?;
    let before = story.mesh.asked("reviews-v3")?.len();
    story.shows(None, Reviews::Plain)?;
    let copies = wait_for("copies", FELT, || {
        let asked = story.mesh.asked("reviews-v3")?.split_off(before);
        Ok((asked.len() >= SOME).then_some(asked))
    })?;
    let as_sent = copies.len() == SOME && copies.iter().all(is_as_sent);
    story.holds("copies that reviews-v3 got", as_sent, copies.len(), SOME)?;
    story.delete(&[ALL_V1])
}

/// What is too much for a service is turned away at once.
pub fn circuit_breaking(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    story.apply(&[DELAYED, BREAKER])?;
    let overflow = Requests { service: "ratings", code: "503", flags: "UO" };
    let before = story.counted(overflow)?;
    let crowd = CROWD + thread::available_parallelism()?.get();
    let url = format!("http://ratings:9080/ratings/[1-{crowd}]");
    story.teller.did("curl", &format!("curl {url}, all at once"));
    let most = crowd.to_string();
    let at_once = ["--parallel", "--parallel-immediate", "--parallel-max", &most, &url];
    let answers = story.mesh.get(&at_once)?;
    let (some, others) = (count(&answers, 200), count(&answers, 503));
    let split = some > 0 && others > 0 && some + others == crowd;
    story.holds("answers", split, statuses(&answers), "some 200, and 503 for the others")?;
    let told = answers.iter().map(|answer| answer.text.matches("x-envoy-overloaded: true").count());
    let told: usize = told.sum();
    story.holds("x-envoy-overloaded: true", told == others, told, others)?;
    story.has_counted(overflow, before, u32::try_from(others)?)?;
    story.delete(&[BREAKER, DELAYED])
}

/// Returns whether a copy is for the service, as what it was copied from.
fn is_as_sent(copy: &Value) -> bool {
    copy["path"] == "/reviews/0" && copy["host"] == "reviews:9080"
}

/// Asks ratings several times, one after the other.
fn ratings(story: &Story<'_>, times: usize) -> Result<Vec<Page>> {
    let url = format!("http://ratings:9080/ratings/[1-{times}]");
    story.teller.did("curl", &format!("curl {url}"));
    story.mesh.get(&[&url])
}

fn count(answers: &[Page], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

/// Returns how many answers have which status.
fn statuses(answers: &[Page]) -> String {
    let mut all: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    all.sort_unstable();
    let runs = all.chunk_by(|a, b| a == b).map(|run| format!("{} x {}", run.len(), run[0]));
    runs.collect::<Vec<_>>().join(", ")
}
