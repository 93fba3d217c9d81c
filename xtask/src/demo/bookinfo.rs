//! The scenario of Bookinfo: what Istio's documents show with it, from their manifests.

use super::hints;
use super::report::Report;
use super::stage::{Scene, Stage, node, pod};
use anyhow::Result;
use fairlead_lab::bookinfo::story::{self, Teller};
use fairlead_lab::bookinfo::{Bookinfo, Joining};
use std::fmt::Display;

impl Stage for Bookinfo {
    const SCENES: &'static [Scene<Self>] = &[
        Scene { title: "Without rules every version answers", play: |b, r| story::spread(b, r) },
        Scene { title: "Everything goes to version 1", play: |b, r| story::all_v1(b, r) },
        Scene { title: "The user jason sees version 2", play: |b, r| story::user(b, r) },
        Scene { title: "Half of the requests go to version 3", play: |b, r| story::half_v3(b, r) },
        Scene { title: "The same by the Gateway API", play: |b, r| story::gateway_api(b, r) },
        Scene {
            title: "A canary gets a share of the page's requests",
            play: |b, r| story::canary(b, r),
        },
        Scene { title: "Ratings fail, for jason", play: |b, r| story::abort(b, r) },
        Scene { title: "Ratings take 2 s", play: |b, r| story::delay(b, r) },
        Scene {
            title: "Reviews have 0.5 s, and are asked twice",
            play: |b, r| story::timeout(b, r),
        },
        Scene { title: "Failures are tried again", play: |b, r| story::retries(b, r) },
        Scene { title: "What keeps failing is left alone", play: |b, r| story::outliers(b, r) },
        Scene { title: "Version 3 gets copies", play: |b, r| story::mirroring(b, r) },
        Scene {
            title: "What is too much is turned away",
            play: |b, r| story::circuit_breaking(b, r),
        },
        Scene { title: "The page may only be read", play: |b, r| story::viewer(b, r) },
        Scene { title: "Nobody may, then everybody may", play: |b, r| story::deny_all(b, r) },
    ];

    fn start() -> Result<Self> {
        Self::start("demo", Joining::Injection)
    }

    fn inventory(&self) -> Vec<(String, Vec<String>)> {
        let plane =
            vec![format!("fairlead-control --config-dir {}", self.plane.config_dir().display())];
        let own = [(&self.curl, "the client"), (self.waypoint.pod(), "of namespace demo")];
        let all = || own.into_iter().chain(self.pods().map(|pod| (pod, "")));
        let on = |name: &str| {
            let pods = all().filter(|(of_mesh, _)| of_mesh.node() == name);
            pods.map(|(of_mesh, remark)| pod(of_mesh, remark)).collect()
        };
        vec![
            (node(self.lab.node(1)), on("n1")),
            (node(self.lab.node(2)), on("n2")),
            (node(self.lab.node(3)), plane),
        ]
    }

    fn logs(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![
            ("n1", self.n1.log()?),
            ("n2", self.n2.log()?),
            ("control", self.plane.log()?),
            ("waypoint", self.waypoint.log()?),
        ])
    }

    fn hints(&self) -> Vec<(&'static str, String)> {
        hints::of_bookinfo(self)
    }

    fn keep(self) {
        Self::keep(self);
    }
}

impl Teller for Report {
    fn did(&self, place: &str, what: &str) {
        Self::did(self, place, what);
    }

    fn note(&self, subject: &str, seen: &dyn Display) {
        Self::note(self, subject, seen);
    }

    fn holds(
        &self,
        subject: &str,
        holds: bool,
        seen: &dyn Display,
        expected: &dyn Display,
    ) -> Result<()> {
        Self::holds(self, subject, holds, seen, expected)
    }
}
