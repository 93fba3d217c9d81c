//! What becomes of the datagrams of pods, as far as the proxy has a say.

use std::os::fd::OwnedFd;

use super::{Intake, Progress, answer};
use crate::{
    link::{
        message::{PodId, ToCapture},
        resolver::ResolverSockets,
    },
    proxy::pod::Pod,
};

// === impl Intake ===

impl Intake {
    /// Begins with the pods that have waited.
    pub(super) fn begin_datagrams(&mut self) {
        let waiting: Vec<_> = self.pods.keys().copied().collect();
        for pod in waiting {
            self.resolve(pod);
        }
        self.judge_datagrams();
    }

    /// Tells a capture process that knows nothing for which pods it is to refuse datagrams.
    pub(super) fn judge_datagrams_anew(&mut self) {
        self.pods.values_mut().for_each(|served| served.refuses = None);
        self.judge_datagrams();
    }

    /// Tells capture for which pods it is to refuse datagrams, as far as that is news.
    pub(super) fn judge_datagrams(&mut self) {
        if self.progress != Progress::Serving || self.draining {
            return;
        }
        for (pod, served) in self.pods.iter_mut().filter(|(_, served)| served.listeners.is_some()) {
            let Pod { name, identity, .. } = &*served.pod;
            let refuse = self.parts.node.refuses_datagrams(name, identity);
            if served.refuses.replace(refuse) != Some(refuse) {
                answer(&self.answers, ToCapture::RefuseDatagrams { pod: *pod, refuse });
            }
        }
    }

    /// Takes the sockets by which the names that a pod asks for are resolved.
    pub(super) fn take_resolver(&mut self, pod: PodId, sockets: Vec<OwnedFd>) {
        let Some(served) = self.pods.get_mut(&pod) else { return };
        served.resolver = ResolverSockets::from_descriptors(sockets);
        if served.resolver.is_none() {
            // Its queries go to the name servers.
            self.parts.node.metrics.limit("descriptors").inc();
            tracing::error!(pod = %served.pod.name, "no descriptors are left to resolve names");
        }
        if self.progress == Progress::Serving {
            self.resolve(pod);
        }
    }

    /// Answers the pod's DNS queries, if it has the sockets for that.
    fn resolve(&mut self, pod: PodId) {
        let Some(served) = self.pods.get_mut(&pod) else { return };
        if self.draining || served.listeners.is_none() {
            return;
        }
        if let Some(sockets) = served.resolver.take() {
            self.parts.resolver.serve(&served.pod, sockets);
            self.answer(ToCapture::Resolving { pod });
        }
    }
}
