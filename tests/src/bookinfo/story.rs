//! What documents show with Bookinfo, step by step: what is done, and what has to be seen.
//!
//! Each step brings what it needs and takes its routes away again. Nothing here judges a number that chance may make
//! otherwise, but for odds of less than one in 10⁹.

mod canary;
mod faults;
mod guards;
mod resilience;
mod routing;

use std::{collections::BTreeMap, fmt::Display};

use anyhow::Result;

pub use self::{
    canary::canary,
    faults::{abort, delay, impatience, timeout},
    guards::{deny_all, propagation, viewer},
    resilience::{circuit_breaking, mirroring, outliers, retries},
    routing::{all_v1, gateway_api, half_v3, spread, user},
};
use super::{Bookinfo, NAMESPACE, Page, Reviews};

const ALL_V1: &str = "networking/virtual-service-all-v1.yaml";
const SUBSETS: &str = "networking/destination-rule-all.yaml";
const JASON_V2: &str = "networking/virtual-service-reviews-test-v2.yaml";

/// The user for whom the documents do something special.
const JASON: &str = "jason";

/// Loads of a page that show that all are alike.
const SOME: usize = 10;

/// Listens to a story.
pub trait Teller {
    /// What is done next; `place` is a pod, a node or a tool.
    fn did(&self, place: &str, what: &str);

    /// What was seen, without judgement.
    fn note(&self, subject: &str, seen: &dyn Display);

    /// What was seen, and whether it had to be so; fails where it did not.
    fn holds(
        &self,
        subject: &str,
        holds: bool,
        seen: &dyn Display,
        expected: &dyn Display,
    ) -> Result<()>;
}

/// A story about Bookinfo.
struct Story<'a> {
    mesh: &'a mut Bookinfo,
    teller: &'a dyn Teller,
}

/// Requests of a service that were answered like this.
#[derive(Clone, Copy)]
struct Requests {
    service: &'static str,
    code: &'static str,
    /// As in access logs.
    flags: &'static str,
}

// === impl Story ===

impl<'a> Story<'a> {
    fn new(mesh: &'a mut Bookinfo, teller: &'a dyn Teller) -> Self {
        Self { mesh, teller }
    }

    fn apply(&mut self, samples: &[&str]) -> Result<()> {
        samples.iter().try_for_each(|sample| self.apply_to(NAMESPACE, sample))
    }

    fn apply_to(&mut self, namespace: &str, sample: &str) -> Result<()> {
        self.kubectl(&format!("apply -n {namespace} -f samples/bookinfo/{sample}"));
        self.mesh.apply(namespace, sample)
    }

    /// Applies what the document has written out.
    fn apply_text(&mut self, what: &str, manifest: &str) -> Result<()> {
        self.kubectl(&format!("apply -n {NAMESPACE} -f -   ({what})"));
        self.mesh.apply_text(NAMESPACE, manifest)
    }

    fn delete(&mut self, samples: &[&str]) -> Result<()> {
        samples.iter().try_for_each(|sample| self.delete_from(NAMESPACE, sample))
    }

    fn delete_from(&mut self, namespace: &str, sample: &str) -> Result<()> {
        self.kubectl(&format!("delete -n {namespace} -f samples/bookinfo/{sample}"));
        self.mesh.delete(namespace, sample)
    }

    fn kubectl(&self, what: &str) {
        self.teller.did("kubectl", what);
    }

    /// Loads the page several times.
    fn load(&self, user: Option<&str>, times: usize) -> Result<Vec<Page>> {
        let cookie = user.map(|user| format!(" -b cookies-of-{user}")).unwrap_or_default();
        let times_said = if times == 1 { String::new() } else { format!(", {times} times") };
        let what = format!("curl -s{cookie} http://productpage:9080/productpage{times_said}");
        self.teller.did("curl", &what);
        self.mesh.load(user, times)
    }

    /// Loads the page and demands that it shows the same each time.
    fn shows(&self, user: Option<&str>, expected: Reviews) -> Result<()> {
        let pages = self.load(user, SOME)?;
        self.all(user.unwrap_or("visitors"), &pages, expected)
    }

    fn all(&self, who: &str, pages: &[Page], expected: Reviews) -> Result<()> {
        let alike = pages.iter().all(|page| page.reviews() == expected);
        let wanted = format!("{expected} only");
        self.teller.holds(&format!("{who} see"), alike, &summary(pages), &wanted)
    }

    fn holds(
        &self,
        subject: &str,
        holds: bool,
        seen: impl Display,
        expected: impl Display,
    ) -> Result<()> {
        self.teller.holds(subject, holds, &seen, &expected)
    }

    /// Returns how many of these requests the waypoint has counted.
    fn counted(&self, requests: Requests) -> Result<f64> {
        self.mesh.counted(&requests.labels())
    }

    /// Demands that it has counted `more` of them than `before`.
    fn has_counted(&self, requests: Requests, before: f64, more: u32) -> Result<()> {
        let counted = self.mesh.wait_counted(&requests.labels(), before + f64::from(more));
        let Requests { service, code, flags } = requests;
        let subject = format!("counted for {service}, with {code} {flags}");
        let seen = self.counted(requests)? - before;
        self.holds(&subject, counted.is_ok(), seen, more)
    }
}

// === impl Requests ===

impl Requests {
    fn labels(self) -> [(&'static str, &'static str); 3] {
        [
            ("destination_service_name", self.service),
            ("response_code", self.code),
            ("response_flags", self.flags),
        ]
    }
}

/// Returns how many pages show what.
fn summary(pages: &[Page]) -> String {
    let mut counts: BTreeMap<Reviews, usize> = BTreeMap::new();
    for page in pages {
        *counts.entry(page.reviews()).or_default() += 1;
    }
    let counts: Vec<_> =
        counts.iter().map(|(reviews, count)| format!("{count} x {reviews}")).collect();
    counts.join(", ")
}

fn seconds(page: &Page) -> String {
    format!("{:.2} s", page.took.as_secs_f64())
}
