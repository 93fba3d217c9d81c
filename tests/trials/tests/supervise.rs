//! The supervisor with real processes: what is started again, what is linked, what is ended.
#![expect(clippy::unwrap_used, reason = "what fails, fails the test")]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::fd::AsRawFd,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use fairlead_node::supervise::REFUSED;
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::{Signal, kill},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supervised");

/// Generous for what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(20);

/// In which what died is to run again.
const RESTART_TIME: Duration = Duration::from_millis(100);

/// What a child has said.
#[derive(Clone, Debug)]
struct Line {
    half: String,
    pid: i32,
    event: String,
    /// When it said so, by the clock of [`now`].
    at: Duration,
}

/// A supervisor with its children.
struct Supervised {
    process: Child,
    lines: mpsc::Receiver<Line>,
    seen: Vec<Line>,
    directory: TempDir,
}

impl Supervised {
    /// `files` are names and contents in the directory that the children look into.
    fn start(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(directory.path().join(name), content).unwrap();
        }
        let mut process =
            Command::new(PROGRAM).arg(directory.path()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines() {
                let line = line.unwrap();
                let mut words = line.splitn(4, ' ');
                let mut word = || words.next().unwrap().to_owned();
                let (half, pid) = (word(), word().parse().unwrap());
                let at = Duration::from_nanos(word().parse().unwrap());
                let event = word();
                if send.send(Line { half, pid, event, at }).is_err() {
                    return;
                }
            }
        });
        Self { process, lines, seen: Vec::new(), directory }
    }

    /// Both halves are up and joined; returns the pids of capture and proxy.
    fn started() -> (Self, i32, i32) {
        Self::started_with(&[])
    }

    fn started_with(files: &[(&str, &str)]) -> (Self, i32, i32) {
        let mut supervised = Self::start(files);
        let capture = supervised.up("capture").pid;
        let proxy = supervised.up("proxy").pid;
        supervised.joined(capture, proxy);
        (supervised, capture, proxy)
    }

    /// Waits for a line, and takes it out.
    fn line(&mut self, what: &str, is_it: impl Fn(&Line) -> bool) -> Line {
        loop {
            if let Some(index) = self.seen.iter().position(&is_it) {
                return self.seen.remove(index);
            }
            match self.lines.recv_timeout(SOON) {
                Ok(line) => self.seen.push(line),
                Err(error) => panic!("no {what}: {error}; there is {:?}", self.seen),
            }
        }
    }

    fn up(&mut self, half: &str) -> Line {
        self.line(&format!("{half} up"), |l| l.half == half && l.event.starts_with("up "))
    }

    /// Both processes have got one end each of the same link.
    fn joined(&mut self, capture: i32, proxy: i32) {
        for (pid, other) in [(capture, proxy), (proxy, capture)] {
            self.says(pid, &format!("joined {other}"));
        }
    }

    fn says(&mut self, pid: i32, event: &str) {
        self.line(&format!("{pid} {event}"), |l| l.pid == pid && l.event == event);
    }

    fn send(&self, signal: Signal) {
        send(self.process.id().cast_signed(), signal);
    }

    /// Waits until all have ended; returns how the supervisor did, and lines that no one took.
    fn end(mut self) -> (ExitStatus, Vec<Line>) {
        let status = self.process.wait().unwrap();
        loop {
            match self.lines.recv_timeout(SOON) {
                Ok(line) => self.seen.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("a child goes on"),
            }
        }
        (status, std::mem::take(&mut self.seen))
    }
}

impl Drop for Supervised {
    /// A test that failed leaves nothing behind: the children follow.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Returns the time by the clock that all processes share.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into()
}

/// Waits until the supervisor has seen the end of its child.
fn wait_until_gone(pid: i32) {
    while kill(Pid::from_raw(pid), None).is_ok() {
        thread::yield_now();
    }
}

#[test]
fn a_process_that_is_killed_runs_again_in_time_and_is_joined_with_the_survivor() {
    for half in ["capture", "proxy"] {
        let times: Vec<_> = (0..3)
            .map(|_| {
                let (mut supervised, capture, proxy) = Supervised::started();
                let killed = now();
                send(if half == "capture" { capture } else { proxy }, Signal::SIGKILL);
                let again = supervised.up(half);
                if half == "capture" {
                    supervised.joined(again.pid, proxy);
                } else {
                    supervised.joined(capture, again.pid);
                }
                supervised.send(Signal::SIGTERM);
                assert!(supervised.end().0.success());
                again.at.saturating_sub(killed)
            })
            .collect();
        eprintln!("{half} ran again after {times:?}");
        assert!(times.iter().min().is_some_and(|t| *t < RESTART_TIME), "{half}: {times:?}");
    }
}

#[test]
fn a_process_that_keeps_dying_is_started_less_and_less_often() {
    let mut supervised = Supervised::start(&[("proxy.status", "1")]);
    let starts: Vec<_> = (0..5).map(|_| supervised.up("proxy").at).collect();
    let pauses: Vec<_> = starts.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    for (pause, least) in pauses.iter().zip([0, 100, 200, 400]) {
        assert!(*pause >= Duration::from_millis(least), "{pauses:?}");
    }
    let capture = supervised.up("capture").pid;
    fs::remove_file(supervised.directory.path().join("proxy.status")).unwrap();
    let proxy = supervised.up("proxy").pid;
    supervised.joined(capture, proxy);
    supervised.send(Signal::SIGTERM);
    assert!(supervised.end().0.success());
}

#[test]
fn a_half_that_refuses_to_serve_at_start_ends_the_supervisor() {
    for (half, other) in [("capture", "proxy"), ("proxy", "capture")] {
        let status = (format!("{half}.status"), REFUSED.to_string());
        let supervised = Supervised::start(&[(&status.0, &status.1)]);
        let (status, rest) = supervised.end();
        assert_eq!(status.code(), Some(1));
        assert_eq!(rest.iter().filter(|l| l.half == half).count(), 1, "{other}: {rest:?}");
    }
}

#[test]
fn sigterm_reaches_capture_only_and_the_proxy_drains_by_its_word() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut supervised, capture, proxy) = Supervised::started();
        supervised.send(signal);
        supervised.says(capture, "term");
        supervised.says(proxy, "drain");
        let (status, rest) = supervised.end();
        assert!(status.success());
        assert!(rest.is_empty(), "{rest:?}");
    }
}

#[test]
fn a_proxy_that_does_not_end_is_asked_and_then_killed() {
    let (mut supervised, capture, proxy) = Supervised::started_with(&[("stubborn", "")]);
    supervised.send(Signal::SIGTERM);
    supervised.says(capture, "term");
    supervised.says(proxy, "term");
    let (status, _) = supervised.end();
    assert_eq!(status.code(), Some(1), "its connections were cut");
}

#[test]
fn capture_that_was_taken_over_is_not_started_again() {
    let (supervised, capture, proxy) = Supervised::started();
    send(capture, Signal::SIGUSR1);
    wait_until_gone(capture);
    send(proxy, Signal::SIGUSR1);
    let (status, rest) = supervised.end();
    assert!(status.success());
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn a_proxy_that_ends_by_itself_is_started_again() {
    let (mut supervised, capture, proxy) = Supervised::started();
    send(proxy, Signal::SIGUSR1);
    let again = supervised.up("proxy").pid;
    supervised.joined(capture, again);
    supervised.send(Signal::SIGTERM);
    assert!(supervised.end().0.success());
}

#[test]
fn sighup_renews_capture_and_then_the_proxy_from_the_program_on_disk() {
    let (mut supervised, capture, proxy) = Supervised::started();
    let next = supervised.directory.path().join("next");
    fs::copy(PROGRAM, &next).unwrap();
    let from_disk = format!("up {}", next.display());
    supervised.send(Signal::SIGHUP);
    let new_capture = supervised.up("capture");
    assert_eq!(new_capture.event, from_disk);
    supervised.joined(new_capture.pid, proxy);
    send(capture, Signal::SIGUSR1);
    let new_proxy = supervised.up("proxy");
    assert_eq!(new_proxy.event, from_disk);
    supervised.joined(new_capture.pid, new_proxy.pid);
    send(proxy, Signal::SIGUSR1);
    wait_until_gone(proxy);
    send(new_proxy.pid, Signal::SIGKILL);
    let again = supervised.up("proxy");
    assert_eq!(again.event, from_disk, "what was renewed stays");
    supervised.joined(new_capture.pid, again.pid);
    supervised.send(Signal::SIGTERM);
    let (status, rest) = supervised.end();
    assert!(status.success());
    assert!(rest.iter().all(|l| !l.event.starts_with("up")), "{rest:?}");
}

#[test]
fn sighup_with_a_program_that_cannot_run_changes_nothing_but_processes() {
    let (mut supervised, capture, proxy) = Supervised::started();
    fs::write(supervised.directory.path().join("next"), "no program").unwrap();
    supervised.send(Signal::SIGHUP);
    let again = supervised.up("capture");
    assert_eq!(again.event, format!("up {PROGRAM}"));
    supervised.joined(again.pid, proxy);
    send(capture, Signal::SIGUSR1);
    wait_until_gone(capture);
    supervised.send(Signal::SIGTERM);
    supervised.says(again.pid, "term");
    supervised.says(proxy, "drain");
    let (status, rest) = supervised.end();
    assert!(status.success());
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn a_descriptor_that_was_left_open_does_not_reach_a_process() {
    let (_read, write) = std::io::pipe().unwrap();
    let name = fs::read_link(format!("/proc/self/fd/{}", write.as_raw_fd())).unwrap();
    fcntl(&write, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let (supervised, capture, proxy) = Supervised::started();
    fcntl(&write, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    let has = |pid: i32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok()).any(|open| open == name)
    };
    assert!(has(supervised.process.id().cast_signed()), "it got the descriptor itself");
    assert!(!has(capture) && !has(proxy));
}

#[test]
fn children_end_when_their_supervisor_is_killed() {
    let (mut supervised, capture, proxy) = Supervised::started();
    supervised.send(Signal::SIGKILL);
    supervised.says(capture, "orphan");
    supervised.says(proxy, "orphan");
    let (status, rest) = supervised.end();
    assert!(!status.success());
    assert!(rest.is_empty(), "{rest:?}");
}
