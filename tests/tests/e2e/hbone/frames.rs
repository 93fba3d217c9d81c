//! What the server makes of frames that no client should send (RFC 9113, sections 3 to 8).

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::peer::{
    App, Frame, Listener, PREFACE, Scene, Task, block_on, connect_head, read_frame, write_frame,
};

/// Where the application listens.
const APP: u16 = 7000;

/// The stream that shows whether the tunnel still works.
const LAST: u32 = 1001;

/// What is asked for once that stream is answered.
const LAST_WORD: [u8; 8] = *b"the last";

/// Streams that a peer may open at once.
const MOST_STREAMS: u32 = 200;

/// The first byte of a header block whose status is 200 (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

/// Codes of errors (RFC 9113, section 7).
const NO_ERROR: u32 = 0x0;
const PROTOCOL_ERROR: u32 = 0x1;
const FLOW_CONTROL_ERROR: u32 = 0x3;
const STREAM_CLOSED: u32 = 0x5;
const FRAME_SIZE_ERROR: u32 = 0x6;
const REFUSED_STREAM: u32 = 0x7;

/// What frames lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The end of the tunnel, for which this code is given.
    Connection(u32),
    /// The end of a stream with this code; the tunnel goes on.
    Stream(u32),
    /// The tunnel goes on.
    Ignored,
}

use Outcome::{Connection, Ignored, Stream};

/// What is wrong, the frames, and what they lead to.
type Case = (&'static str, Vec<Frame>, Outcome);

#[test]
fn frames_of_the_wrong_kind_or_size_end_what_they_concern() -> Result<()> {
    let scene = Scene::new("frames")?;
    let _app = App::listen(&scene.pod, APP)?;
    check_frames(&scene.listener(APP)?)
}

#[test]
fn frames_in_the_wrong_state_end_what_they_concern() -> Result<()> {
    let scene = Scene::new("states")?;
    let _app = App::listen(&scene.pod, APP)?;
    check_states(&scene.listener(APP)?)
}

#[test]
fn malformed_requests_are_not_served() -> Result<()> {
    let scene = Scene::new("malformed")?;
    let _app = App::listen(&scene.pod, APP)?;
    check_requests(&scene.listener(APP)?)
}

#[test]
fn what_is_not_http2_is_not_served() -> Result<()> {
    let scene = Scene::new("preface")?;
    let app = App::listen(&scene.pod, APP)?;
    check_prefaces(&scene.listener(APP)?)?;
    assert!(app.is_untouched());
    Ok(())
}

#[test]
fn more_streams_than_were_allowed_are_refused_and_the_others_go_on() -> Result<()> {
    let scene = Scene::new("toomany")?;
    let app = App::listen(&scene.pod, APP)?;
    let _accepting = Task::spawn(async move {
        let mut sockets = Vec::new();
        while let Ok(accepted) = app.accept().await {
            sockets.push(accepted);
        }
    });
    check_stream_limit(&scene.listener(APP)?)
}

/// Checks what becomes of frames of the wrong kind or size. The target must listen.
pub(crate) fn check_frames(listener: &Listener) -> Result<()> {
    assert_outcomes(listener, &frames(&listener.open(1)))
}

/// Checks what becomes of frames in the wrong state. The target must listen.
pub(crate) fn check_states(listener: &Listener) -> Result<()> {
    assert_outcomes(listener, &states(&listener.open(1)))
}

/// Checks what becomes of malformed requests. The target must listen.
pub(crate) fn check_requests(listener: &Listener) -> Result<()> {
    let cases = requests(listener).into_iter().map(|(what, block, outcome)| {
        (what, vec![Frame::new(Frame::HEADERS, Frame::END_HEADERS, 1, block)], outcome)
    });
    assert_outcomes(listener, &cases.collect::<Vec<_>>())
}

/// Checks what becomes of what is not HTTP/2.
pub(crate) fn check_prefaces(listener: &Listener) -> Result<()> {
    let mut spoilt = PREFACE.to_vec();
    spoilt[20] ^= 1;
    let head_only = [PREFACE, &[0xff, 0xff, 0xff, Frame::DATA, 0, 0, 0, 0, 1]].concat();
    for bytes in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], &spoilt, &head_only] {
        block_on(async {
            let mut io = listener.silent_tunnel().await?;
            io.write_all(bytes).await?;
            while let Ok(frame) = read_frame(&mut io).await {
                ensure!(frame.kind != Frame::HEADERS, "{frame:?}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Checks that a tunnel has as many streams as it may, and that the next one is refused. The target
/// must accept as many.
pub(crate) fn check_stream_limit(listener: &Listener) -> Result<()> {
    block_on(async {
        let mut io = listener.bare_tunnel().await?;
        for n in 0..=MOST_STREAMS {
            write_frame(&mut io, &listener.open(2 * n + 1)).await?;
        }
        let (mut accepted, mut refused) = (0, Vec::new());
        while accepted < MOST_STREAMS {
            let frame = read_frame(&mut io).await?;
            match frame.kind {
                Frame::HEADERS => {
                    assert_eq!(frame.payload.first(), Some(&STATUS_200));
                    accepted += 1;
                }
                Frame::RST_STREAM => refused.push((frame.stream, frame.number())),
                _ => {}
            }
        }
        assert_eq!(refused, [(2 * MOST_STREAMS + 1, Some(REFUSED_STREAM))]);
        Ok(())
    })
}

/// Frames that are wrong wherever they are.
fn frames(open: &Frame) -> Vec<Case> {
    let mut cases = all(Connection(PROTOCOL_ERROR), malformed(open));
    cases.extend(all(Connection(PROTOCOL_ERROR), settings()));
    let one = |kind, flags, stream, payload: &[u8]| vec![Frame::new(kind, flags, stream, payload)];
    let then = |kind, payload: &[u8]| vec![open.clone(), Frame::new(kind, 0, 1, payload)];
    let on_itself = [&[0, 0, 0, 1, 0][..], &open.payload].concat();
    let with_priority = Frame::HAS_PRIORITY | Frame::END_HEADERS;
    let widest = [0x7f, 0xff, 0xff, 0xff];
    cases.extend([
        ("unknown type", one(0xff, 0xff, 7, b"what"), Ignored),
        ("unknown flags", one(Frame::PING, 0x16, 0, &[0; 8]), Ignored),
        ("unknown setting", one(Frame::SETTINGS, 0, 0, &[0, 0xff, 1, 2, 3, 4]), Ignored),
        ("reserved bit", one(Frame::WINDOW_UPDATE, 0, 0, &[0x80, 0, 0, 1]), Ignored),
        ("an answer to no PING", one(Frame::PING, Frame::ACK, 0, &[0; 8]), Ignored),
        (
            "HEADERS that depend on themselves",
            one(Frame::HEADERS, with_priority, 1, &on_itself),
            Stream(PROTOCOL_ERROR),
        ),
        ("PRIORITY on itself", then(Frame::PRIORITY, &[0, 0, 0, 1, 0]), Stream(PROTOCOL_ERROR)),
        (
            "a window past 2^31 - 1",
            one(Frame::WINDOW_UPDATE, 0, 0, &widest),
            Connection(FLOW_CONTROL_ERROR),
        ),
        (
            "a window of a stream past 2^31 - 1",
            then(Frame::WINDOW_UPDATE, &widest),
            Stream(FLOW_CONTROL_ERROR),
        ),
        (
            "a frame past the limit",
            then(Frame::DATA, &vec![0; (1 << 20) + 1]),
            Connection(FRAME_SIZE_ERROR),
        ),
    ]);
    cases
}

/// The library gives `PROTOCOL_ERROR` for most frames of the wrong size, where the specification
/// names `FRAME_SIZE_ERROR`; the tunnel ends either way.
fn malformed(open: &Frame) -> Vec<(&'static str, Vec<Frame>)> {
    let one = |kind, stream, payload: &[u8]| vec![Frame::new(kind, 0, stream, payload)];
    let then = |kind, payload: &[u8]| vec![open.clone(), Frame::new(kind, 0, 1, payload)];
    let padded = |kind| Frame::new(kind, Frame::PADDED | Frame::END_HEADERS, 1, [9, 0, 0]);
    let push = [&[0, 0, 0, 2][..], &open.payload].concat();
    vec![
        ("DATA of the tunnel", one(Frame::DATA, 0, b"x")),
        ("DATA of padding", vec![open.clone(), padded(Frame::DATA)]),
        ("HEADERS of the tunnel", vec![Frame { stream: 0, ..open.clone() }]),
        ("HEADERS of padding", vec![padded(Frame::HEADERS)]),
        ("PRIORITY of the tunnel", one(Frame::PRIORITY, 0, &[0, 0, 0, 3, 0])),
        ("PRIORITY of 4 bytes", then(Frame::PRIORITY, &[0; 4])),
        ("RST_STREAM of the tunnel", one(Frame::RST_STREAM, 0, &[0; 4])),
        ("RST_STREAM of 3 bytes", then(Frame::RST_STREAM, &[0; 3])),
        ("PUSH_PROMISE of a client", then(Frame::PUSH_PROMISE, &push)),
        ("PING of a stream", one(Frame::PING, 1, &[0; 8])),
        ("PING of 7 bytes", one(Frame::PING, 0, &[0; 7])),
        ("GOAWAY of a stream", one(Frame::GOAWAY, 1, &[0; 8])),
        ("GOAWAY of 7 bytes", one(Frame::GOAWAY, 0, &[0; 7])),
        ("WINDOW_UPDATE of 0", one(Frame::WINDOW_UPDATE, 0, &[0; 4])),
        ("WINDOW_UPDATE of 0 for a stream", then(Frame::WINDOW_UPDATE, &[0; 4])),
        ("WINDOW_UPDATE of 3 bytes", one(Frame::WINDOW_UPDATE, 0, &[1; 3])),
    ]
}

fn settings() -> Vec<(&'static str, Vec<Frame>)> {
    let set = |id: u8, value: [u8; 4]| {
        vec![Frame::new(Frame::SETTINGS, 0, 0, [&[0, id][..], &value].concat())]
    };
    let more = Frame::new(Frame::SETTINGS, Frame::ACK, 0, [0; 6]);
    vec![
        ("SETTINGS of a stream", vec![Frame { stream: 1, ..Frame::no_settings() }]),
        ("SETTINGS of 5 bytes", vec![Frame::new(Frame::SETTINGS, 0, 0, [0; 5])]),
        ("SETTINGS acknowledged with more", vec![more]),
        ("ENABLE_PUSH 2", set(2, [0, 0, 0, 2])),
        ("INITIAL_WINDOW_SIZE of 2^31", set(4, [0x80, 0, 0, 0])),
        ("MAX_FRAME_SIZE of 2^14 - 1", set(5, [0, 0, 0x3f, 0xff])),
        ("MAX_FRAME_SIZE of 2^24", set(5, [1, 0, 0, 0])),
    ]
}

/// Frames that are right elsewhere. The library ends the tunnel also where the specification ends
/// only the stream with `STREAM_CLOSED`; any endpoint may (section 5.4.2).
fn states(open: &Frame) -> Vec<Case> {
    let ended = || Frame { flags: Frame::END_HEADERS | Frame::END_STREAM, ..open.clone() };
    let cancel = || Frame::new(Frame::RST_STREAM, 0, 1, [0, 0, 0, 8]);
    let data = || Frame::new(Frame::DATA, 0, 1, *b"x");
    let wider = || Frame::new(Frame::WINDOW_UPDATE, 0, 1, [0, 0, 0, 1]);
    let trailers = |flags| Frame::new(Frame::HEADERS, flags, 1, *b"\x00\x01x\x01y");
    let end = Frame::END_HEADERS | Frame::END_STREAM;
    let mut cases = all(Connection(PROTOCOL_ERROR), blocks(open));
    cases.extend(all(
        Connection(PROTOCOL_ERROR),
        vec![
            ("DATA before its stream", vec![data()]),
            ("RST_STREAM before its stream", vec![cancel()]),
            ("WINDOW_UPDATE before its stream", vec![wider()]),
            ("a stream of the server's", vec![Frame { stream: 2, ..open.clone() }]),
            ("a stream of the past", vec![Frame { stream: 5, ..open.clone() }, open.clone()]),
            ("DATA after the end", vec![ended(), data()]),
            ("HEADERS after the end", vec![ended(), trailers(end)]),
            ("HEADERS after a reset", vec![open.clone(), cancel(), trailers(end)]),
        ],
    ));
    let priority = Frame::new(Frame::PRIORITY, 0, 1, [0, 0, 0, 3, 0]);
    cases.extend([
        ("PRIORITY before its stream", vec![priority], Ignored),
        ("WINDOW_UPDATE after the end", vec![ended(), wider()], Ignored),
        ("a reset twice", vec![open.clone(), cancel(), cancel()], Ignored),
        ("trailers", vec![open.clone(), trailers(end)], Ignored),
        ("DATA after a reset", vec![open.clone(), cancel(), data()], Stream(STREAM_CLOSED)),
        (
            "trailers that are not the end",
            vec![open.clone(), trailers(Frame::END_HEADERS)],
            Stream(PROTOCOL_ERROR),
        ),
    ]);
    cases
}

/// Header blocks that cannot be put together, or not decoded.
fn blocks(open: &Frame) -> Vec<(&'static str, Vec<Frame>)> {
    let (block, other_part) = open.payload.split_at(5);
    let begun = || Frame::new(Frame::HEADERS, 0, 1, block);
    let more = |stream| Frame::new(Frame::CONTINUATION, Frame::END_HEADERS, stream, other_part);
    let ping = Frame::new(Frame::PING, 0, 0, [0; 8]);
    let unknown = Frame::new(0xff, 0, 1, *b"x");
    let another = Frame { stream: 3, ..open.clone() };
    let whole = |block: &[u8]| vec![Frame::new(Frame::HEADERS, Frame::END_HEADERS, 1, block)];
    vec![
        ("a block that another frame breaks", vec![begun(), ping, more(1)]),
        ("a block that an unknown frame breaks", vec![begun(), unknown, more(1)]),
        ("a block that another one breaks", vec![begun(), another, more(1)]),
        ("a block that goes on elsewhere", vec![begun(), more(3)]),
        ("CONTINUATION of nothing", vec![more(1)]),
        ("CONTINUATION of a whole block", vec![open.clone(), more(1)]),
        ("an index that does not exist", whole(&[0xff, 0xff, 0x7f])),
        ("a table larger than allowed", whole(&[0x3f, 0xe1, 0xff, 0x7f])),
    ]
}

fn all(outcome: Outcome, cases: Vec<(&'static str, Vec<Frame>)>) -> Vec<Case> {
    cases.into_iter().map(|(what, frames)| (what, frames, outcome)).collect()
}

/// Header blocks of requests. What can be decoded but is no request is answered, then reset without
/// an error; what the library cannot decode ends the tunnel.
fn requests(listener: &Listener) -> Vec<(&'static str, Vec<u8>, Outcome)> {
    let with = |name: &str, value: &[u8]| listener.open_with(1, &[(name, value)]).payload;
    let then = |indexed: u8| [&listener.open(1).payload[..], &[indexed]].concat();
    let connect = connect_head(listener.target().to_string().as_bytes(), &[]);
    // The method, then the authority.
    let (method, authority) = connect.split_at(9);
    vec![
        ("no authority", method.to_vec(), Stream(NO_ERROR)),
        ("no method", authority.to_vec(), Stream(PROTOCOL_ERROR)),
        ("a path", then(0x84), Stream(PROTOCOL_ERROR)),
        ("a scheme", then(0x87), Stream(PROTOCOL_ERROR)),
        ("a status", then(STATUS_200), Stream(PROTOCOL_ERROR)),
        ("two authorities", [&connect[..], authority].concat(), Stream(PROTOCOL_ERROR)),
        ("two methods", [method, &connect[..]].concat(), Stream(PROTOCOL_ERROR)),
        ("a protocol", with(":protocol", b"websocket"), Stream(PROTOCOL_ERROR)),
        ("an unknown pseudo-header", with(":x", b"y"), Connection(PROTOCOL_ERROR)),
        (
            "a late authority",
            [method, b"\x00\x01x\x01y", authority].concat(),
            Stream(PROTOCOL_ERROR),
        ),
        ("upper case", with("X", b"y"), Connection(PROTOCOL_ERROR)),
        ("a space in a name", with("x ", b"y"), Connection(PROTOCOL_ERROR)),
        ("no name", with("", b"y"), Connection(PROTOCOL_ERROR)),
        ("a line break in a value", with("x", b"y\r\nz: 1"), Connection(PROTOCOL_ERROR)),
        ("connection", with("connection", b"close"), Stream(PROTOCOL_ERROR)),
        ("transfer-encoding", with("transfer-encoding", b"chunked"), Stream(PROTOCOL_ERROR)),
        ("te", with("te", b"gzip"), Stream(PROTOCOL_ERROR)),
        ("te: trailers", with("te", b"trailers"), Ignored),
        ("content-length of no number", with("content-length", b"+1"), Stream(PROTOCOL_ERROR)),
    ]
}

/// Checks what each of the cases leads to, on a tunnel of its own.
fn assert_outcomes(listener: &Listener, cases: &[Case]) -> Result<()> {
    let last = listener.open(LAST);
    let mut wrong = Vec::new();
    for (what, frames, expected) in cases {
        let outcome = block_on(async {
            let (mut receive, mut send) = tokio::io::split(listener.bare_tunnel().await?);
            for frame in frames.iter().chain([&last]) {
                // What ended the tunnel may have come before.
                let _ = write_frame(&mut send, frame).await;
            }
            outcome(&mut receive, &mut send).await
        });
        let outcome = outcome.with_context(|| *what)?;
        if outcome != *expected {
            wrong.push(format!("{what}: {outcome:?} in place of {expected:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

async fn outcome(
    receive: &mut (impl AsyncRead + Unpin),
    send: &mut (impl AsyncWrite + Unpin),
) -> Result<Outcome> {
    let mut outcome = Ignored;
    loop {
        let frame = read_frame(receive).await?;
        match (frame.kind, frame.payload.as_slice()) {
            (Frame::GOAWAY, [_, _, _, _, code @ ..]) => {
                let code = code.first_chunk().context("a short GOAWAY")?;
                return Ok(Connection(u32::from_be_bytes(*code)));
            }
            (Frame::RST_STREAM, _) => {
                outcome = Stream(frame.number().context("a short RST_STREAM")?);
            }
            (Frame::HEADERS, [status, ..]) if frame.stream == LAST => {
                ensure!(*status == STATUS_200, "the tunnel serves no more");
                // A reset before it may go out after it.
                write_frame(send, &Frame::new(Frame::PING, 0, 0, LAST_WORD)).await?;
            }
            (Frame::PING, payload) if payload == LAST_WORD => return Ok(outcome),
            _ => {}
        }
    }
}
