//! Faults that routes inject, and time limits.

use std::time::Duration;

use anyhow::Result;

use super::{
    ALL_V1, JASON, JASON_V2, Requests, SUBSETS, Story, Teller, routing::log_in, seconds, summary,
};
use crate::bookinfo::{Bookinfo, Page, Reviews};

const ABORT: &str = "networking/virtual-service-ratings-test-abort.yaml";
const DELAY: &str = "networking/virtual-service-ratings-test-delay.yaml";
const DETAILS: &str = "networking/fault-injection-details-v1.yaml";

/// As an old document has it: of an old version, and with the share as a plain number.
const REVIEWS_V2: &str = "apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts:
  - reviews
  http:
  - route:
    - destination:
        host: reviews
        subset: v2
";

/// As above.
const RATINGS_DELAY: &str = "apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: ratings
spec:
  hosts:
  - ratings
  http:
  - fault:
      delay:
        percent: 100
        fixedDelay: 2s
    route:
    - destination:
        host: ratings
        subset: v1
";

/// As above.
const REVIEWS_TIMEOUT: &str = "apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts:
  - reviews
  http:
  - route:
    - destination:
        host: reviews
        subset: v2
    timeout: 0.5s
";

/// Ratings fail for one user, and details for all.
pub fn abort(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    story.apply(&[SUBSETS, ALL_V1, JASON_V2, ABORT])?;
    log_in(&story)?;
    let injected = Requests { service: "ratings", code: "500", flags: "FI" };
    let before = story.counted(injected)?;
    story.shows(Some(JASON), Reviews::Unrated)?;
    story.has_counted(injected, before, 10)?;
    story.shows(None, Reviews::Plain)?;

    story.apply(&[DETAILS])?;
    let injected = Requests { service: "details", code: "555", flags: "FI" };
    let before = story.counted(injected)?;
    let page = story.load(None, 1)?.remove(0);
    let sorry = "Error fetching product details!";
    let told = page.text.contains(sorry) && page.reviews() == Reviews::Plain;
    story.holds("the page says", told, if told { sorry } else { &page.text }, sorry)?;
    story.has_counted(injected, before, 1)?;
    story.delete(&[ALL_V1])
}

/// Ratings take 2 s, for everyone.
pub fn delay(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    delayed(&mut story)?;
    let injected = Requests { service: "ratings", code: "200", flags: "DI" };
    let before = story.counted(injected)?;
    let pages = story.load(None, 1)?;
    story.all("visitors", &pages, Reviews::Black)?;
    let slow = pages.iter().all(|page| page.took >= Duration::from_secs(2));
    story.holds("the page took", slow, seconds(&pages[0]), "2 s or more")?;
    story.has_counted(injected, before, 1)?;
    story.delete(&[ALL_V1])
}

/// Reviews, which wait for ratings, have half a second; the page asks twice.
pub fn timeout(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    delayed(&mut story)?;
    story.apply_text("reviews v2, timeout 0.5s", REVIEWS_TIMEOUT)?;
    let timed_out = Requests { service: "reviews", code: "504", flags: "UT" };
    let before = story.counted(timed_out)?;
    let pages = story.load(None, 1)?;
    story.all("visitors", &pages, Reviews::Missing)?;
    let twice = pages.iter().all(|page| page.took >= Duration::from_secs(1));
    story.holds("the page took, for two tries", twice, seconds(&pages[0]), "1 s or more")?;
    story.has_counted(timed_out, before, 2)?;
    story.delete(&[ALL_V1])?;
    let pages = story.load(None, super::SOME)?;
    let whole = pages.iter().all(Page::is_whole);
    story.holds("without the rules visitors see", whole, summary(&pages), "whole pages")
}

/// Ratings take longer for one user than the page waits for reviews.
pub fn impatience(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    story.apply(&[SUBSETS, ALL_V1, JASON_V2, DELAY])?;
    log_in(&story)?;
    let pages = story.load(Some(JASON), 1)?;
    story.all(JASON, &pages, Reviews::Missing)?;
    let twice = pages.iter().all(|page| page.took >= Duration::from_secs(6));
    story.holds("the page took, for two tries", twice, seconds(&pages[0]), "6 s or more")?;
    story.shows(None, Reviews::Plain)?;
    story.delete(&[ALL_V1])
}

/// Has all reviews be of version 2, and ratings take 2 s.
fn delayed(story: &mut Story<'_>) -> Result<()> {
    story.apply(&[SUBSETS, ALL_V1])?;
    story.apply_text("reviews v2", REVIEWS_V2)?;
    story.apply_text("ratings, delay 2s", RATINGS_DELAY)
}
