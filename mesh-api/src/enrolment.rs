//! Which pods take part in the mesh.
//!
//! Shared by the node agent, which enrols them, and by the control plane, which tells who is
//! enrolled where there is no agent that reports it.

/// Label that opts a namespace or a pod in or out.
pub const MODE_LABEL: &str = "istio.io/dataplane-mode";
/// Label of namespaces whose pods Istio gives a sidecar; it counts as opting in.
pub const INJECTION_LABEL: &str = "istio-injection";
/// Label by which a pod declines the sidecar that its namespace opts in to.
pub const INJECT_LABEL: &str = "sidecar.istio.io/inject";
/// Annotation of pods that have a sidecar.
pub const SIDECAR_ANNOTATION: &str = "sidecar.istio.io/status";
/// Namespaces of the cluster's own machinery, which never takes part.
pub const EXCLUDED_NAMESPACES: [&str; 1] = ["kube-system"];

const AMBIENT: &str = "ambient";
const NONE: &str = "none";

/// What decides about a pod; values of labels, as far as they are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Name of its namespace.
    pub namespace: &'a str,
    /// [`MODE_LABEL`] of its namespace.
    pub namespace_mode: Option<&'a str>,
    /// [`INJECTION_LABEL`] of its namespace.
    pub namespace_injection: Option<&'a str>,
    /// [`MODE_LABEL`] of the pod.
    pub mode: Option<&'a str>,
    /// [`INJECT_LABEL`] of the pod.
    pub inject: Option<&'a str>,
    /// Whether the pod lives in its node's network namespace.
    pub host_network: bool,
    /// Whether the pod has [`SIDECAR_ANNOTATION`].
    pub has_sidecar: bool,
}

// === impl Candidate ===

impl Candidate<'_> {
    /// Returns whether the pod takes part.
    pub fn takes_part(&self) -> bool {
        if self.host_network || self.has_sidecar || EXCLUDED_NAMESPACES.contains(&self.namespace) {
            return false;
        }
        match self.mode {
            Some(AMBIENT) => true,
            Some(NONE) => false,
            Some(_) | None => self.namespace_takes_part(),
        }
    }

    fn namespace_takes_part(&self) -> bool {
        match self.namespace_mode {
            Some(AMBIENT) => true,
            Some(NONE) => false,
            Some(_) | None => {
                self.namespace_injection == Some("enabled") && self.inject != Some("false")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN: Candidate<'_> = Candidate {
        namespace: "shop",
        namespace_mode: Some("ambient"),
        namespace_injection: None,
        mode: None,
        inject: None,
        host_network: false,
        has_sidecar: false,
    };
    const OUT: Candidate<'_> = Candidate { namespace_mode: None, ..IN };
    const INJECTED: Candidate<'_> = Candidate { namespace_injection: Some("enabled"), ..OUT };

    #[test]
    fn a_pod_takes_part_as_its_labels_and_its_namespace_say() {
        let cases = [
            ("no label", OUT, false),
            ("namespace", IN, true),
            ("pod opts out", Candidate { mode: Some("none"), ..IN }, false),
            ("pod opts in", Candidate { mode: Some("ambient"), ..OUT }, true),
            ("unknown value of the pod", Candidate { mode: Some("x"), ..IN }, true),
            ("host network", Candidate { host_network: true, ..IN }, false),
            ("sidecar", Candidate { has_sidecar: true, ..IN }, false),
            ("excluded namespace", Candidate { namespace: "kube-system", ..IN }, false),
            ("injection", INJECTED, true),
            ("injection off", Candidate { namespace_injection: Some("disabled"), ..OUT }, false),
            ("injection, mode none", Candidate { namespace_mode: Some("none"), ..INJECTED }, false),
            ("injection, pod opts out", Candidate { mode: Some("none"), ..INJECTED }, false),
            ("injection declined", Candidate { inject: Some("false"), ..INJECTED }, false),
            ("ambient, injection declined", Candidate { inject: Some("false"), ..IN }, true),
        ];
        for (case, candidate, expected) in cases {
            assert_eq!(candidate.takes_part(), expected, "{case}");
        }
    }
}
