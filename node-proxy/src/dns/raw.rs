//! What is read and changed of messages that are passed on: a few bytes of the header, nothing else.

use std::ops::Range;

/// Bytes of the header of a message.
pub(super) const HEADER: usize = 12;

/// Longest name, in bytes of the wire form (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 255;

/// Bytes of type and class behind the name of a question.
pub(super) const TYPE_AND_CLASS: usize = 4;

/// First byte of the flags: the message is an answer; the kind of question; recursion is wanted.
const IS_ANSWER: u8 = 0x80;
const OPERATION: u8 = 0x78;
const RECURSION_DESIRED: u8 = 0x01;

/// Second byte of the flags: recursion is offered; the result.
const RECURSION_AVAILABLE: u8 = 0x80;
pub(super) const RESULT: u8 = 0x0f;

/// Results.
const SERVER_FAILURE: u8 = 2;
pub(super) const NO_SUCH_NAME: u8 = 3;

/// Number by which an answer is found to belong to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(pub u16);

// === impl Id ===

impl Id {
    /// Returns the number of a message; none if it is shorter than a header.
    pub fn of(message: &[u8]) -> Option<Self> {
        message
            .first_chunk::<HEADER>()
            .map(|header| Self(u16::from_be_bytes([header[0], header[1]])))
    }

    /// Makes it the number of a message.
    pub fn put(self, message: &mut [u8]) {
        if let Some(id) = message.first_chunk_mut() {
            *id = self.0.to_be_bytes();
        }
    }
}

/// Returns whether a message is a question, by its header.
pub(super) fn is_question(message: &[u8]) -> bool {
    message.first_chunk::<HEADER>().is_some_and(|header| header[2] & IS_ANSWER == 0)
}

/// Returns whether `message` is an answer to `question`. A server that cannot read a question does
/// not repeat it.
pub fn is_answer(message: &[u8], question: &[u8]) -> bool {
    let Some(header) = message.first_chunk::<HEADER>() else { return false };
    if header[2] & IS_ANSWER == 0 || Id::of(message) != Id::of(question) {
        return false;
    }
    let (Some(asked), false) = (first_question(question), header[4..6] == [0, 0]) else {
        return true;
    };
    let repeated = message.get(asked.clone()).unwrap_or_default();
    repeated.eq_ignore_ascii_case(&question[asked])
}

/// Returns the answer that says that a question could not be passed on.
pub fn failure(question: &[u8]) -> Option<Vec<u8>> {
    if !is_question(question) {
        return None;
    }
    let asked = first_question(question);
    let mut answer = question.get(..asked.as_ref().map_or(HEADER, |asked| asked.end))?.to_vec();
    answer[2] = answer[2] & (OPERATION | RECURSION_DESIRED) | IS_ANSWER;
    answer[3] = RECURSION_AVAILABLE | SERVER_FAILURE;
    answer[4..HEADER].fill(0);
    answer[5] = u8::from(asked.is_some());
    Some(answer)
}

/// Makes an answer that denies the existence of a name say instead that it has nothing of the type
/// that was asked for: the mesh knows the name, whatever the name server knows.
pub fn known_to_exist(answer: &mut [u8]) {
    if let Some(header) = answer.first_chunk_mut::<HEADER>()
        && header[3] & RESULT == NO_SUCH_NAME
    {
        header[3] &= !RESULT;
    }
}

/// Returns where the first question is; none if there is none, or a compressed one.
fn first_question(message: &[u8]) -> Option<Range<usize>> {
    let header = message.first_chunk::<HEADER>()?;
    if header[4..6] == [0, 0] {
        return None;
    }
    let mut at = HEADER;
    while at < HEADER + MAX_NAME {
        match *message.get(at)? {
            0 => {
                let end = at + 1 + TYPE_AND_CLASS;
                return (end <= message.len()).then_some(HEADER..end);
            }
            length @ 1..=63 => at += 1 + usize::from(length),
            64.. => return None,
        }
    }
    None
}
