//! The demo's account of itself: what was done, what was seen, how long it took.

use crate::process::seconds;
use anyhow::{Result, bail};
use std::fmt::{Debug, Display};
use std::io::{self, IsTerminal};
use std::time::Duration;

/// Width of what is looked at; what was seen is aligned behind it.
const SUBJECT_WIDTH: usize = 46;

/// Writes to standard output, in colour where that is a terminal.
pub(super) struct Report {
    styled: bool,
}

/// ANSI attributes.
#[derive(Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Green,
    Red,
}

// === impl Report ===

impl Report {
    pub(super) fn new() -> Self {
        Self { styled: io::stdout().is_terminal() }
    }

    /// Shows what there is before the first step.
    pub(super) fn opening(&self, inventory: &[(String, Vec<String>)], took: Duration) {
        println!("\n{}", self.paint(Style::Bold, "Two nodes, a proxy on each, and pods"));
        for (node, pods) in inventory {
            println!("   {node}");
            for pod in pods {
                println!("      {pod}");
            }
        }
        self.done(took);
    }

    /// Begins a step.
    pub(super) fn title(&self, number: usize, title: &str) {
        println!("\n{}", self.paint(Style::Bold, &format!("{number}  {title}")));
    }

    /// Tells what is done next; `place` is a pod, a node or a file.
    pub(super) fn did(&self, place: &str, what: &str) {
        let mark = if self.styled { "▸" } else { "-" };
        println!("   {mark} {place}: {what}");
    }

    /// Ends a step.
    pub(super) fn done(&self, took: Duration) {
        println!("   {}", self.paint(Style::Dim, &format!("took {}", seconds(took))));
    }

    /// Tells what was seen without judging it.
    pub(super) fn note(&self, subject: &str, seen: impl Display) {
        let subject = format!("{subject:SUBJECT_WIDTH$}");
        println!("         {} {seen}", self.paint(Style::Dim, &subject));
    }

    /// Demands that what was seen is what was expected.
    pub(super) fn same<T: PartialEq<U> + Debug, U: Debug>(
        &self,
        subject: &str,
        seen: &T,
        expected: &U,
    ) -> Result<()> {
        self.holds(subject, seen == expected, plain(seen), plain(expected))
    }

    /// Demands that `holds`; `expected` says what would have been right.
    pub(super) fn holds(
        &self,
        subject: &str,
        holds: bool,
        seen: impl Display,
        expected: impl Display,
    ) -> Result<()> {
        let (mark, style) = match (holds, self.styled) {
            (true, true) => ("✓ ", Style::Green),
            (true, false) => ("ok", Style::Green),
            (false, true) => ("✗ ", Style::Red),
            (false, false) => ("NO", Style::Red),
        };
        println!("      {} {subject:SUBJECT_WIDTH$} {seen}", self.paint(style, mark));
        if !holds {
            bail!("{subject}: expected {expected}, saw {seen}");
        }
        Ok(())
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if !self.styled {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Green => 32,
            Style::Red => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A value without the quotes of a text.
fn plain(value: &impl Debug) -> String {
    format!("{value:?}").replace('"', "")
}
