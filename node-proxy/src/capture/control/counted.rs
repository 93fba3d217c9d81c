//! Tells proxies what the kernel counts, for they have the metrics.

use std::time::Duration;

use tokio::time::interval;

use super::{Control, Enrolled};
use crate::{
    capture::programs::Programs,
    link::message::{CountedPod, MAX_PODS_PER_MESSAGE, ToProxy},
};

/// Pause between looks at the counts. They are scraped every 15 s or so.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);

// === impl Control ===

impl Control {
    /// Keeps proxies informed of the connections that the kernel counts. Never returns.
    pub async fn report_counts(&self) {
        let shared = &self.0;
        let mut tick = interval(COUNT_INTERVAL);
        let mut told = (Vec::new(), Vec::new());
        loop {
            tick.tick().await;
            let programs = shared.programs.lock().await;
            let counted: Vec<_> = {
                let pods = shared.pods();
                let captured = pods.values().filter(|enrolled| !enrolled.is_draining());
                captured.map(|enrolled| enrolled.counted(&programs)).collect()
            };
            drop(programs);
            // One that is new, and one that took a message of its predecessor's for its own.
            let proxies: Vec<_> = shared.proxies.all().iter().map(|link| link.number).collect();
            let now = (counted, proxies);
            if now == told {
                continue;
            }
            for message in messages(&now.0) {
                shared.proxies.tell_active(&message);
            }
            told = now;
        }
    }
}

// === impl Enrolled ===

impl Enrolled {
    fn counted(&self, programs: &Programs) -> CountedPod {
        CountedPod {
            namespace: self.spec.namespace.clone(),
            name: self.spec.name.clone(),
            counts: programs.counts(self.pod.netns()).0.to_vec(),
        }
    }
}

/// Divides what is told into messages; without pods there is still one.
fn messages(counted: &[CountedPod]) -> Vec<ToProxy> {
    let mut parts: Vec<_> = counted.chunks(MAX_PODS_PER_MESSAGE).map(<[_]>::to_vec).collect();
    if parts.is_empty() {
        parts.push(Vec::new());
    }
    let last = parts.len() - 1;
    let message = |(number, pods)| ToProxy::Counted { pods, last: number == last };
    parts.into_iter().enumerate().map(message).collect()
}

#[cfg(test)]
mod tests {
    use fairlead_ebpf::Fate;

    use super::*;
    use crate::link::channel::MAX_MESSAGE_BYTES;

    fn pods(count: usize) -> Vec<CountedPod> {
        let longest = |number: usize| CountedPod {
            namespace: "n".repeat(63).parse().unwrap(),
            name: format!("{number:0>253}").parse().unwrap(),
            counts: vec![u64::MAX; Fate::ALL.len()],
        };
        (0..count).map(longest).collect()
    }

    #[test]
    fn what_is_told_is_divided_into_messages_that_fit() {
        for (count, parts) in
            [(0, 1), (1, 1), (MAX_PODS_PER_MESSAGE, 1), (MAX_PODS_PER_MESSAGE + 1, 2), (1024, 16)]
        {
            let messages = messages(&pods(count));
            assert_eq!(messages.len(), parts, "{count}");
            let mut told = Vec::new();
            for (number, message) in messages.iter().enumerate() {
                assert!(serde_json::to_vec(message).unwrap().len() <= MAX_MESSAGE_BYTES);
                let ToProxy::Counted { pods, last } = message else { panic!("{message:?}") };
                assert_eq!(*last, number + 1 == parts);
                told.extend(pods.clone());
            }
            assert_eq!(told, pods(count));
        }
    }
}
