//! Who may, and what goes along with a request.

use anyhow::{Context as _, Result};

use super::{Story, Teller, summary};
use crate::{
    bookinfo::{Bookinfo, FELT, NAMESPACE, Page, ROOT_NAMESPACE, Reviews},
    wait_for,
};

const DENY: &str = "policy/deny-all.yaml";
const VIEWER: &str = "policy/productpage-viewer.yaml";
const ALLOW: &str = "policy/allow-all.yaml";

/// Headers that a client sends, and how ratings, at the end of the chain, have to see them.
const HEADERS: [(&str, &str); 4] = [
    ("x-request-id", "7c9e6679-7425-40de-944b-e07fc1f90ae7"),
    ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("user-agent", "curl of the documents"),
];

/// Nobody may reach anything in the mesh, then everybody may.
pub fn deny_all(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    story.apply_to(ROOT_NAMESPACE, DENY)?;
    let page = story.mesh.wait_page(|page| page.status != 200)?;
    // Whoever refuses first: the waypoint, or the node of the page's pod to the waypoint.
    let refused = [403, 503].contains(&page.status);
    story.holds("the page's status", refused, page.status, "403 or 503")?;
    teller.note("the page", &page.text.lines().next().unwrap_or_default());
    let pages = story.load(None, super::SOME)?;
    story.all("visitors", &pages, Reviews::NoPage)?;
    story.apply_to(NAMESPACE, ALLOW)?;
    let page = story.mesh.wait_page(Page::is_whole)?;
    story.holds("the page's status", page.status == 200, page.status, 200)?;
    // The other way round nobody might for a moment.
    story.delete_from(ROOT_NAMESPACE, DENY)?;
    story.delete_from(NAMESPACE, ALLOW)?;
    story.mesh.wait_page(Page::is_whole).map(drop)
}

/// The page may be read, and nothing else may be done with it.
pub fn viewer(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    story.apply(&[VIEWER])?;
    let url = "http://productpage:9080/productpage";
    teller.did("curl", &format!("curl -X POST {url}"));
    let refused = wait_for("a refusal", FELT, || {
        let answer = story.mesh.get(&["-X", "POST", url])?.remove(0);
        Ok((answer.status == 403).then_some(answer))
    })?;
    let wanted = "RBAC: access denied";
    let seen = refused.text.lines().last().unwrap_or_default();
    story.holds("the answer", seen == wanted, seen, wanted)?;
    let pages = story.load(None, super::SOME)?;
    let whole = pages.iter().all(Page::is_whole);
    story.holds("visitors see", whole, summary(&pages), "whole pages")?;
    story.delete(&[VIEWER])
}

/// What belongs to a trace, and who is logged in, reaches the last service.
pub fn propagation(mesh: &mut Bookinfo, teller: &dyn Teller) -> Result<()> {
    let mut story = Story::new(mesh, teller);
    story.apply(&[super::SUBSETS, super::ALL_V1, super::JASON_V2])?;
    super::routing::log_in(&story)?;
    let before = story.mesh.asked("ratings-v1")?.len();
    let headers = HEADERS.map(|(name, value)| format!("{name}: {value}"));
    let jar = story.mesh.jar(super::JASON).to_string_lossy().into_owned();
    let mut arguments = vec!["-b", jar.as_str(), "http://productpage:9080/productpage"];
    arguments.extend(headers.iter().flat_map(|header| ["-H", header.as_str()]));
    teller.did("curl", "curl -b cookies-of-jason http://productpage:9080/productpage -H ...");
    story.mesh.get(&arguments)?;
    let asked = story.mesh.asked("ratings-v1")?.split_off(before).pop();
    let asked = asked.context("ratings were not asked")?;
    for (name, value) in HEADERS.into_iter().chain([("end-user", super::JASON)]) {
        let seen = asked[name].as_str().unwrap_or("nothing");
        story.holds(&format!("{name} that ratings see"), seen == value, seen, value)?;
    }
    story.delete(&[super::ALL_V1])
}
