//! HTTP/2 by hand (rows 33 to 40 and 52 of trust.md): the tunnels that the waypoint serves, and what
//! clients speak in them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::Resources;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{Hostile, raw};
use crate::{
    hbone::{
        excess::{ENHANCE_YOUR_CALM, End, floods, until_the_end},
        frames::{Case, check_outcomes, frames, states},
    },
    peer::{
        Ca, Credentials, Frame, HBONE, PREFACE, adopt, block_on, block_on_for, client_config,
        connect_head, dial, get_head, handshake, read_frame, write_frame,
    },
};

/// Time for floods.
const LONG: Duration = Duration::from_mins(1);

/// The first byte of a header block whose status is 200 (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

/// A client of the waypoint's own port.
struct Client<'a> {
    hostile: &'a Hostile,
    credentials: Credentials,
}

// === impl Client ===

impl<'a> Client<'a> {
    fn new(hostile: &'a Hostile) -> Result<Self> {
        let ca = Ca::of_proxies(&hostile.mesh.plane.ca_dir())?;
        Ok(Self { hostile, credentials: ca.workload(&hostile.mesh.a.identity())? })
    }

    /// Opens a tunnel that says no more than a client must.
    async fn tunnel(&self) -> Result<TlsStream<TcpStream>> {
        let waypoint = self.hostile.waypoint.pod();
        let socket = dial(&self.hostile.mesh.outsider, waypoint.v4(HBONE))?;
        let mut io = handshake(socket, client_config(Some(&self.credentials))?).await?;
        greet(&mut io).await?;
        Ok(io)
    }
}

/// Opens a connection for requests in a tunnel of the mesh's own.
async fn connect(hostile: &Hostile) -> Result<TcpStream> {
    let mut io = adopt(hostile.dial()?)?;
    greet(&mut io).await?;
    Ok(io)
}

async fn greet(io: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
    io.write_all(PREFACE).await?;
    write_frame(io, &Frame::no_settings()).await
}

/// Returns the frame that asks for a stream to the service.
fn open_tunnel() -> Frame {
    let block = connect_head(raw().to_string().as_bytes(), &[]);
    Frame::new(Frame::HEADERS, Frame::END_HEADERS, 1, block)
}

/// Returns the frame that asks for a page.
fn ask(headers: &[(&str, &[u8])]) -> Frame {
    let flags = Frame::END_HEADERS | Frame::END_STREAM;
    Frame::new(Frame::HEADERS, flags, 1, get_head(b"/", headers))
}

/// Returns the frame that begins a request with a body.
fn begin() -> Frame {
    Frame { flags: Frame::END_HEADERS, ..ask(&[]) }
}

pub(super) fn wrong_frames_end_what_they_concern_in_tunnels_of_the_waypoint(
    hostile: &Hostile,
) -> Result<()> {
    let client = Client::new(hostile)?;
    let open = open_tunnel();
    let cases: Vec<Case> = frames(&open).into_iter().chain(states(&open)).collect();
    check_outcomes(async || client.tunnel().await, &open, &cases)?;
    hostile.is_well()
}

pub(super) fn floods_end_their_own_connection_and_are_counted_and_others_go_on(
    hostile: &Hostile,
) -> Result<()> {
    let client = Client::new(hostile)?;
    let (mut tunnels, mut connections) = (0.0, 0.0);
    let proxy = hostile.bound.waypoint.pid();
    let before = Resources::of(proxy)?.resident_kib;
    for (what, flood) in floods(&open_tunnel()) {
        let end =
            block_on_for(LONG, async { Ok(until_the_end(client.tunnel().await?, &flood).await) });
        assert_eq!(end.context(what)?, End::GoAway(ENHANCE_YOUR_CALM), "{what}");
        tunnels += 1.0;
        hostile.is_well().with_context(|| format!("after {what}"))?;
    }
    for (what, flood) in floods(&begin()) {
        let end =
            block_on_for(LONG, async { Ok(until_the_end(connect(hostile).await?, &flood).await) });
        assert_eq!(end.context(what)?, End::GoAway(ENHANCE_YOUR_CALM), "{what}");
        connections += 1.0;
        hostile.is_well().with_context(|| format!("after {what}"))?;
    }
    hostile.wait_limit("tunnel_frames", tunnels - 0.5)?;
    hostile.wait_limit("request_frames", connections - 0.5)?;
    let grown = Resources::of(proxy)?.resident_kib.saturating_sub(before);
    ensure!(grown <= super::MOST_GROWN_KIB, "{grown} KiB");
    Ok(())
}

pub(super) fn requests_over_http2_that_are_none_are_not_written_in_http1(
    hostile: &Hostile,
) -> Result<()> {
    hostile.recorder.forget();
    let with = |name: &str, value: &[u8]| ask(&[(name, value)]).payload;
    let path = |path: &[u8]| get_head(path, &[]);
    let hidden = b"x\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n";
    for (what, block) in [
        ("transfer-encoding", with("transfer-encoding", b"chunked")),
        ("connection", with("connection", b"close")),
        ("upgrade", with("upgrade", b"websocket")),
        ("te", with("te", b"gzip")),
        ("content-length of no number", with("content-length", b"+1")),
        ("content-length of a body that is not there", with("content-length", b"5")),
        ("two content-lengths", ask(&[("content-length", b"0"), ("content-length", b"5")]).payload),
        ("a line break in a value", with("x", hidden)),
        ("a line break in a name", with("x\r\ny", b"z")),
        ("a zero in a value", with("x", b"a\0b")),
        ("a colon in a name", with("x: y\r\nz", b"a")),
        ("an upper-case name", with("X", b"y")),
        ("a line break in the path", path(b"/ HTTP/1.1\r\nx: y")),
        ("a space in the path", path(b"/a b")),
        ("no path", path(b"")),
        ("a path that is none", path(b"hidden")),
        ("a method with a space", [&[0x02, 5][..], b"GE /x", &ask(&[]).payload[1..]].concat()),
        ("two methods", [&[0x82][..], &ask(&[]).payload[..]].concat()),
        ("an unknown pseudo-header", with(":x", b"y")),
    ] {
        let answer = block_on(async {
            let mut io = connect(hostile).await?;
            let flags = Frame::END_HEADERS | Frame::END_STREAM;
            write_frame(&mut io, &Frame::new(Frame::HEADERS, flags, 1, block.clone())).await?;
            Ok(answer(&mut io).await)
        });
        let answer = answer.context(what)?;
        ensure!(answer != Answer::Accepted, "{what}");
    }
    assert_eq!(hostile.recorder.sent(), "");
    hostile.is_well()
}

pub(super) fn header_lists_over_http2_are_bounded_by_what_they_decode_to(
    hostile: &Hostile,
) -> Result<()> {
    /// Bytes of a value, fewer than the table of the decoder has.
    const VALUE: usize = 4_000;
    /// Streams at once.
    const STREAMS: u32 = 100;
    // One entry for the table, and references to it.
    let bomb = |references: usize| {
        let mut block = ask(&[]).payload;
        block.extend([0x40, 1, b'x', 0x7f]);
        let rest = VALUE - 0x7f;
        block.extend([0x80 | rest.to_le_bytes()[0] & 0x7f, (rest >> 7).to_le_bytes()[0]]);
        block.resize(block.len() + VALUE, b'y');
        block.resize(block.len() + references, 0xbe);
        block
    };
    let cookies = |count: usize| {
        // `cookie: a`, then references to it.
        let mut block = ask(&[]).payload;
        block.extend([0x60, 1, b'a']);
        block.resize(block.len() + count - 1, 0xbe);
        block
    };
    for (what, block, expected) in [
        ("some cookies", cookies(50), &[Answer::Accepted][..]),
        ("3,000 cookies", cookies(3_000), &[Answer::Refused]),
        ("10,000 cookies", cookies(10_000), &[Answer::Refused, Answer::Ended]),
        ("a few references", bomb(10), &[Answer::Accepted]),
        ("references to more than is accepted", bomb(50), &[Answer::Refused]),
        ("30,000 references", bomb(30_000), &[Answer::Refused, Answer::Ended]),
    ] {
        let answer = block_on(async {
            let mut io = connect(hostile).await?;
            for frame in whole(1, &block) {
                write_frame(&mut io, &frame).await?;
            }
            Ok(answer(&mut io).await)
        });
        let answer = answer.context(what)?;
        ensure!(expected.contains(&answer), "{what}: {answer:?}");
    }
    // Many that are only just too large, to a client that takes nothing.
    hostile.in_bounded_memory(|| {
        block_on_for(LONG, async {
            let mut io = connect(hostile).await?;
            let no_window = Frame::new(Frame::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]);
            write_frame(&mut io, &no_window).await?;
            let block = bomb(50);
            for n in 0..STREAMS {
                for frame in whole(2 * n + 1, &block) {
                    write_frame(&mut io, &frame).await?;
                }
            }
            for _ in 0..STREAMS {
                let answer = answer(&mut io).await;
                ensure!(answer == Answer::Refused, "{answer:?}");
            }
            Ok(())
        })
    })?;
    hostile.is_well()
}

/// Returns the frames of a request without a body.
fn whole(stream: u32, block: &[u8]) -> Vec<Frame> {
    let mut frames = Frame::headers(stream, block);
    if let Some(first) = frames.first_mut() {
        first.flags |= Frame::END_STREAM;
    }
    frames
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Accepted,
    /// With an answer that says so, or a reset.
    Refused,
    /// And the connection ended.
    Ended,
}

async fn answer(io: &mut (impl AsyncRead + Unpin)) -> Answer {
    while let Ok(frame) = read_frame(io).await {
        match (frame.kind, frame.payload.first()) {
            (Frame::HEADERS, Some(&STATUS_200)) => return Answer::Accepted,
            (Frame::HEADERS | Frame::RST_STREAM, _) => return Answer::Refused,
            (Frame::GOAWAY, _) => break,
            _ => {}
        }
    }
    Answer::Ended
}
