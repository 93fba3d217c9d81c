//! SPIFFE ids, as certificates, policies and configurations name them.

use mesh_api::identity::{Identity, MAX_SPIFFE_ID_BYTES};

/// An id is taken exactly if a naive reader of the specification takes it, is never normalised, and
/// is escaped where it is refused.
pub fn spiffe_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<Identity>() {
        Ok(identity) => {
            assert!(is_workload(text), "{identity}");
            assert_eq!(identity.to_string(), text);
        }
        Err(error) => {
            assert!(!is_workload(text), "{error}");
            let said = error.to_string();
            assert!(!said.contains(char::is_control), "{said:?}");
        }
    }
}

fn is_workload(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let is_mark = |c: char| "-._".contains(c);
    let is_domain = |s: &str| {
        let fits = (1..=255).contains(&s.len());
        fits && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || is_mark(c))
    };
    let is_segment = |s: &str| {
        !["", ".", ".."].contains(&s) && s.chars().all(|c| c.is_ascii_alphanumeric() || is_mark(c))
    };
    match parts[..] {
        ["spiffe:", "", domain, "ns", namespace, "sa", account] => {
            text.len() <= MAX_SPIFFE_ID_BYTES
                && is_domain(domain)
                && is_segment(namespace)
                && is_segment(account)
        }
        _ => false,
    }
}
