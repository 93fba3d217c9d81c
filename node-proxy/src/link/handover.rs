//! The messages between a capture process and its successor.
//!
//! The predecessor owns everything until [`ToPredecessor::Taken`] is in its socket's queue; from then
//! on the successor does. A predecessor that waits no longer closes its socket for receiving and then
//! reads what is in the queue. The kernel puts the two in order, so that both processes see the same:
//! either the message was first, and the predecessor ends, or the closing was, and the message cannot
//! be sent.
//!
//! | The predecessor | The successor | Owner |
//! |---|---|---|
//! | waits for `TakeOver` | sends it | predecessor |
//! | sends the parts, then `End` | receives them, loads its programs | predecessor |
//! | waits for `Taken` | sends it | successor, once it is sent |
//! | closed before that: serves as before | cannot send it: ends | predecessor |

use serde::{Deserialize, Serialize};

use super::message::PodId;

/// What a successor tells its predecessor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToPredecessor {
    /// The first message: hand everything over.
    TakeOver {
        /// Version of the protocol.
        version: u16,
    },
    /// Everything has arrived and the programs are loaded: the successor owns it now. Without it the
    /// predecessor goes on.
    Taken,
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// What a predecessor tells its successor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToSuccessor {
    /// The first message.
    Hello {
        /// Version of the protocol.
        version: u16,
    },
    /// Carries the open files whose locks say who owns the BPF directory and the run directory.
    Locks,
    /// Carries the listening socket of the API.
    Api,
    /// Carries the listening sockets for operators: metrics, readiness, admin.
    Endpoints,
    /// Carries the listening sockets of a pod: outbound, tunnels, plaintext.
    Pod {
        /// The pod.
        pod: PodId,
    },
    /// Carries the link to a proxy.
    Proxy,
    /// That was everything.
    End,
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages as version 1 writes them. They never change: the previous release speaks them.
    #[test]
    fn the_hand_over_is_that_of_version_1() {
        let requests = [
            (ToPredecessor::TakeOver { version: 1 }, r#"{"type":"take_over","version":1}"#),
            (ToPredecessor::Taken, r#"{"type":"taken"}"#),
        ];
        for (message, text) in requests {
            assert_eq!(serde_json::to_string(&message).unwrap(), text);
            assert_eq!(serde_json::from_str::<ToPredecessor>(text).unwrap(), message);
        }
        let pod = PodId { netns: 4711, enrolment: 99 };
        let answers = [
            (ToSuccessor::Hello { version: 1 }, r#"{"type":"hello","version":1}"#),
            (ToSuccessor::Locks, r#"{"type":"locks"}"#),
            (ToSuccessor::Api, r#"{"type":"api"}"#),
            (ToSuccessor::Endpoints, r#"{"type":"endpoints"}"#),
            (ToSuccessor::Pod { pod }, r#"{"type":"pod","pod":{"netns":4711,"enrolment":99}}"#),
            (ToSuccessor::Proxy, r#"{"type":"proxy"}"#),
            (ToSuccessor::End, r#"{"type":"end"}"#),
        ];
        for (message, text) in answers {
            assert_eq!(serde_json::to_string(&message).unwrap(), text);
            assert_eq!(serde_json::from_str::<ToSuccessor>(text).unwrap(), message);
        }
    }

    #[test]
    fn what_a_later_release_adds_is_ignored() {
        let later = r#"{"type":"colour","name":"blue"}"#;
        assert_eq!(serde_json::from_str::<ToSuccessor>(later).unwrap(), ToSuccessor::Unknown);
        assert_eq!(serde_json::from_str::<ToPredecessor>(later).unwrap(), ToPredecessor::Unknown);
    }
}
