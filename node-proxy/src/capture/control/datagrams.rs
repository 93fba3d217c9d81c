//! What becomes of the datagrams of pods: as the proxies say, as far as the options let them.

use std::time::Duration;

use fairlead_ebpf::datagrams::DatagramRules;
use tokio::time::timeout;

use super::{Control, Enrolled, Shared, attach::duplicate};
use crate::{
    capture::{
        programs::Programs,
        proxies::{Answers, Link, Unreachable},
    },
    link::message::ToProxy,
};

/// Longest time for which the queries of pods may wait for a proxy that is not there.
const RULE_INTERVAL: Duration = Duration::from_secs(1);

/// Gives a proxy the sockets by which it answers the DNS queries of a pod.
pub(super) fn give_resolver(link: &Link, enrolled: &Enrolled) -> Result<(), Unreachable> {
    let Some(resolver) = &enrolled.resolver else { return Ok(()) };
    if link.progress().draining {
        return Ok(());
    }
    match duplicate(resolver.descriptors()) {
        Ok(sockets) => link.tell(ToProxy::Resolve { pod: enrolled.pod }, sockets),
        Err(error) => {
            // Its queries go to the name servers.
            tracing::warn!(pod = %enrolled.spec.key(), %error, "a proxy cannot resolve names");
            Ok(())
        }
    }
}

// === impl Control ===

impl Control {
    /// Leads DNS queries to where they are answered, and refuses datagrams where policy says so, as
    /// proxies come, go and change their mind. Never returns.
    pub async fn rule_datagrams(&self) {
        let shared = &self.0;
        let mut changes = shared.proxies.changes();
        loop {
            // Without a change, too: after a restart there may be no proxy at all.
            let _ = timeout(RULE_INTERVAL, changes.changed()).await;
            let mut programs = shared.programs.lock().await;
            let pods: Vec<_> = shared.pods().values().cloned().collect();
            for enrolled in pods.iter().filter(|enrolled| !enrolled.is_draining()) {
                shared.rule(&mut programs, enrolled);
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    /// Leads the queries of every pod to the name servers: nobody is going to answer.
    pub(super) fn end_queries(&self, programs: &mut Programs) {
        for (pod, _) in self.listeners() {
            let led = programs.datagrams.set(pod.netns(), DatagramRules::ANSWERED, false);
            if let Err(error) = led {
                tracing::error!(netns = pod.netns, %error, "the DNS queries of a pod get no answer");
            }
        }
    }

    fn rule(&self, programs: &mut Programs, enrolled: &Enrolled) {
        let pod = enrolled.pod;
        let (mut answered, mut refused) = (Answers::No, None);
        for link in self.proxies.all() {
            let progress = link.progress();
            answered = answered.max(progress.answers_queries(pod));
            // The latest counts; what one that is gone has said stays.
            refused = progress.refuses_datagrams(pod).or(refused);
        }
        let datagrams = &mut programs.datagrams;
        let led = match answered {
            Answers::Soon => Ok(()),
            Answers::Yes => datagrams.set(pod.netns(), DatagramRules::ANSWERED, true),
            Answers::No => datagrams.set(pod.netns(), DatagramRules::ANSWERED, false),
        };
        let judged = match refused {
            Some(refused) if self.datagrams.has(DatagramRules::BY_POLICY) => {
                datagrams.set(pod.netns(), DatagramRules::REFUSE_RECEIVED, refused)
            }
            Some(_) | None => Ok(()),
        };
        if let Err(error) = led.and(judged) {
            tracing::error!(pod = %enrolled.spec.key(), %error, "cannot rule the datagrams of a pod");
        }
    }
}
