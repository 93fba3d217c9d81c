//! What a name server said is given again while it is fresh.

use anyhow::{Context as _, Result};
use fairlead_lab::wait_for;

use super::{OTHER_ADDRESS, Scene};
use crate::clients::SOON;

/// Time to live of the name server's answers, in seconds.
const TTL: u32 = 60;

/// dig adds a cookie to each query, which makes it another one.
const SAME: &str = "+nocookie";

#[test]
fn an_answer_is_kept_for_the_pod_that_asked_and_for_as_long_as_it_says() -> Result<()> {
    let scene = Scene::new("dns-cache")?;
    let (a, d) = (&scene.mesh.a, &scene.mesh.d);
    for _ in 0..3 {
        let said = scene.dig(a, &[SAME, "+noall", "+answer", "other.example"])?.stdout;
        let ttl = said.split_whitespace().nth(1).context("no answer")?.parse::<u32>()?;
        assert!(said.contains(OTHER_ADDRESS) && ttl <= TTL, "{said}");
    }
    assert_eq!(scene.times_asked("other.example")?, 1);
    scene.assert_metric("fairlead_dns_cache_hits_total", &[("request_query_type", "A")], 2)?;
    assert_eq!(scene.dig_short(d, &[SAME, "other.example"])?, [OTHER_ADDRESS]);
    assert_eq!(scene.times_asked("other.example")?, 2, "another pod asks for itself");

    wait_for("the end of a short life", SOON, || {
        assert_eq!(scene.dig_short(a, &[SAME, "brief.example"])?, [OTHER_ADDRESS]);
        Ok((scene.times_asked("brief.example")? == 2).then_some(()))
    })?;
    // Nobody says for how long there is no such name.
    for _ in 0..2 {
        let said = scene.dig(a, &[SAME, "missing.example"])?.stdout;
        assert!(said.contains("status: NXDOMAIN"), "{said}");
    }
    assert_eq!(scene.times_asked("missing.example")?, 2);
    Ok(())
}
