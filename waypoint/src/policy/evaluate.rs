//! Whether a rule matches.

use super::{Action, Clause, Policy, Rule, Subject};
use crate::route::RequestHead;

// === impl Policy ===

impl Policy {
    /// Returns the index of the first rule that matches.
    pub(super) fn matching_rule(
        &self,
        subject: &Subject<'_>,
        request: Option<&RequestHead<'_>>,
    ) -> Option<usize> {
        self.rules.iter().position(|rule| rule.matches(self.action, subject, request))
    }
}

// === impl Rule ===

impl Rule {
    fn matches(
        &self,
        action: Action,
        subject: &Subject<'_>,
        request: Option<&RequestHead<'_>>,
    ) -> bool {
        let holds =
            |clause: &Clause| clause.iter().all(|check| check.holds(action, subject, request));
        let one_of = |clauses: &[Clause]| clauses.is_empty() || clauses.iter().any(holds);
        one_of(&self.from) && one_of(&self.to) && holds(&self.when)
    }
}
