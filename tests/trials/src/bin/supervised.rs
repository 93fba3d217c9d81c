//! A supervisor and its children, which do nothing but say what happens to them.
//!
//! `supervised DIRECTORY` supervises this very program; SIGHUP changes to `DIRECTORY/next`. Each
//! child writes lines `HALF PID TIME EVENT` to standard output, the time in nanoseconds of
//! `CLOCK_MONOTONIC`:
//!
//! | Event | When |
//! |---|---|
//! | `up PROGRAM` | it has started |
//! | `joined PID` | a link has brought the greeting of a process of the other half |
//! | `drain` | a proxy was told by a capture to end, and ends |
//! | `term` | it has got SIGTERM; capture tells the proxies to drain; it ends |
//! | `orphan` | the supervisor is gone, and it ends |
//!
//! SIGUSR1 makes it end with success. `DIRECTORY/HALF.status` is a status that it ends with at
//! start, and a proxy neither drains nor ends by SIGTERM if there is a `DIRECTORY/stubborn`.

use std::{
    env, fs,
    io::Write as _,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use fairlead_component::logging::Levels;
use fairlead_node::supervise::{
    self, RoleSpec, Supervisor,
    control::{Control, Told},
};
use fairlead_sys::descriptors::Channel;
use nix::time::{ClockId, clock_gettime};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::LocalSet,
};

const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest message between the halves, in bytes.
const MESSAGE_BYTES: usize = 16;

const DRAIN: &[u8] = b"drain";

/// A child.
struct Half {
    name: String,
    directory: PathBuf,
}

fn main() -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [directory] => {
            runtime.block_on(supervise::run(spec(Path::new(directory))?))?;
            Ok(ExitCode::SUCCESS)
        }
        [name, directory] => {
            let half = Half { name: name.clone(), directory: directory.into() };
            LocalSet::new().block_on(&runtime, half.run())
        }
        _ => bail!("usage: supervised DIRECTORY"),
    }
}

fn spec(directory: &Path) -> Result<Supervisor> {
    let half = |name: &str| RoleSpec {
        program: "/proc/self/exe".into(),
        program_on_disk: directory.join("next"),
        arguments: vec![name.into(), directory.into()],
    };
    Ok(Supervisor {
        levels: Levels::new("info")?,
        capture: half("capture"),
        proxy: half("proxy"),
        agent: None,
        drain_timeout: DRAIN_TIMEOUT,
    })
}

// === impl Half ===

impl Half {
    async fn run(self) -> Result<ExitCode> {
        let status = self.directory.join(&self.name).with_extension("status");
        let status = fs::read_to_string(status).ok();
        self.say(&format!("up {}", env::current_exe()?.display()))?;
        if let Some(status) = status {
            return Ok(ExitCode::from(status.parse::<u8>()?));
        }
        let mut terminate = signal(SignalKind::terminate())?;
        let mut succeed = signal(SignalKind::user_defined1())?;
        let mut control = Control::from_stdin()?;
        let is_stubborn = self.name == "proxy" && self.directory.join("stubborn").exists();
        let half = Rc::new(self);
        let (drain, mut drains) = mpsc::channel(1);
        let mut links: Vec<Rc<Channel>> = Vec::new();
        loop {
            tokio::select! {
                told = control.next() => match told {
                    Some(Told::Link(link)) => {
                        links.push(half.join(link.socket, drain.clone()).await?);
                    }
                    // It logs nothing.
                    Some(Told::Log(_)) => {}
                    None => {
                        half.say("orphan")?;
                        break;
                    }
                },
                _ = terminate.recv() => {
                    half.say("term")?;
                    if half.name == "capture" {
                        for link in &links {
                            // The other end may be gone.
                            let _ = link.send(DRAIN, &[]).await;
                        }
                    }
                    if !is_stubborn {
                        break;
                    }
                }
                Some(()) = drains.recv(), if !is_stubborn => {
                    half.say("drain")?;
                    break;
                }
                _ = succeed.recv() => break,
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Greets the process at the other end and listens to it.
    async fn join(self: &Rc<Self>, link: OwnedFd, drain: mpsc::Sender<()>) -> Result<Rc<Channel>> {
        let link = Rc::new(Channel::new(link)?);
        let greeting = std::process::id().to_string();
        // The other end may be gone.
        let _ = link.send(greeting.as_bytes(), &[]).await;
        let (half, other) = (self.clone(), link.clone());
        tokio::task::spawn_local(async move {
            let mut data = [0; MESSAGE_BYTES];
            while let Ok(datagram) = other.receive(&mut data).await {
                match &data[..datagram.length] {
                    [] => break,
                    DRAIN => drain.send(()).await?,
                    greeting => half.say(&format!("joined {}", str::from_utf8(greeting)?))?,
                }
            }
            anyhow::Ok(())
        });
        Ok(link)
    }

    /// Writes the line at once, so that lines of several processes do not mix.
    fn say(&self, event: &str) -> Result<()> {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?).as_nanos();
        let line = format!("{} {} {now} {event}\n", self.name, std::process::id());
        std::io::stdout().write_all(line.as_bytes()).context("nobody listens")
    }
}
