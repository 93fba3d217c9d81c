//! Which version answers whom.

use anyhow::Result;

use super::{ALL_V1, JASON, JASON_V2, SUBSETS, Story, Teller, summary};
use crate::bookinfo::{Bookinfo, Page, Reviews};

const VERSIONS: &str = "platform/kube/bookinfo-versions.yaml";

/// Loads after which each of three versions has been seen: that one was not has the odds of
/// 3 × (2/3)^60, less than one in 10^10.
const ENOUGH_FOR_ALL: usize = 60;

/// Loads that are counted.
const COUNTED: usize = 100;

/// How many of them half is, but for odds of less than one in 10^9.
const HALF: std::ops::RangeInclusive<usize> = 20..=80;

/// Without rules every version answers.
pub fn spread(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let story = Story::new(mesh, teller);
    teller.did("curl", "curl -s productpage:9080");
    let index = story.mesh.get(&["http://productpage:9080/"])?.remove(0);
    let title = index.text.lines().find(|line| line.contains("<title>")).unwrap_or_default().trim();
    let wanted = "<title>Simple Bookstore App</title>";
    story.holds("the title", title == wanted, title, wanted)?;
    let pages = story.load(None, ENOUGH_FOR_ALL)?;
    let seen = |reviews| pages.iter().any(|page| page.reviews() == reviews);
    let all = [Reviews::Plain, Reviews::Black, Reviews::Red].map(seen) == [true; 3];
    let whole = pages.iter().all(|page| page.is_whole() && page.text.contains(wanted));
    story.holds("visitors see", all && whole, summary(&pages), "each of the three versions")
}

/// Everything goes to version 1, and no longer when the routes are gone.
pub fn all_v1(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    story.apply(&[SUBSETS, ALL_V1])?;
    let pages = story.load(None, 2 * super::SOME)?;
    story.all("visitors", &pages, Reviews::Plain)?;
    story.delete(&[ALL_V1])?;
    let pages = story.load(None, ENOUGH_FOR_ALL)?;
    let stars = pages.iter().any(|page| page.reviews() != Reviews::Plain);
    story.holds("visitors see", stars, summary(&pages), "stars again")
}

/// A user who is logged in gets another version.
pub fn user(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    story.apply(&[SUBSETS, ALL_V1, JASON_V2])?;
    log_in(&story)?;
    story.shows(Some(JASON), Reviews::Black)?;
    story.shows(None, Reviews::Plain)?;
    story.delete(&[ALL_V1])
}

/// Half of the requests go to version 3; as in the oldest document, whose files had other names.
pub fn half_v3(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    story.apply(&[SUBSETS, "kube/route-rule-all-v1.yaml", "kube/route-rule-reviews-50-v3.yaml"])?;
    let pages = half(&story)?;
    let red = pages.iter().filter(|page| page.reviews() == Reviews::Red).count();
    let marks: usize = pages.iter().map(|page| page.text.matches("full stars").count()).sum();
    story.holds("grep 'full stars' | wc -l, halved", marks / 2 == red, marks / 2, red)?;
    story.delete(&["kube/route-rule-all-v1.yaml"])
}

/// The same by routes of the Gateway API, which name services.
pub fn gateway_api(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    story.apply(&[VERSIONS, "gateway-api/route-reviews-v1.yaml"])?;
    story.shows(None, Reviews::Plain)?;
    story.apply(&["gateway-api/route-reviews-50-v3.yaml"])?;
    half(&story)?;
    story.delete(&["gateway-api/route-reviews-50-v3.yaml", VERSIONS])
}

/// Demands that about half of many pages are of version 1, and the others of version 3.
fn half(story: &Story<'_>) -> Result<Vec<Page>> {
    let pages = story.load(None, COUNTED)?;
    let count = |wanted| pages.iter().filter(|page| page.reviews() == wanted).count();
    let (plain, red) = (count(Reviews::Plain), count(Reviews::Red));
    let half = HALF.contains(&red) && plain + red == COUNTED;
    story.holds("visitors see", half, summary(&pages), "about 50 of each")?;
    Ok(pages)
}

/// Opens a session for the user of the documents.
pub(super) fn log_in(story: &Story<'_>) -> Result<()> {
    let what = format!("curl -c cookies-of-{JASON} -d username={JASON} productpage:9080/login");
    story.teller.did("curl", &what);
    story.mesh.log_in(JASON)
}
