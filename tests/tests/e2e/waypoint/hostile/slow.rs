//! Clients that take their time (row 57 of trust.md).

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fairlead_lab::wait_for;

use super::{super::FELT, Stage, read_to_end};

/// Pause between two bytes of a client that is slow on purpose: far less than the times that are
/// tested, so that it is the slowness that ends it.
const PAUSE: Duration = Duration::from_millis(200);

/// Sends a byte at a time until the other end has had enough; returns what came back, and when.
fn drip(mut socket: TcpStream, byte: u8) -> Result<(String, Duration)> {
    let started = Instant::now();
    socket.set_read_timeout(Some(PAUSE))?;
    let mut back = Vec::new();
    while started.elapsed() < FELT {
        let _ = socket.write_all(&[byte]);
        let mut buffer = [0; 4096];
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => back.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    Ok((String::from_utf8_lossy(&back).into_owned(), started.elapsed()))
}

pub(super) fn requests_that_take_too_long_end_and_others_go_on(stage: &Stage) -> Result<()> {
    let hostile = &stage.hostile;
    // A byte of the head now and then.
    let mut socket = hostile.dial()?;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: raw\r\nX: ")?;
    let (back, took) = drip(socket, b'y')?;
    ensure!(took >= Duration::from_secs(2) && took < FELT, "{took:?}");
    assert_eq!(back, "");
    hostile.wait_limit("request_head_time", 0.5)?;
    hostile.is_well()?;
    // A body of which nothing comes any more.
    let mut socket = hostile.dial()?;
    socket.write_all(b"POST / HTTP/1.1\r\nHost: raw\r\nContent-Length: 100\r\n\r\npart")?;
    let started = Instant::now();
    let back = read_to_end(&mut socket)?;
    ensure!(started.elapsed() >= Duration::from_secs(3), "{:?}", started.elapsed());
    ensure!(back.status() == 408 && back.text.ends_with("stream timeout"), "{back:?}");
    hostile.wait_limit("stream_idle", 0.5)?;
    // A byte of it now and then: it has all the time that a request has, and no more.
    let mut socket = hostile.dial()?;
    socket.write_all(b"POST / HTTP/1.1\r\nHost: raw\r\nContent-Length: 9999\r\n\r\n")?;
    let (back, took) = drip(socket, b'y')?;
    ensure!(took >= Duration::from_secs(6) && took < FELT, "{took:?}");
    ensure!(back.starts_with("HTTP/1.1 408 ") && back.ends_with("request timeout"), "{back}");
    hostile.wait_limit("request_time", 0.5)?;
    let metrics = hostile.bound.waypoint.metrics()?;
    let labels = [("response_code", "408"), ("response_flags", "SI")];
    ensure!(metrics.sum("istio_requests_total", &labels) >= 1.0, "{metrics:?}");
    hostile.is_well()
}

pub(super) fn answers_that_nobody_takes_end_and_quiet_streams_go_on(stage: &Stage) -> Result<()> {
    let (hostile, script) = (&stage.hostile, &stage.script);
    let before = hostile.limit_reached("stream_idle")?;
    // An answer that begins, and goes on much later.
    script.answers("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun", false);
    let ask = b"GET / HTTP/1.1\r\nHost: raw\r\n\r\n";
    let mut quiet = hostile.dial()?;
    quiet.write_all(ask)?;
    let mut begun = [0; 12];
    quiet.read_exact(&mut begun)?;
    assert_eq!(&begun, b"HTTP/1.1 200");
    // An answer that is larger than all buffers on the way, to a client that reads nothing.
    let mut large = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n".to_vec();
    large.resize(100_000_000, b'x');
    script.answers(large, false);
    let mut stuck = hostile.dial()?;
    stuck.write_all(ask)?;
    hostile.wait_limit("stream_idle", before + 0.5)?;
    let mut rest = Vec::new();
    let taken = stuck.read_to_end(&mut rest);
    ensure!(taken.is_err() || rest.len() < 100_000_000, "{}", rest.len());
    // The quiet one has been quiet for longer than that, and is still there.
    quiet.set_nonblocking(true)?;
    sleep(Duration::from_secs(1));
    wait_for("what came of the quiet answer", FELT, || {
        let mut buffer = [0; 4096];
        loop {
            match quiet.read(&mut buffer) {
                Ok(0) => anyhow::bail!("the quiet stream has ended"),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Ok(Some(()));
                }
                Err(error) => return Err(error.into()),
            }
        }
    })?;
    ensure!(hostile.limit_reached("stream_idle")? < before + 1.5);
    hostile.is_well()
}
