//! Lets the kubelet's probes pass.

use tokio::time::interval;

use super::Control;
use crate::{
    capture::{
        kubelet::{Kubelet, KubeletCgroup},
        vanish::INTERVAL,
    },
    cli::Enrol,
};

// === impl Control ===

impl Control {
    /// Recognises the kubelet by its cgroup, also after it was started anew. Never returns.
    pub async fn follow_kubelet(&self, kubelet: &KubeletCgroup) {
        let mut tick = interval(INTERVAL);
        let mut known = None;
        loop {
            tick.tick().await;
            let found = kubelet.find();
            if known.as_ref() != Some(&found) {
                self.recognise(&found).await;
                known = Some(found);
            }
        }
    }

    async fn recognise(&self, kubelet: &Kubelet) {
        let cgroup = match kubelet {
            Kubelet::Found { path, .. } => Some(path.as_path()),
            Kubelet::HasOthersBelow(_) | Kubelet::Absent => None,
        };
        let recognised = self.0.programs.lock().await.recognise_probes(cgroup);
        let consequence = "its probes are refused where only mutual TLS is allowed";
        match (recognised, kubelet) {
            (Err(error), _) => {
                tracing::error!(%error, "cannot recognise the kubelet: {consequence}");
            }
            (Ok(()), Kubelet::Found { path, .. }) => {
                tracing::info!(cgroup = %path.display(), "probes of the kubelet pass");
            }
            (Ok(()), Kubelet::HasOthersBelow(path)) => tracing::warn!(
                cgroup = %path.display(),
                "the kubelet's cgroup has others below it, which must not pass for the kubelet: \
                 {consequence}; name its own with --kubelet-cgroup"
            ),
            (Ok(()), Kubelet::Absent) if self.0.enrol == Enrol::Kubernetes => tracing::warn!(
                "the kubelet's cgroup is not there: {consequence}; if it runs, name its cgroup with \
                 --kubelet-cgroup"
            ),
            (Ok(()), Kubelet::Absent) => tracing::debug!("there is no kubelet"),
        }
    }
}
