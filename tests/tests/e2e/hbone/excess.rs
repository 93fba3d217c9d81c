//! Clients that overdo it, and what that costs the others.

use std::{io::ErrorKind, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use fairlead_lab::{Half, Resources, wait_for};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::peer::{
    App, Frame, Listener, Scene, Stream, Task, block_on, block_on_for, read_frame, write_frame,
};

/// Where the application listens.
const APP: u16 = 7000;

const SOON: Duration = Duration::from_secs(5);

/// Time for floods.
const LONG: Duration = Duration::from_mins(1);

/// Control frames that a client may send at once.
const CONTROL_FRAMES: usize = 1_000;

/// Streams whose resets a client may provoke.
const PROVOKED: usize = 1_024;

/// Largest header list, in bytes.
const HEADER_LIST: usize = 64 << 10;

/// Code with which the server ends tunnels of clients that overdo it.
const ENHANCE_YOUR_CALM: u32 = 0xb;

const FLOW_CONTROL_ERROR: u32 = 0x3;

/// The first byte of a header block whose status is 200 (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

/// A window update past what a window may be: the server resets the stream.
const TOO_MUCH: [u8; 4] = [0x7f, 0xff, 0xff, 0xff];

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With this code.
    GoAway(u32),
    /// Without a word.
    Closed,
}

#[test]
fn floods_end_their_own_tunnel_and_are_counted() -> Result<()> {
    let scene = Scene::new("floods")?;
    let app = App::listen(&scene.pod, APP)?;
    let (_bystander, mut stream, mut socket) = block_on(async {
        let tunnel = scene.tunnel().await?;
        let stream = tunnel.connect(scene.pod.v4(APP)).await?;
        Ok((tunnel, stream, app.accept().await?.0))
    })?;
    let others = || block_on(round_trip(&mut stream, &mut socket));
    let floods = check_floods(&scene.listener(APP)?, others)?;
    let counted = || Ok(limit_reached(&scene, "tunnel_frames")? >= floods);
    wait_for("all are counted", SOON, || counted().map(|all| all.then_some(())))
}

/// Checks that each of the floods ends the tunnel that it comes by, and that `others` go on after it.
/// Returns how many there were.
pub(crate) fn check_floods(
    listener: &Listener,
    others: impl FnMut() -> Result<()>,
) -> Result<usize> {
    check_floods_of(&listener.open(1), async || listener.bare_tunnel().await, others)
}

/// Does so for floods of connections that `connect` makes, over which `open` asks for something.
pub(crate) fn check_floods_of<S: AsyncRead + AsyncWrite>(
    open: &Frame,
    connect: impl AsyncFn() -> Result<S>,
    mut others: impl FnMut() -> Result<()>,
) -> Result<usize> {
    let floods = floods(open);
    for (what, flood) in &floods {
        let flood = async { Ok(until_the_end(connect().await?, flood).await) };
        let end = block_on_for(LONG, flood).context(*what)?;
        assert_eq!(end, End::GoAway(ENHANCE_YOUR_CALM), "{what}");
        others().with_context(|| format!("after {what}"))?;
    }
    Ok(floods.len())
}

/// What is sent after the client's settings.
fn floods(open: &Frame) -> Vec<(&'static str, Vec<u8>)> {
    let repeat = |frames: &[Frame], count: usize| {
        frames.iter().map(Frame::to_bytes).collect::<Vec<_>>().concat().repeat(count)
    };
    let opened = |rest: Vec<u8>| [open.to_bytes(), rest].concat();
    let settings = Frame::new(Frame::SETTINGS, 0, 0, [0, 4, 0, 1, 0, 0]);
    let update = |stream| Frame::new(Frame::WINDOW_UPDATE, 0, stream, [0, 0, 0, 1]);
    let reset = Frame::new(Frame::RST_STREAM, 0, 1, [0, 0, 0, 8]);
    let begun = Frame { flags: 0, ..open.clone() };
    // A string whose length is announced, and that never ends.
    let endless = Frame { payload: vec![0x00, 0x7f, 0xff, 0xff, 0xff, 0x7f], ..begun.clone() };
    let part = |size| Frame::new(Frame::CONTINUATION, 0, 1, vec![b'x'; size]);
    let with_part = |first: &Frame, size, count| [first.to_bytes(), repeat(&[part(size)], count)];
    let pairs = (0..10_000).flat_map(|n| {
        let reset = Frame::new(Frame::RST_STREAM, 0, 2 * n + 1, [0, 0, 0, 8]);
        [Frame { stream: 2 * n + 1, ..open.clone() }, reset].map(|frame| frame.to_bytes())
    });
    vec![
        ("PING", repeat(&[Frame::new(Frame::PING, 0, 0, [0; 8])], 2 * CONTROL_FRAMES)),
        ("SETTINGS", repeat(&[settings], 2 * CONTROL_FRAMES)),
        (
            "PRIORITY",
            repeat(&[Frame::new(Frame::PRIORITY, 0, 1, [0, 0, 0, 3, 0])], 2 * CONTROL_FRAMES),
        ),
        ("WINDOW_UPDATE of the tunnel", repeat(&[update(0)], 2 * CONTROL_FRAMES)),
        ("WINDOW_UPDATE of a stream", opened(repeat(&[update(1)], 2 * CONTROL_FRAMES))),
        (
            "WINDOW_UPDATE of a stream that was reset",
            opened([reset.to_bytes(), repeat(&[update(1)], 2 * CONTROL_FRAMES)].concat()),
        ),
        ("RST_STREAM of one stream", opened(repeat(&[reset], 2 * CONTROL_FRAMES))),
        ("frames of an unknown type", repeat(&[Frame::new(0xfe, 0, 0, [])], 2 * CONTROL_FRAMES)),
        ("empty DATA", opened(repeat(&[Frame::new(Frame::DATA, 0, 1, [])], CONTROL_FRAMES))),
        ("empty CONTINUATION", with_part(&begun, 0, CONTROL_FRAMES).concat()),
        ("10 MB of CONTINUATION", with_part(&endless, 16 << 10, 640).concat()),
        ("10 MB of CONTINUATION in large frames", with_part(&endless, 1 << 20, 10).concat()),
        ("requests that are reset at once", pairs.collect::<Vec<_>>().concat()),
    ]
}

#[test]
fn resets_that_a_client_provokes_end_what_was_asked_for_and_are_counted() -> Result<()> {
    let scene = Scene::new("provoked")?;
    let app = App::listen(&scene.pod, APP)?;
    check_provoked_resets(&scene.listener(APP)?, &app)
}

/// Checks that a client which has the server reset its streams loses what it asked `app` for, and then
/// the tunnel.
pub(crate) fn check_provoked_resets(listener: &Listener, app: &App) -> Result<()> {
    block_on_for(LONG, async {
        let mut io = listener.bare_tunnel().await?;
        for id in [1, 3, 5, 7, 9] {
            write_frame(&mut io, &listener.open(id)).await?;
            let (mut socket, _) = app.accept().await?;
            write_frame(&mut io, &Frame::new(Frame::WINDOW_UPDATE, 0, id, TOO_MUCH)).await?;
            // The application has no more of them than the tunnel.
            let end = socket.read_u8().await.map_err(|error| error.kind());
            assert_eq!(end, Err(ErrorKind::ConnectionReset));
            assert_eq!(next_reset(&mut io).await?, (id, FLOW_CONTROL_ERROR));
        }
        let ids = (5..).map(|n| 2 * n + 1).take(2 * PROVOKED);
        let flood = ids.flat_map(|id| {
            let provoke = Frame::new(Frame::WINDOW_UPDATE, 0, id, TOO_MUCH);
            [listener.open(id), provoke].map(|frame| frame.to_bytes())
        });
        let end = until_the_end(io, &flood.collect::<Vec<_>>().concat()).await;
        assert_eq!(end, End::GoAway(ENHANCE_YOUR_CALM));
        Ok(())
    })
}

#[test]
fn header_lists_are_bounded_by_what_they_decode_to() -> Result<()> {
    let scene = Scene::new("bomb")?;
    let app = App::listen(&scene.pod, APP)?;
    check_header_lists(&scene.listener(APP)?, scene.proxy.pid_of(Half::Proxy)?)?;
    // Those that were accepted.
    block_on(async { app.accept().await.map(drop) })
}

/// Checks that header lists are bounded by what they decode to, and what they cost the server, which
/// is the process `proxy`. The target must listen.
pub(crate) fn check_header_lists(listener: &Listener, proxy: Pid) -> Result<()> {
    /// Streams at once.
    const STREAMS: u32 = 100;
    /// Fewer bytes than the table of the decoder has.
    const VALUE: usize = 4_000;
    // One entry for the table, and references to it.
    let bomb = |value: usize, references: usize| {
        let mut block = listener.open(1).payload;
        block.extend([0x40, 1, b'x', 0x7f]);
        let rest = value - 0x7f;
        block.extend([0x80 | rest.to_le_bytes()[0] & 0x7f, (rest >> 7).to_le_bytes()[0]]);
        block.resize(block.len() + value, b'y');
        block.resize(block.len() + references, 0xbe);
        block
    };
    let cookies = |count: usize| {
        // `cookie: a`, then references to it.
        let mut block = listener.open(1).payload;
        block.extend([0x60, 1, b'a']);
        block.resize(block.len() + count - 1, 0xbe);
        block
    };
    block_on_for(LONG, async {
        for (block, expected) in [
            (cookies(1_000), Answer::Accepted),
            (cookies(10_000), Answer::TunnelEnds),
            (cookies(3_000), Answer::TooLarge),
            (bomb(VALUE, 10), Answer::Accepted),
            (bomb(VALUE, 3 * HEADER_LIST / VALUE), Answer::TooLarge),
            (bomb(VALUE, 30_000), Answer::TunnelEnds),
        ] {
            let mut io = listener.bare_tunnel().await?;
            for frame in Frame::headers(1, &block) {
                // The server need not read all of it.
                let _ = write_frame(&mut io, &frame).await;
            }
            assert_eq!(next_answer(&mut io).await, expected, "{} bytes", block.len());
        }
        // Many that are only just too large, to a client that takes nothing.
        let before = Resources::of(proxy)?.resident_kib;
        let mut io = listener.bare_tunnel().await?;
        write_frame(&mut io, &Frame::new(Frame::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0])).await?;
        let block = bomb(VALUE, 3 * HEADER_LIST / VALUE);
        for n in 0..STREAMS {
            for frame in Frame::headers(2 * n + 1, &block) {
                write_frame(&mut io, &frame).await?;
            }
        }
        for _ in 0..STREAMS {
            assert_eq!(next_answer(&mut io).await, Answer::TooLarge);
        }
        let grown = Resources::of(proxy)?.resident_kib.saturating_sub(before);
        let most = u64::from(STREAMS) * 4 * HEADER_LIST as u64 / 1024;
        ensure!(grown <= most, "{grown} KiB");
        Ok(())
    })
}

#[test]
fn padding_takes_no_room_for_good() -> Result<()> {
    let scene = Scene::new("padding")?;
    let app = App::listen(&scene.pod, APP)?;
    check_padding(&scene.listener(APP)?, &app)
}

/// Checks that frames of a byte each reach `app`, however much padding they have.
pub(crate) fn check_padding(listener: &Listener, app: &App) -> Result<()> {
    /// Bytes of a stream's window.
    const WINDOW: usize = 4 << 20;
    /// A byte, its padding, and the length of that.
    const FRAME: usize = 257;
    let mut payload = vec![0; FRAME];
    payload[..2].copy_from_slice(&[255, b'x']);
    let frame = Frame::new(Frame::DATA, Frame::PADDED, 1, payload).to_bytes();
    let count = 3 * WINDOW / FRAME;
    block_on_for(LONG, async {
        let mut io = listener.bare_tunnel().await?;
        await_windows(&mut io).await?;
        write_frame(&mut io, &listener.open(1)).await?;
        let (mut socket, _) = app.accept().await?;
        let (mut receive, mut send) = tokio::io::split(io);
        let room = tokio::sync::Semaphore::new(WINDOW / FRAME);
        let write = async {
            for _ in 0..count {
                room.acquire().await?.forget();
                send.write_all(&frame).await?;
            }
            send.flush().await?;
            anyhow::Ok(())
        };
        let widen = async {
            let mut bytes = 0;
            while let Ok(frame) = read_frame(&mut receive).await {
                if let (Frame::WINDOW_UPDATE, 1, Some(more)) =
                    (frame.kind, frame.stream, frame.number())
                {
                    bytes += usize::try_from(more).unwrap_or_default();
                    room.add_permits(bytes / FRAME);
                    bytes %= FRAME;
                }
            }
        };
        let read = async {
            let mut received = vec![0; count];
            socket.read_exact(&mut received).await?;
            ensure!(received.iter().all(|byte| *byte == b'x'), "other bytes");
            Ok(())
        };
        tokio::select! {
            () = widen => bail!("the tunnel has ended"),
            both = async { tokio::try_join!(write, read) } => both.map(drop),
        }
    })
}

#[test]
fn a_client_that_takes_nothing_loses_its_idle_stream_and_no_other() -> Result<()> {
    let scene = Scene::with_args("window", &["--idle-timeout", "2"])?;
    let app = App::listen(&scene.pod, APP)?;
    check_stuck_stream(&scene.listener(APP)?, &app, || {
        let lines = scene.proxy.access_log()?;
        Ok(lines.iter().any(|line| line.is("reason", "idle_timeout")))
    })
}

/// Checks that a stream whose client takes nothing of what `app` says is ended, as `has_ended` tells,
/// and that another one of the same tunnel goes on.
pub(crate) fn check_stuck_stream(
    listener: &Listener,
    app: &App,
    has_ended: impl Fn() -> Result<bool>,
) -> Result<()> {
    let mut io = block_on(listener.bare_tunnel())?;
    let no_window = Frame::new(Frame::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]);
    let (mut stuck, mut socket) = block_on(async {
        write_frame(&mut io, &no_window).await?;
        write_frame(&mut io, &listener.open(1)).await?;
        let stuck = app.accept().await?.0;
        write_frame(&mut io, &listener.open(3)).await?;
        write_frame(&mut io, &Frame::new(Frame::WINDOW_UPDATE, 0, 3, [0, 0, 0x40, 0])).await?;
        Ok((stuck, app.accept().await?.0))
    })?;
    // It fills the buffers on the way, and then waits.
    let _writes = Task::spawn(async move { while stuck.write_all(&[0; 1 << 13]).await.is_ok() {} });
    let mut say = |word: &[u8; 4]| {
        block_on(async {
            write_frame(&mut io, &Frame::new(Frame::DATA, 0, 3, *word)).await?;
            let mut heard = [0; 4];
            socket.read_exact(&mut heard).await?;
            socket.write_all(&heard).await?;
            loop {
                let frame = read_frame(&mut io).await?;
                match (frame.kind, frame.stream) {
                    (Frame::DATA, 3) => {
                        assert_eq!(frame.payload, word);
                        return Ok(());
                    }
                    (Frame::RST_STREAM | Frame::GOAWAY, 0 | 3) => bail!("{frame:?}"),
                    _ => {}
                }
            }
        })
    };
    wait_for("the end of the stream", 4 * SOON, || {
        say(b"here")?;
        has_ended().map(|ended| ended.then_some(()))
    })?;
    say(b"last")
}

#[test]
fn streams_in_flight_outlast_a_clients_goaway() -> Result<()> {
    let scene = Scene::new("leaving")?;
    let app = App::listen(&scene.pod, APP)?;
    check_clients_goaway(&scene.listener(APP)?, &app)
}

/// Checks that a stream to `app` outlasts the client's GOAWAY.
pub(crate) fn check_clients_goaway(listener: &Listener, app: &App) -> Result<()> {
    block_on(async {
        let mut io = listener.bare_tunnel().await?;
        write_frame(&mut io, &listener.open(1)).await?;
        let (mut socket, _) = app.accept().await?;
        write_frame(&mut io, &Frame::new(Frame::GOAWAY, 0, 0, [0; 8])).await?;
        write_frame(&mut io, &Frame::new(Frame::DATA, Frame::END_STREAM, 1, *b"ask")).await?;
        let mut asked = Vec::new();
        socket.read_to_end(&mut asked).await?;
        assert_eq!(asked, b"ask");
        socket.write_all(b"answer").await?;
        drop(socket);
        loop {
            let frame = read_frame(&mut io).await?;
            if frame.kind == Frame::DATA && !frame.payload.is_empty() {
                assert_eq!(frame.payload, b"answer");
                return Ok(());
            }
        }
    })
}

/// Takes on the windows that the server has, which are larger than the usual ones.
async fn await_windows(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<()> {
    let (mut of_streams, mut of_tunnel) = (false, false);
    while !(of_streams && of_tunnel) {
        let frame = read_frame(io).await?;
        of_streams |= frame.kind == Frame::SETTINGS && frame.flags & Frame::ACK == 0;
        of_tunnel |= frame.kind == Frame::WINDOW_UPDATE;
    }
    write_frame(io, &Frame::new(Frame::SETTINGS, Frame::ACK, 0, [])).await
}

/// How a request made by hand was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Accepted,
    TooLarge,
    TunnelEnds,
}

/// Sends `flood` and returns how the tunnel ends.
async fn until_the_end(io: impl AsyncRead + AsyncWrite, flood: &[u8]) -> End {
    let (mut receive, mut send) = tokio::io::split(io);
    let write = async {
        // The server need not read all of it.
        let _ = send.write_all(flood).await;
        let _ = send.flush().await;
        std::future::pending::<()>().await;
    };
    let read = async {
        while let Ok(frame) = read_frame(&mut receive).await {
            if let (Frame::GOAWAY, [_, _, _, _, a, b, c, d, ..]) = (frame.kind, &frame.payload[..])
            {
                return End::GoAway(u32::from_be_bytes([*a, *b, *c, *d]));
            }
        }
        End::Closed
    };
    tokio::select! {
        end = read => end,
        () = write => End::Closed,
    }
}

async fn next_reset(io: &mut (impl AsyncRead + Unpin)) -> Result<(u32, u32)> {
    loop {
        let frame = read_frame(io).await?;
        match (frame.kind, frame.number()) {
            (Frame::RST_STREAM, Some(code)) => return Ok((frame.stream, code)),
            (Frame::GOAWAY, _) => bail!("{frame:?}"),
            _ => {}
        }
    }
}

async fn next_answer(io: &mut (impl AsyncRead + Unpin)) -> Answer {
    while let Ok(frame) = read_frame(io).await {
        match (frame.kind, frame.payload.first()) {
            (Frame::HEADERS, Some(&STATUS_200)) => return Answer::Accepted,
            (Frame::HEADERS, _) => return Answer::TooLarge,
            (Frame::GOAWAY, _) => break,
            _ => {}
        }
    }
    Answer::TunnelEnds
}

fn limit_reached(scene: &Scene, limit: &str) -> Result<usize> {
    let reached = scene.proxy.metrics()?.sum("fairlead_limit_reached_total", &[("limit", limit)]);
    Ok(reached.to_string().parse()?)
}

async fn round_trip(stream: &mut Stream, socket: &mut tokio::net::TcpStream) -> Result<()> {
    stream.write(b"ping")?;
    let mut received = [0; 4];
    socket.read_exact(&mut received).await?;
    socket.write_all(&received).await?;
    stream.expect(b"ping").await
}
