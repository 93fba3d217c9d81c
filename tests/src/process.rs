//! Processes that end when their handle is dropped, with their output in files.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

use crate::{netns::Netns, resources::Resources, wait::wait_for};

/// Anything that names a program and its arguments.
pub trait IntoCommand {
    /// Returns the command to run.
    fn into_command(self) -> Command;
}

/// A running program, in its own process group; dropping it kills the group.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
    command: String,
    started: Instant,
    output: OutputFiles,
    /// In a mutex, which is never locked, so that threads can share the handle.
    exited: Mutex<mpsc::Receiver<()>>,
    status: Option<ExitStatus>,
    detached: bool,
}

/// What a program that ended left.
#[derive(Clone, Debug)]
pub struct Output {
    /// The program and its arguments.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// Time from its start to the moment its end was noticed.
    pub elapsed: Duration,
}

/// Files that take a program's output; a pipe would block the program when nobody reads.
#[derive(Clone, Debug)]
pub(crate) struct OutputFiles {
    pub(crate) stdout: PathBuf,
    pub(crate) stderr: PathBuf,
}

/// What a program reads as standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Nothing.
    Empty,
    /// What [`Child::send_line`] writes.
    Lines,
}

// === impl IntoCommand ===

impl IntoCommand for Command {
    fn into_command(self) -> Command {
        self
    }
}

impl<S: AsRef<str>> IntoCommand for &[S] {
    fn into_command(self) -> Command {
        let mut words = self.iter().map(AsRef::as_ref);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    }
}

impl<S: AsRef<str>, const N: usize> IntoCommand for [S; N] {
    fn into_command(self) -> Command {
        self.as_slice().into_command()
    }
}

impl<S: AsRef<str>, const N: usize> IntoCommand for &[S; N] {
    fn into_command(self) -> Command {
        self.as_slice().into_command()
    }
}

impl<S: AsRef<str>> IntoCommand for Vec<S> {
    fn into_command(self) -> Command {
        self.as_slice().into_command()
    }
}

impl<S: AsRef<str>> IntoCommand for &Vec<S> {
    fn into_command(self) -> Command {
        self.as_slice().into_command()
    }
}

// === impl Child ===

impl Child {
    pub(crate) fn spawn(
        netns: &Netns,
        mut command: Command,
        output: OutputFiles,
        input: Input,
    ) -> Result<Self> {
        let description = describe(&command);
        command
            .process_group(0)
            .stdin(match input {
                Input::Empty => Stdio::null(),
                Input::Lines => Stdio::piped(),
            })
            .stdout(File::create(&output.stdout)?)
            .stderr(File::create(&output.stderr)?);
        let started = Instant::now();
        let process = netns
            .enter(|| Ok(command.spawn()?))
            .with_context(|| format!("cannot run `{description}`"))?;
        let exited = Mutex::new(watch(pid_of(&process)));
        Ok(Self {
            process,
            command: description,
            started,
            output,
            exited,
            status: None,
            detached: false,
        })
    }

    /// Returns the process id.
    pub fn pid(&self) -> Pid {
        pid_of(&self.process)
    }

    /// Returns what it wrote to standard output so far.
    pub fn stdout(&self) -> Result<String> {
        read(&self.output.stdout)
    }

    /// Returns what it wrote to standard error so far.
    pub fn stderr(&self) -> Result<String> {
        read(&self.output.stderr)
    }

    /// Returns whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.try_wait(Duration::ZERO)?.is_none())
    }

    /// Waits for its end, at most for `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Result<Output> {
        let Some(status) = self.try_wait(timeout)? else {
            bail!("`{}` did not end within {timeout:?}\n{}", self.command, self.stderr()?);
        };
        Ok(Output {
            command: self.command.clone(),
            status,
            stdout: self.stdout()?,
            stderr: self.stderr()?,
            elapsed: self.started.elapsed(),
        })
    }

    /// Waits until `text` is in standard output or standard error.
    pub fn wait_for_output(&mut self, text: &str, timeout: Duration) -> Result<()> {
        let what = format!("`{}` writes \"{text}\"", self.command);
        wait_for(&what, timeout, || {
            // Asked first: output that was written before the end is then seen.
            let running = self.is_running()?;
            if self.stdout()?.contains(text) || self.stderr()?.contains(text) {
                return Ok(Some(()));
            }
            if !running {
                bail!("`{}` ended without writing \"{text}\"\n{}", self.command, self.stderr()?);
            }
            Ok(None)
        })
    }

    /// Writes a line to the standard input of a program that `spawn_interactive` started.
    pub fn send_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.process.stdin.as_mut().context("not started as interactive")?;
        Ok(writeln!(stdin, "{line}")?)
    }

    /// Ends the standard input of a program that `spawn_interactive` started.
    pub fn close_input(&mut self) {
        self.process.stdin = None;
    }

    /// Sends it a signal; one that ended gets none.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.status.is_none() {
            kill(self.pid(), signal)?;
        }
        Ok(())
    }

    /// Kills its process group and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        if self.status.is_none() {
            // The group keeps its id until the leader is reaped, so this reaches no stranger.
            killpg(self.pid(), Signal::SIGKILL)?;
            self.status = Some(self.process.wait()?);
        }
        Ok(())
    }

    /// Returns the memory, descriptors and processor time that it uses.
    pub fn resources(&self) -> Result<Resources> {
        Resources::of(self.pid())
    }

    /// Lets it run on without this handle.
    pub fn detach(mut self) {
        self.detached = true;
    }

    fn try_wait(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let exited = self.exited.get_mut().unwrap_or_else(PoisonError::into_inner);
        if self.status.is_none()
            && exited.recv_timeout(timeout) != Err(mpsc::RecvTimeoutError::Timeout)
        {
            self.status = Some(self.process.wait()?);
        }
        Ok(self.status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.detached {
            // Nobody is left to tell; the lab kills what remains in its namespaces.
            let _ = self.kill();
        }
    }
}

// === impl Output ===

impl Output {
    /// Returns itself if the program succeeded, else an error that holds all of its output.
    pub fn checked(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        let Self { command, status, stdout, stderr, .. } = self;
        bail!("`{command}` ended with {status}\nstdout: {stdout}\nstderr: {stderr}")
    }

    /// Returns whether the program succeeded.
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

/// Tells when the process has ended; it stays unreaped, so that its id is not given to another.
fn watch(pid: Pid) -> mpsc::Receiver<()> {
    let (tell, exited) = mpsc::channel();
    thread::spawn(move || {
        let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let _ = tell.send(());
    });
    exited
}

fn pid_of(process: &process::Child) -> Pid {
    Pid::from_raw(process.id().cast_signed())
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn read(path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}
