//! Lets the kubelet's probes pass.

use tokio::time::interval;

use super::Control;
use crate::{
    capture::{
        kubelet::{Found, KubeletCgroup},
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
                self.recognise(found.as_ref()).await;
                known = Some(found);
            }
        }
    }

    async fn recognise(&self, found: Option<&Found>) {
        let mut programs = self.0.programs.lock().await;
        let recognised = programs.recognise_probes(found.map(|found| found.path.as_path()));
        match (recognised, found) {
            (Ok(()), Some(Found { path, .. })) => {
                tracing::info!(cgroup = %path.display(), "probes of the kubelet pass");
            }
            (Ok(()), None) if self.0.enrol == Enrol::Kubernetes => tracing::warn!(
                "the kubelet's cgroup is not there: its probes are refused where only mutual TLS is \
                 allowed; if it runs, name its cgroup with --kubelet-cgroup"
            ),
            (Ok(()), None) => tracing::debug!("there is no kubelet"),
            (Err(error), _) => tracing::error!(
                %error,
                "the kubelet's probes are refused where only mutual TLS is allowed"
            ),
        }
    }
}
