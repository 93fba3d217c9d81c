//! The stories that documents tell with Bookinfo, as the demo tells them.
//!
//! One mesh has many steps: each brings what it needs, and takes its routes away again.

use std::fmt::Display;

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::bookinfo::{
    Bookinfo, Joining,
    story::{self, Teller},
};

type Step = (&'static str, fn(&mut Bookinfo, &dyn Teller) -> Result<()>);

/// Writes a story where a failed test shows it.
struct Log;

// === impl Log ===

impl Teller for Log {
    fn did(&self, place: &str, what: &str) {
        println!("- {place}: {what}");
    }

    fn note(&self, subject: &str, seen: &dyn Display) {
        println!("     {subject}: {seen}");
    }

    fn holds(
        &self,
        subject: &str,
        holds: bool,
        seen: &dyn Display,
        expected: &dyn Display,
    ) -> Result<()> {
        self.note(subject, seen);
        ensure!(holds, "{subject}: expected {expected}, saw {seen}");
        Ok(())
    }
}

/// Tells stories one after the other.
fn tell(name: &str, joining: Joining, steps: &[Step]) -> Result<()> {
    let mut mesh = Bookinfo::start(name, joining)?;
    for (title, step) in steps {
        println!("{title}");
        step(&mut mesh, &Log).with_context(|| {
            let log = mesh.waypoint.log().unwrap_or_default();
            format!("{title}\n{}", log.lines().rev().take(10).collect::<Vec<_>>().join("\n"))
        })?;
    }
    Ok(())
}

#[test]
fn the_stories_about_versions_and_faults_hold_in_a_namespace_with_istio_injection() -> Result<()> {
    tell(
        "bookfaults",
        Joining::Injection,
        &[
            ("spread", story::spread),
            ("all_v1", story::all_v1),
            ("user", story::user),
            ("half_v3", story::half_v3),
            ("abort", story::abort),
            ("delay", story::delay),
            ("timeout", story::timeout),
            ("impatience", story::impatience),
        ],
    )
}

#[test]
fn the_stories_about_failures_and_guards_hold_in_an_ambient_namespace() -> Result<()> {
    tell(
        "bookguards",
        Joining::Ambient,
        &[
            ("propagation", story::propagation),
            ("gateway_api", story::gateway_api),
            ("canary", story::canary),
            ("retries", story::retries),
            ("outliers", story::outliers),
            ("mirroring", story::mirroring),
            ("circuit_breaking", story::circuit_breaking),
            ("viewer", story::viewer),
            ("deny_all", story::deny_all),
        ],
    )
}
