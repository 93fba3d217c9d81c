//! Which lines are written, changeable while the process runs.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use tracing::{Metadata, Subscriber, callsite, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    filter::Targets,
    layer::{Context, Layer},
};

use super::LogError;

/// Targets with a level of their own; a program has some dozens of modules.
const MAX_TARGETS: usize = 100;

/// The lowest level of the lines that are written, for each target. Cheap to clone.
///
/// Lines of targets that are not written cost next to nothing, and no lock is taken for the others.
#[derive(Clone, Debug)]
pub struct Levels {
    at_start: Arc<Targets>,
    in_force: Arc<ArcSwap<Targets>>,
}

/// A change of what is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LevelChange {
    /// Put a filter in front of what is in force; see [`Levels::change`].
    Put(String),
    /// Return to what the process was started with.
    Reset,
}

// === impl Levels ===

impl Levels {
    /// Starts with `filter`, such as `info,access=off`.
    pub fn new(filter: &str) -> Result<Self, LogError> {
        let at_start = Arc::new(parse(filter)?);
        Ok(Self { in_force: Arc::new(ArcSwap::new(at_start.clone())), at_start })
    }

    /// Makes a change.
    pub fn apply(&self, change: &LevelChange) -> Result<(), LogError> {
        match change {
            LevelChange::Put(filter) => self.change(filter),
            LevelChange::Reset => {
                self.reset();
                Ok(())
            }
        }
    }

    /// Puts `filter` in front of what is in force: a level, or `target=level` (also written
    /// `target:level`), or several of these with commas between them.
    pub fn change(&self, filter: &str) -> Result<(), LogError> {
        let change = parse(filter)?;
        let mut targets = Targets::clone(&self.in_force.load());
        if let Some(level) = change.default_level() {
            targets = targets.with_default(level);
        }
        targets.extend(change.iter().map(|(target, level)| (target.to_owned(), level)));
        if targets.iter().count() > MAX_TARGETS {
            return Err(LogError::TooManyTargets);
        }
        self.put_in_force(Arc::new(targets));
        Ok(())
    }

    /// Returns to what the process was started with.
    pub fn reset(&self) {
        self.put_in_force(self.at_start.clone());
    }

    fn put_in_force(&self, targets: Arc<Targets>) {
        self.in_force.store(targets);
        callsite::rebuild_interest_cache();
    }
}

impl Default for Levels {
    /// Writes lines of level info and above.
    fn default() -> Self {
        let info = Arc::new(Targets::new().with_default(LevelFilter::INFO));
        Self { in_force: Arc::new(ArcSwap::new(info.clone())), at_start: info }
    }
}

impl fmt::Display for Levels {
    /// Writes what is in force.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.in_force.load().fmt(f)
    }
}

impl<S: Subscriber> Layer<S> for Levels {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        <Targets as Layer<S>>::register_callsite(&self.in_force.load(), metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        <Targets as Layer<S>>::enabled(&self.in_force.load(), metadata, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        <Targets as Layer<S>>::max_level_hint(&self.in_force.load())
    }
}

fn parse(filter: &str) -> Result<Targets, LogError> {
    let directives: Vec<_> = filter.split(',').map(|part| directive(part.trim())).collect();
    let targets = directives.join(",").parse();
    targets.map_err(|source| LogError::Filter { filter: filter.to_owned(), source })
}

/// Writes `target:level` with an equals sign; the colons within a target are two.
fn directive(part: &str) -> String {
    match part.rsplit_once(':') {
        Some((target, level)) if !part.contains('=') && !target.ends_with(':') => {
            format!("{target}={level}")
        }
        _ => part.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use super::*;
    use crate::logging::{LogFormat, subscriber};

    #[test]
    fn a_change_adds_to_what_is_in_force_and_a_reset_undoes_all() {
        let levels = Levels::new("info,access=off").unwrap();
        for (change, expected) in [
            ("hbone=debug", "hbone=debug,access=off,info"),
            (
                "fairlead_node::proxy:trace",
                "fairlead_node::proxy=trace,access=off,hbone=debug,info",
            ),
            ("warn,hbone:error", "fairlead_node::proxy=trace,access=off,hbone=error,warn"),
        ] {
            levels.change(change).unwrap();
            let mut found: Vec<_> = levels.to_string().split(',').map(str::to_owned).collect();
            let mut expected: Vec<_> = expected.split(',').map(str::to_owned).collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{change}");
        }
        levels.reset();
        let text = levels.to_string();
        assert!(text == "access=off,info" || text == "info,access=off", "{text}");
    }

    #[test]
    fn a_change_that_cannot_be_read_changes_nothing() {
        let levels = Levels::new("info").unwrap();
        let error = levels.change("debug,access=loud").unwrap_err();
        assert!(error.to_string().contains("access=loud"), "{error}");
        let many: Vec<_> = (0..=MAX_TARGETS).map(|n| format!("t{n}=debug")).collect();
        assert!(matches!(levels.change(&many.join(",")), Err(LogError::TooManyTargets)));
        assert_eq!(levels.to_string(), "info");
    }

    /// A writer that counts lines.
    #[derive(Clone, Default)]
    struct Count(Arc<Mutex<usize>>);

    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let lines = String::from_utf8_lossy(bytes).matches('\n').count();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) += lines;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_follow_the_levels_in_force() {
        let count = Count::default();
        let (subscriber, guard) = subscriber(LogFormat::Plain, "info", 100, count.clone()).unwrap();
        let levels = guard.levels();
        let log = || {
            tracing::debug!(target: "levels_test", "a line");
            tracing::info!(target: "levels_test", "a line");
        };
        tracing::subscriber::with_default(subscriber, || {
            log();
            levels.change("levels_test=debug").unwrap();
            log();
            levels.change("levels_test=off").unwrap();
            log();
            levels.reset();
            log();
        });
        drop(guard);
        assert_eq!(*count.0.lock().unwrap(), 1 + 2 + 1);
    }
}
