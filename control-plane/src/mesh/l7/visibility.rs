//! Which namespaces see a rule.

/// How a rule comes to be seen from a namespace; the closest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Visibility {
    /// Only its own namespace sees it, which it is.
    Private,
    /// It names the namespace, among others.
    Exported,
    /// Every namespace sees it.
    Public,
}

/// Returns how a rule of the namespace `own` is seen from another, if it is.
pub(super) fn of(
    export_to: &[String],
    default: &[String],
    own: &str,
    from: &str,
) -> Option<Visibility> {
    let listed = if export_to.is_empty() { default } else { export_to };
    if listed.is_empty() || listed.iter().any(|name| name == "*") {
        return Some(Visibility::Public);
    }
    let names = |name: &String| *name == from || (name == "." && own == from);
    let is_own = |name: &String| name == "." || *name == own;
    match listed.iter().any(names) {
        true if listed.iter().all(is_own) => Some(Visibility::Private),
        true => Some(Visibility::Exported),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_seen_where_they_say() {
        let cases = [
            (&[][..], "shop", Some(Visibility::Public)),
            (&["*"], "bank", Some(Visibility::Public)),
            (&["."], "shop", Some(Visibility::Private)),
            (&["shop"], "shop", Some(Visibility::Private)),
            (&["."], "bank", None),
            (&[".", "bank"], "bank", Some(Visibility::Exported)),
            (&[".", "bank"], "shop", Some(Visibility::Exported)),
            (&["bank"], "shop", None),
            (&["~"], "shop", None),
        ];
        for (listed, from, expected) in cases {
            let listed: Vec<_> = listed.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(of(&listed, &[], "shop", from), expected, "{listed:?} from {from}");
            assert_eq!(of(&[], &listed, "shop", from), expected, "default {listed:?} from {from}");
        }
    }
}
