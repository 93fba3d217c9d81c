//! Clients and endpoints that mean harm, by hand: what the waypoint makes of their bytes, and what it
//! lets through.

mod endpoints;
mod headers;
mod heads;
mod http2;
mod leaving;
mod recorder;
mod script;
mod slow;
mod smuggling;
mod storm;

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    ops::Deref,
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{Resources, manifest, wait_for};

use self::{recorder::Recorder, script::Script};
use super::{Bound, FELT};
use crate::{mesh::vip4, peer::dial};

/// Port of the application that is watched, in both pods.
const APP: u16 = 7000;

/// Memory that the waypoint may grow by at anything that a test does, in KiB.
const MOST_GROWN_KIB: u64 = 64 << 10;

/// A mesh with another bound service, `raw`, whose endpoints say what they are sent.
pub(super) struct Hostile {
    recorder: Recorder,
    pub(super) bound: Bound,
}

/// The same with endpoints that play.
pub(super) struct Stage {
    pub(super) script: Script,
    pub(super) hostile: Hostile,
}

/// What came back over a connection, to its end.
#[derive(Debug)]
pub(super) struct Back {
    pub(super) text: String,
}

/// Does one thing after another in the same mesh.
macro_rules! each {
    ($on:expr, $($thing:path),+ $(,)?) => {
        $($thing($on).context(stringify!($thing))?;)+
    };
}

#[test]
fn requests_over_http1_that_mean_harm_do_none() -> Result<()> {
    let hostile = Hostile::new("hohttp1")?;
    each!(
        &hostile,
        smuggling::requests_that_can_be_read_in_two_ways_are_answered_400_and_nothing_is_forwarded,
        smuggling::requests_that_name_their_host_in_doubtful_ways_are_refused,
        smuggling::bodies_in_chunks_that_are_none_end_the_request_and_the_endpoint_sees_no_end_of_it,
        smuggling::an_upgrade_that_nobody_agrees_to_does_not_hide_a_request,
        heads::heads_that_are_too_large_are_answered_431_and_cost_little,
    );
    Ok(())
}

#[test]
fn requests_over_http2_that_mean_harm_do_none() -> Result<()> {
    let hostile = Hostile::new("hohttp2")?;
    each!(
        &hostile,
        http2::requests_over_http2_that_would_be_two_over_http1_are_reset,
        http2::floods_end_the_connection_that_they_come_by_and_are_counted,
        http2::requests_that_are_given_up_at_once_end_no_tunnel_that_others_use,
    );
    Ok(())
}

#[test]
fn what_requests_claim_and_how_they_spell_it_does_not_count() -> Result<()> {
    let hostile = Hostile::new("hoclaims")?;
    each!(
        &hostile,
        headers::what_only_proxies_may_say_does_not_reach_the_application,
        headers::a_denied_path_is_denied_in_every_spelling_and_what_is_judged_is_forwarded,
        headers::paths_are_the_same_where_the_mesh_says_that_applications_take_them_for_it,
    );
    Ok(())
}

#[test]
fn endpoints_that_mean_harm_do_none() -> Result<()> {
    let stage = Stage::new("hoanswers", &[])?;
    each!(
        &stage,
        endpoints::answers_that_can_be_read_in_two_ways_are_answered_502_and_not_passed_on,
        endpoints::what_an_endpoint_says_before_and_after_its_answer_is_nobodys_answer,
        endpoints::an_answer_to_a_request_that_goes_on_leaves_nothing_behind,
        endpoints::a_request_of_which_an_endpoint_has_seen_a_part_is_not_tried_again,
    );
    Ok(())
}

#[test]
fn clients_that_are_slow_on_purpose_are_given_up() -> Result<()> {
    let args = [
        ["--request-head-timeout", "2"],
        ["--stream-idle-timeout", "3"],
        ["--request-timeout", "6"],
    ];
    let stage = Stage::new("hoslow", args.as_flattened())?;
    each!(
        &stage,
        slow::requests_that_take_too_long_end_and_others_go_on,
        slow::answers_that_nobody_takes_end_and_quiet_streams_go_on,
    );
    Ok(())
}

#[test]
fn clients_that_go_away_are_told_of() -> Result<()> {
    let stage = Stage::new("holeaving", &[])?;
    leaving::requests_that_nobody_waits_for_are_logged_and_counted_once(&stage)
}

#[test]
fn an_endpoint_that_never_comes_to_its_answer_is_not_heard_to_the_end() -> Result<()> {
    storm::a_storm_of_interim_answers_ends_its_request_and_no_other(Hostile::new("hostorm")?)
}

// === impl Hostile ===

impl Hostile {
    fn new(name: &str) -> Result<Self> {
        Self::with_args(name, &[])
    }

    fn with_args(name: &str, args: &[&str]) -> Result<Self> {
        let bound = Bound::with_args(name, args)?;
        let recorder = Recorder::start([&bound.mesh.b, &bound.second], APP)?;
        let addresses = [raw().ip()];
        let ports = [(raw().port(), APP)];
        let labels = manifest::USE_WAYPOINT;
        let service = manifest::service(["shop", "raw"], labels, &addresses, &ports, Some("b"));
        bound.mesh.plane.write("raw.yaml", &service.replace("name: p80", "name: http"))?;
        let hostile = Self { recorder, bound };
        wait_for("the waypoint serves the other service", FELT, || {
            let before = hostile.bound.passed()?;
            let ask = b"GET / HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n";
            // Until it is known, its address is nobody's.
            let is_served = hostile.send(ask).is_ok_and(|back| back.status() == 200);
            Ok((is_served && hostile.bound.passed()? > before).then_some(()))
        })?;
        hostile.recorder.forget();
        Ok(hostile)
    }

    /// Connects to the service as `a` does.
    pub(super) fn dial(&self) -> Result<TcpStream> {
        dial(&self.bound.mesh.a, raw())
    }

    /// Sends these bytes, and returns what comes back until the connection ends.
    fn send(&self, bytes: &[u8]) -> Result<Back> {
        let mut socket = self.dial()?;
        // The waypoint need not take all of it.
        let _ = socket.write_all(bytes);
        read_to_end(&mut socket)
    }

    /// Does so, and says that this is all.
    fn send_all(&self, bytes: &[u8]) -> Result<Back> {
        let mut socket = self.dial()?;
        let _ = socket.write_all(bytes);
        let _ = socket.shutdown(Shutdown::Write);
        read_to_end(&mut socket)
    }

    /// Returns how often a limit was reached.
    fn limit_reached(&self, limit: &str) -> Result<f64> {
        let metrics = self.bound.waypoint.metrics()?;
        Ok(metrics.sum("fairlead_limit_reached_total", &[("limit", limit)]))
    }

    /// Waits until a limit has been reached more often than that.
    fn wait_limit(&self, limit: &str, than: f64) -> Result<()> {
        wait_for(&format!("{limit} is counted"), FELT, || {
            Ok((self.limit_reached(limit)? > than).then_some(()))
        })
    }

    /// Returns how many requests were refused for what they look like.
    fn malformed(&self) -> Result<f64> {
        Ok(self.bound.waypoint.metrics()?.sum("fairlead_malformed_requests_total", &[]))
    }

    /// Does `work`, which must not make the waypoint much larger.
    fn in_bounded_memory<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let resident =
            || Ok::<_, anyhow::Error>(Resources::of(self.bound.waypoint.pid())?.resident_kib);
        let before = resident()?;
        let done = work()?;
        let grown = resident()?.saturating_sub(before);
        ensure!(grown <= MOST_GROWN_KIB, "{grown} KiB more");
        Ok(done)
    }

    /// Checks that the waypoint does its work, and has not panicked.
    pub(super) fn is_well(&self) -> Result<()> {
        let answer = self.bound.get(&[])?;
        ensure!(answer.is_ok(), "{answer:?}");
        let log = self.bound.waypoint.log()?;
        ensure!(!log.contains("panicked"), "{log}");
        Ok(())
    }
}

// === impl Stage ===

impl Stage {
    pub(super) fn new(name: &str, args: &[&str]) -> Result<Self> {
        let mut hostile = Hostile::with_args(name, args)?;
        // It listens where the script does.
        hostile.recorder.stop();
        let script = Script::start([&hostile.bound.mesh.b, &hostile.bound.second], APP)?;
        Ok(Self { script, hostile })
    }

    /// Asks for a page that is answered so.
    pub(super) fn answered(&self, answer: impl Into<Vec<u8>>, closes: bool) -> Result<Back> {
        self.script.answers(answer, closes);
        self.hostile.send(b"GET / HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n")
    }
}

impl Deref for Hostile {
    type Target = Bound;

    fn deref(&self) -> &Bound {
        &self.bound
    }
}

// === impl Back ===

impl Back {
    /// Returns the status of the first answer; 0 without one.
    pub(super) fn status(&self) -> u16 {
        let status = self.text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        status.and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// Returns how many answers there are.
    fn answers(&self) -> usize {
        self.text.matches("HTTP/1.1 ").count()
    }
}

/// The address of the service.
fn raw() -> SocketAddr {
    vip4(30, 80)
}

/// Reads until the other end is done, or resets the connection.
pub(super) fn read_to_end(socket: &mut TcpStream) -> Result<Back> {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => {
            return Err(error).context(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(Back { text: String::from_utf8_lossy(&bytes).into_owned() })
}
