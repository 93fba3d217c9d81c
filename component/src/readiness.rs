//! Whether this process can serve: named gates, all of which must be open.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The gates of this process.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Vec<State>>>);

/// One thing that must be done, or hold, before the process is ready.
///
/// A gate that is dropped keeps its state.
#[derive(Debug)]
pub struct Gate {
    readiness: Readiness,
    index: usize,
}

#[derive(Debug)]
struct State {
    name: &'static str,
    open: bool,
}

// === impl Readiness ===

impl Readiness {
    /// Adds a gate, closed.
    pub fn gate(&self, name: &'static str) -> Gate {
        let mut gates = self.gates();
        gates.push(State { name, open: false });
        Gate { readiness: self.clone(), index: gates.len() - 1 }
    }

    /// Returns the names of the gates that are closed, in the order of their creation.
    pub fn pending(&self) -> Vec<&'static str> {
        let gates = self.gates();
        gates.iter().filter(|gate| !gate.open).map(|gate| gate.name).collect()
    }

    /// A gate is one flag, so it is valid also after a panic elsewhere.
    fn gates(&self) -> MutexGuard<'_, Vec<State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Gate ===

impl Gate {
    /// Opens the gate.
    pub fn open(&self) {
        self.set(true);
    }

    /// Closes the gate: the process is not ready any more.
    pub fn close(&self) {
        self.set(false);
    }

    fn set(&self, open: bool) {
        self.readiness.gates()[self.index].open = open;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_while_every_gate_is_open() {
        let readiness = Readiness::default();
        let configuration = readiness.gate("configuration");
        let capture = readiness.gate("capture");
        assert_eq!(readiness.pending(), ["configuration", "capture"]);
        configuration.open();
        assert_eq!(readiness.pending(), ["capture"]);
        capture.open();
        assert!(readiness.pending().is_empty());
        configuration.close();
        assert_eq!(readiness.pending(), ["configuration"]);
    }

    #[test]
    fn a_gate_dropped_before_it_opened_stays_closed() {
        let readiness = Readiness::default();
        drop(readiness.gate("certificates"));
        assert_eq!(readiness.pending(), ["certificates"]);
    }
}
