//! A version that gets more and more of the requests of some clients, as Flagger has it.

use anyhow::Result;

use super::{Story, Teller, summary};
use crate::bookinfo::{Bookinfo, Reviews};

const CANARY: &str = "platform/kube/bookinfo-canary.yaml";

/// Loads of the page at each step: that the canary gets none of them at its least share has the odds of
/// 0.9^200, less than one in 10^9.
const LOADS: usize = 200;

/// Shares of the canary in percent, and how many of the loads they are, but for odds of less than one
/// in 10^9. Flagger has five steps of ten, of which the first and the last are looked at.
const STEPS: [(u8, std::ops::RangeInclusive<usize>); 2] = [(10, 1..=60), (50, 50..=150)];

/// A new version of reviews is tried out with the page's requests, and with nobody else's.
pub fn canary(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    story.apply(&[CANARY])?;
    story.shows(None, Reviews::Plain)?;
    for (share, expected) in STEPS {
        story.apply_text(&format!("Flagger: {share} % to the canary"), &routes(share))?;
        let pages = story.load(None, LOADS)?;
        let count = |wanted| pages.iter().filter(|page| page.reviews() == wanted).count();
        let (plain, red) = (count(Reviews::Plain), count(Reviews::Red));
        let follows = expected.contains(&red) && plain + red == LOADS;
        let wanted = format!("red stars about {} times", usize::from(share) * LOADS / 100);
        story.holds("visitors see", follows, summary(&pages), wanted)?;
    }
    others(&story)?;
    story.apply_text("Flagger: 100 % to the canary", &routes(100))?;
    story.shows(None, Reviews::Red)?;
    others(&story)?;
    story.delete(&[CANARY])
}

/// Demands that a client without the label gets what is in use, without any stars.
fn others(story: &Story<'_>) -> Result<()> {
    let url = "http://reviews:9080/reviews/[1-40]";
    story.teller.did("curl", &format!("curl -s '{url}'"));
    let answers = story.mesh.get(&[url])?;
    let plain = answers
        .iter()
        .filter(|answer| answer.status == 200 && !answer.text.contains("rating"))
        .count();
    story.holds("curl gets of version 1", plain == answers.len(), plain, answers.len())
}

/// Returns the routes with a share of the canary in percent.
fn routes(share: u8) -> String {
    let rest = 100 - share;
    format!(
        "apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {{name: reviews}}
spec:
  gateways: [mesh]
  hosts: [reviews]
  http:
  - match: [{{sourceLabels: {{app: productpage}}}}]
    route:
    - {{destination: {{host: reviews-primary}}, weight: {rest}}}
    - {{destination: {{host: reviews-canary}}, weight: {share}}}
  - route: [{{destination: {{host: reviews-primary}}, weight: 100}}]
"
    )
}
