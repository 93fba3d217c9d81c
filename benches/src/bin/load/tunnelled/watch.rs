//! Says when answers change.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use clap::Args;
use tokio::{task::LocalSet, time::sleep};

use super::{Way, path_of, requests::Requests, tunnel::Tunnel};

/// Pause between two requests: that much later a change may be seen.
const PAUSE: Duration = Duration::from_millis(1);

/// The header that marks answers.
const MARK: &str = "x-mark:";

/// Arguments of `watch`.
#[derive(Clone, Debug, Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    way: Way,
    /// Number of the route to ask for.
    #[arg(long)]
    route: u32,
    /// Duration.
    #[arg(long, value_parser = crate::seconds)]
    seconds: Duration,
}

/// Asks again and again, and prints each new value of the header `x-mark` with the time at which it
/// was first seen, in microseconds since 1970.
pub(crate) fn watch(args: &WatchArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let connection = Tunnel::open(&args.way).await?.connect().await?;
        let (mut requests, path) = (Requests::http1(connection), path_of(args.route));
        let (started, mut last) = (Instant::now(), String::new());
        while started.elapsed() < args.seconds {
            let mark = mark(requests.head(&path).await?);
            if mark != last {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
                println!("{mark} {}.", now.as_micros());
                last = mark;
            }
            sleep(PAUSE).await;
        }
        Ok(())
    })
}

/// Returns the value of the header in the head of an answer.
fn mark(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let mark = head.lines().find_map(|line| line.strip_prefix(MARK));
    mark.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_the_value_of_its_header() {
        assert_eq!(mark(b"HTTP/1.1 200 OK\r\nx-mark: m7\r\ndate: x"), "m7");
        assert_eq!(mark(b"HTTP/1.1 200 OK\r\ndate: x"), "");
    }
}
