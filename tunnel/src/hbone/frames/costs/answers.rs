//! How many header blocks the answers to requests take: a few may come before the one that counts
//! (RFC 9113 section 8.1).

use std::collections::HashMap;

use super::{DATA, END_STREAM, Excess, HEADERS, Head, RST_STREAM};

/// The requests that are under way.
#[derive(Debug)]
pub(super) struct Answers {
    /// Interim answers that a request may have.
    most_interim: u32,
    /// By stream, the header blocks that came and did not end it.
    blocks: HashMap<u32, u32>,
    last: u32,
}

// === impl Answers ===

impl Answers {
    pub(super) fn new(most_interim: u32) -> Self {
        Self { most_interim, blocks: HashMap::new(), last: 0 }
    }

    /// Notes a frame that was sent to the server.
    pub(super) fn note_sent(&mut self, head: Head) {
        match head.kind {
            // A later block of the same stream has its trailers.
            HEADERS if head.stream > self.last => {
                self.last = head.stream;
                self.blocks.insert(head.stream, 0);
            }
            RST_STREAM => {
                self.blocks.remove(&head.stream);
            }
            _ => {}
        }
    }

    /// Adds a frame that came from the server.
    pub(super) fn add(&mut self, head: Head) -> Result<(), Excess> {
        let is_end = matches!(head.kind, DATA | HEADERS) && head.flags & END_STREAM != 0;
        if is_end || head.kind == RST_STREAM {
            self.blocks.remove(&head.stream);
        } else if head.kind == HEADERS
            && let Some(blocks) = self.blocks.get_mut(&head.stream)
        {
            *blocks += 1;
            if *blocks > self.most_interim.saturating_add(1) {
                return Err(Excess::InterimAnswers);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u32 = 5;

    fn head(kind: u8, flags: u8, stream: u32) -> Head {
        Head { kind, flags, stream, length: 1 }
    }

    fn asked(streams: impl IntoIterator<Item = u32>) -> Answers {
        let mut answers = Answers::new(MOST);
        streams.into_iter().for_each(|stream| answers.note_sent(head(HEADERS, 0, stream)));
        answers
    }

    #[test]
    fn an_answer_may_be_preceded_by_a_few_and_by_no_more() {
        let mut answers = asked([1, 3]);
        for stream in [1, 3] {
            for _ in 0..=MOST {
                assert_eq!(answers.add(head(HEADERS, 0, stream)), Ok(()));
            }
        }
        assert_eq!(answers.add(head(HEADERS, 0, 1)), Err(Excess::InterimAnswers));
        // Trailers are the end of it.
        assert_eq!(answers.add(head(HEADERS, END_STREAM, 3)), Ok(()));
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        for end in [head(DATA, END_STREAM, 1), head(HEADERS, END_STREAM, 1), head(RST_STREAM, 0, 1)]
        {
            let mut answers = asked([1]);
            assert_eq!(answers.add(end), Ok(()), "{end:?}");
            // The rest of the request may be sent after its answer.
            answers.note_sent(head(HEADERS, END_STREAM, 1));
            assert!(answers.blocks.is_empty(), "{end:?}");
        }
        let mut answers = asked([1]);
        answers.note_sent(head(RST_STREAM, 0, 1));
        assert!(answers.blocks.is_empty());
    }
}
