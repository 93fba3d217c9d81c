//! Clients that run in pods, and what they saw.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail};
use fairlead_lab::{Child, Host, python};

/// Generous for what takes milliseconds on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Exit codes of curl for a connection that no byte of an answer came through: refused, empty reply,
/// reset while sending or receiving.
const REFUSALS: [i32; 4] = [7, 52, 55, 56];

/// What curl prints after the body; the marker keeps the two apart.
const FORMAT: &str = "\n--curl status=%{http_code} remote=%{remote_ip} local_port=%{local_port}\n";

/// What curl saw of an exchange.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Exit code of curl.
    pub(crate) code: i32,
    #[expect(dead_code, reason = "shown when an assertion fails")]
    text: String,
    /// HTTP status, `000` without an answer.
    pub(crate) status: String,
    /// Address that curl believes to talk to.
    pub(crate) remote: String,
    /// Port of curl's own end.
    pub(crate) local_port: String,
    body: HashMap<String, String>,
}

// === impl Answer ===

impl Answer {
    /// Returns a value that `http_server.py` put in the body: `peer`, `port`, `own` or `path`.
    pub(crate) fn seen(&self, key: &str) -> &str {
        self.body.get(key).map_or("", String::as_str)
    }

    /// Returns whether the server answered.
    pub(crate) fn is_ok(&self) -> bool {
        self.code == 0 && self.status == "200"
    }

    /// Returns whether the connection was refused or reset before any byte of an answer.
    pub(crate) fn is_refused(&self) -> bool {
        REFUSALS.contains(&self.code) && self.status == "000"
    }
}

/// Gets `http://SERVER/` from inside `host` with curl.
pub(crate) fn curl(host: &impl Host, server: SocketAddr) -> Result<Answer> {
    curl_with(host, server, &[])
}

/// Gets `http://SERVER/` from inside `host` with curl and further options of it.
pub(crate) fn curl_with(host: &impl Host, server: SocketAddr, options: &[&str]) -> Result<Answer> {
    let url = format!("http://{server}/");
    let mut command = vec!["curl", "-sS", "--max-time", "8", "-w", FORMAT];
    command.extend(options);
    command.push(&url);
    let output = host.run(&command)?;
    let (body, facts) = output.stdout.split_once("\n--curl ").context("no report of curl")?;
    let facts = pairs(facts);
    let fact = |key: &str| facts.get(key).cloned().unwrap_or_default();
    Ok(Answer {
        code: output.status.code().context("curl was killed")?,
        status: fact("status"),
        remote: fact("remote"),
        local_port: fact("local_port"),
        text: format!("{body}{}", output.stderr),
        body: pairs(body),
    })
}

/// Opens a connection from `host` that is held until its handle is dropped; see `talk.py`.
pub(crate) fn talk(host: &impl Host, server: SocketAddr) -> Result<Child> {
    let (address, port) = (server.ip().to_string(), server.port().to_string());
    let mut client = host.spawn_interactive(python("talk.py", &[address, port]))?;
    client.wait_for_output("connected", SOON)?;
    Ok(client)
}

/// Sends `text` over a connection to an echoing server and waits until it comes back.
pub(crate) fn say(client: &mut Child, text: &str) -> Result<()> {
    client.send_line(&format!("send {text}"))?;
    client.wait_for_output(&format!("received {text}"), SOON)
}

/// Waits until a connection of [`talk`] ended, and returns how: `closed` or `reset`.
pub(crate) fn end_of(client: &mut Child) -> Result<&'static str> {
    fairlead_lab::wait_for("the end of a connection", SOON, || {
        let said = client.stdout()?;
        Ok(["closed", "reset"].into_iter().find(|end| said.lines().any(|line| line == *end)))
    })
}

/// Runs one of the lab's Python programs in `host` and returns what it printed.
pub(crate) fn run_python<S: AsRef<str>>(
    host: &impl Host,
    program: &str,
    args: &[S],
) -> Result<String> {
    let output = host.run(python(program, args))?.checked()?;
    if output.stdout.is_empty() {
        bail!("{program} printed nothing: {}", output.stderr);
    }
    Ok(output.stdout)
}

fn pairs(text: &str) -> HashMap<String, String> {
    let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
