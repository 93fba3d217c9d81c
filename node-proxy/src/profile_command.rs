//! The command `profile`.

use std::{fs, io::IsTerminal as _, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use tokio::time::interval;

use fairlead_node::{
    api::client::Client,
    cli::{ProfileArgs, ProfileFormat},
    profile::{
        Kind, Window,
        pprof::Profile,
        summary::{Summary, folded},
    },
};

/// How often a person is told how much time is left.
const TICK: Duration = Duration::from_secs(1);

/// Goes to the start of a terminal's line, and empties it.
const CLEAR_LINE: &str = "\r\x1b[K";

/// Takes a profile, prints what counts most, and writes the rest to a file.
pub(crate) async fn run(args: ProfileArgs) -> Result<()> {
    let ProfileArgs { kind, seconds, output, format, run_dir } = args;
    let kind = Kind::from(kind);
    let client = Client::new(&run_dir);
    let file = tokio::select! {
        file = client.profile(kind, seconds) => file,
        never = tell_progress(kind, seconds) => never,
    };
    if std::io::stderr().is_terminal() {
        eprint!("{CLEAR_LINE}");
    }
    let file = file?;
    let profile = Profile::read(&file)?;
    print!("{}", Summary::of(&profile));
    if let Some(path) = output {
        match format {
            ProfileFormat::Pprof => write(&path, &file)?,
            ProfileFormat::Folded => write(&path, folded(&profile).as_bytes())?,
        }
    }
    Ok(())
}

/// Never returns.
async fn tell_progress<T>(kind: Kind, window: Window) -> T {
    eprintln!("taking a {kind} profile of the proxy for {window} s");
    let mut tick = interval(TICK);
    for left in (0..=window.duration().as_secs()).rev() {
        tick.tick().await;
        if std::io::stderr().is_terminal() {
            eprint!("{CLEAR_LINE}{left} s left");
        }
    }
    std::future::pending().await
}

fn write(path: &Path, file: &[u8]) -> Result<()> {
    fs::write(path, file).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("written to {}", path.display());
    Ok(())
}
