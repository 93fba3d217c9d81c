use std::time::Duration;

use proptest::{prelude::*, sample::select};

use super::*;

const SETTINGS: u8 = 0x4;
const UNKNOWN: u8 = 0xff;

const AT_ONCE: usize = CONTROL_FRAMES_AT_ONCE as usize;
const ABANDONED: u32 = ABANDONED_STREAMS_AT_ONCE;

/// A frame as it is sent, with a payload of this length.
pub(in crate::hbone::frames) fn frame(kind: u8, stream: u32, length: u32) -> Vec<u8> {
    let [_, head @ ..] = length.to_be_bytes();
    let mut bytes = [&head[..], &[kind, 0], &stream.to_be_bytes()].concat();
    bytes.resize(bytes.len() + length as usize, 0x06);
    bytes
}

fn head(kind: u8, stream: u32, length: usize) -> Head {
    Head { kind, flags: 0, stream, length }
}

fn add(costs: &mut Costs, heads: impl IntoIterator<Item = Head>) -> Result<(), Excess> {
    heads.into_iter().try_for_each(|head| costs.add(head))
}

fn client() -> Costs {
    Costs::of_client(Instant::now())
}

/// The number of a client's stream.
fn id(stream: u32) -> u32 {
    2 * stream + 1
}

#[tokio::test(start_paused = true)]
async fn frames_that_carry_nothing_are_counted() {
    for kind in [SETTINGS, PING, UNKNOWN, 0x2, 0x7, RST_STREAM, WINDOW_UPDATE] {
        let frames = |count| std::iter::repeat_n(head(kind, 1, 8), count);
        for mut costs in [client(), Costs::of_server(Instant::now())] {
            assert_eq!(add(&mut costs, frames(AT_ONCE)), Ok(()), "{kind}");
            assert_eq!(add(&mut costs, frames(1)), Err(Excess::ControlFrames), "{kind}");
        }
    }
    for kind in [DATA, HEADERS] {
        let frames = std::iter::repeat_n(head(kind, 1, 4), 4 * AT_ONCE);
        assert_eq!(add(&mut client(), frames), Ok(()), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn updates_are_explained_by_what_was_written_and_by_header_blocks() {
    let updates = |count| std::iter::repeat_n(head(WINDOW_UPDATE, 0, 4), count);
    let mut costs = client();
    // Two for the smallest frame with a byte.
    for _ in 0..AT_ONCE {
        costs.add_written(HEAD_BYTES + 1);
        assert_eq!(add(&mut costs, updates(2)), Ok(()));
    }
    assert_eq!(add(&mut costs, [head(HEADERS, 1, 10)]), Ok(()));
    assert_eq!(add(&mut costs, updates(2 + AT_ONCE)), Ok(()));
    assert_eq!(add(&mut costs, updates(1)), Err(Excess::ControlFrames));
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_reset_unused_are_counted() {
    let opened = |stream| head(HEADERS, id(stream), 10);
    let reset = |stream| head(RST_STREAM, id(stream), 4);
    let used = |stream| head(DATA, id(stream), 1);
    let empty = |stream| head(DATA, id(stream), 0);
    let all =
        |costs: &mut Costs, streams: std::ops::Range<u32>, frames: &dyn Fn(u32) -> Vec<Head>| {
            streams.into_iter().try_for_each(|stream| add(costs, frames(stream)))
        };
    let excess = Err(Excess::AbandonedStreams);
    for (what, frames) in [
        ("reset", &(|s| vec![opened(s), reset(s)]) as &dyn Fn(u32) -> Vec<Head>),
        ("with an empty frame", &|s| vec![opened(s), empty(s), reset(s)]),
        ("used too late", &|s| vec![opened(s), reset(s), used(s)]),
    ] {
        let mut costs = client();
        assert_eq!(all(&mut costs, 0..ABANDONED, frames), Ok(()), "{what}");
        assert_eq!(add(&mut costs, frames(ABANDONED)), excess, "{what}");
    }
    for (what, frames) in [
        ("used", &(|s| vec![opened(s), used(s), reset(s)]) as &dyn Fn(u32) -> Vec<Head>),
        ("ended", &|s| vec![opened(s), empty(s)]),
        ("every other one used", &|s| match s % 2 {
            0 => vec![opened(s), used(s)],
            _ => vec![opened(s), reset(s)],
        }),
        ("more than may be open", &|s| vec![opened(s), reset(s.saturating_sub(Unused::STREAMS))]),
    ] {
        assert_eq!(all(&mut client(), 0..10 * ABANDONED, frames), Ok(()), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_this_end_refuses_may_be_reset() {
    let refusals = [Head { flags: END_STREAM, ..head(HEADERS, 0, 10) }, head(RST_STREAM, 0, 4)];
    let goes_on = [
        head(HEADERS, 0, 10),
        head(DATA, 0, 5),
        // The application leaves; it was connected to.
        Head { flags: END_STREAM, ..head(DATA, 0, 0) },
    ];
    let refused = |sent: Head| {
        let mut costs = client();
        (0..=ABANDONED).map(id).try_for_each(|stream| {
            costs.add(head(HEADERS, stream, 10))?;
            costs.note_sent(Head { stream, ..sent });
            costs.add(head(RST_STREAM, stream, 4))
        })
    };
    for sent in refusals {
        assert_eq!(refused(sent), Ok(()), "{sent:?}");
    }
    for sent in goes_on {
        assert_eq!(refused(sent), Err(Excess::AbandonedStreams), "{sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_answered_have_been_put_to_use() {
    let exchange = |costs: &mut Costs, stream: u32, is_answered: bool| {
        costs.add(head(HEADERS, id(stream), 10))?;
        if is_answered {
            costs.note_sent(head(HEADERS, id(stream), 10));
        }
        costs.add(head(RST_STREAM, id(stream), 4))
    };
    let all = |is_answered: fn(u32) -> bool| {
        let mut costs = Costs::of_requests(Instant::now());
        (0..10 * ABANDONED).try_for_each(|stream| exchange(&mut costs, stream, is_answered(stream)))
    };
    assert_eq!(all(|_| true), Ok(()));
    assert_eq!(all(|stream| stream % 2 == 0), Ok(()));
    assert_eq!(all(|_| false), Err(Excess::AbandonedStreams));
}

#[tokio::test(start_paused = true)]
async fn pings_of_clients_that_are_sent_something_are_explained_and_do_not_explain_each_other() {
    let ping = head(PING, 0, 8);
    let mut costs = Costs::of_requests(Instant::now());
    for _ in 0..10 * AT_ONCE {
        costs.add_written(HEAD_BYTES + 1);
        assert_eq!(add(&mut costs, [ping]), Ok(()));
    }
    let mut costs = Costs::of_requests(Instant::now());
    let answered = |costs: &mut Costs| {
        costs.add(ping)?;
        costs.add_written(HEAD_BYTES + 8);
        costs.note_sent(ping);
        Ok(())
    };
    assert_eq!((0..AT_ONCE).try_for_each(|_| answered(&mut costs)), Ok(()));
    assert_eq!(answered(&mut costs), Err(Excess::ControlFrames));
}

#[tokio::test(start_paused = true)]
async fn a_header_block_is_as_long_as_all_its_frames() {
    const PART: usize = 16 << 10;
    let parts = MAX_HEADER_BLOCK_BYTES / PART;
    for (kind, continuations, expected) in [
        (HEADERS, parts - 1, Ok(())),
        (HEADERS, parts, Err(Excess::HeaderBlock)),
        (PUSH_PROMISE, parts, Err(Excess::HeaderBlock)),
    ] {
        let block = || {
            let more = std::iter::repeat_n(head(CONTINUATION, 1, PART), continuations);
            std::iter::once(head(kind, 1, PART)).chain(more)
        };
        // The next one begins anew.
        assert_eq!(add(&mut client(), block().chain(block())), expected, "{continuations}");
    }
    let huge = head(HEADERS, 1, MAX_HEADER_BLOCK_BYTES + 1);
    assert_eq!(add(&mut client(), [huge]), Err(Excess::HeaderBlock));
}

#[test]
fn an_allowance_grows_with_time_up_to_what_it_was() {
    let start = Instant::now();
    let mut bucket = Bucket::new(CONTROL_FRAMES_AT_ONCE, CONTROL_FRAMES_PER_SECOND, start);
    let mut taken = |now| {
        let mut count = 0;
        while bucket.take(now) {
            count += 1;
        }
        count
    };
    for (millis, expected) in [
        (0, CONTROL_FRAMES_AT_ONCE),
        (0, 0),
        (1_000, CONTROL_FRAMES_PER_SECOND),
        (1_005, 0),
        (1_010, CONTROL_FRAMES_PER_SECOND / 100),
        (3_600_000, CONTROL_FRAMES_AT_ONCE),
    ] {
        assert_eq!(taken(start + Duration::from_millis(millis)), expected, "{millis}");
    }
}

/// What happens to the streams of an honest client.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// It opens one, and widens its window at once.
    Open,
    /// It sends bytes.
    Send,
    /// The server sends a byte, and the client answers with updates of both windows.
    Receive,
    /// It ends one that it has used, and resets it, as some do with those that have ended.
    End,
    /// The server refuses one, and the client resets it.
    Refused,
}

proptest! {
    /// However many streams a client has and however short they are: not in the long run, in which
    /// the allowances would be gone.
    #[test]
    fn an_honest_client_needs_no_allowance(
        events in prop::collection::vec(
            select(vec![Event::Open, Event::Send, Event::Receive, Event::End, Event::Refused]),
            1..400,
        ),
    ) {
        let mut costs = client();
        costs.control_frames = Bucket::new(0, 0, Instant::now());
        if let Some(streams) = &mut costs.streams {
            streams.abandoned = Bucket::new(0, 0, Instant::now());
        }
        let (mut last, mut open) = (0, Vec::new());
        for event in events {
            let stream = open.first().copied().unwrap_or_default();
            let frames = match event {
                Event::Open => {
                    last += 1;
                    open.push(id(last));
                    vec![head(HEADERS, id(last), 30), head(WINDOW_UPDATE, id(last), 4)]
                }
                _ if open.is_empty() => continue,
                Event::Send => vec![head(DATA, stream, 10)],
                Event::Receive => {
                    costs.add_written(HEAD_BYTES + 1);
                    vec![head(WINDOW_UPDATE, stream, 4), head(WINDOW_UPDATE, 0, 4)]
                }
                Event::End => vec![head(DATA, open.remove(0), 1), head(RST_STREAM, stream, 4)],
                Event::Refused => {
                    let sent = Head { flags: END_STREAM, ..head(HEADERS, open.remove(0), 1) };
                    costs.add_written(HEAD_BYTES + 1);
                    costs.note_sent(sent);
                    vec![head(RST_STREAM, stream, 4)]
                }
            };
            prop_assert_eq!(add(&mut costs, frames), Ok(()));
        }
    }
}
