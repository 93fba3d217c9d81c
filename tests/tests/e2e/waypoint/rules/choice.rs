//! Which endpoint gets a request.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::wait_for;

use super::{
    super::FELT,
    farm::{Answer, Does, Farm, HTTP, OTHER},
};

pub(super) fn one_after_the_other(farm: &mut Farm) -> Result<()> {
    farm.rule("loadBalancer: {simple: ROUND_ROBIN}")?;
    let names = farm.names(10)?;
    ensure!(names.windows(2).all(|two| two[0] != two[1]), "{names:?}");
    Ok(())
}

pub(super) fn the_less_busy_one(farm: &mut Farm) -> Result<()> {
    farm.rule("loadBalancer: {simple: LEAST_REQUEST}")?;
    farm.near.does(Does::Wait);
    let mut held = None;
    wait_for("one waits", FELT, || {
        let (near, far) = (farm.near.asked(), farm.far.asked());
        let socket = farm.ask(HTTP, "/", "")?;
        let is_asked = || (farm.near.asked() > near || farm.far.asked() > far).then_some(());
        wait_for("one is asked", FELT, || Ok(is_asked()))?;
        if farm.near.asked() > near {
            held = Some(socket);
        } else {
            Answer::read(socket)?;
        }
        Ok(held.is_some().then_some(()))
    })?;
    farm.is_all("far")
}

pub(super) fn any(farm: &mut Farm) -> Result<()> {
    farm.rule("loadBalancer: {simple: RANDOM}")?;
    let names = farm.names(60)?;
    let near = names.iter().filter(|name| *name == "near").count();
    ensure!((10..=50).contains(&near), "{near} of 60");
    // By turns there would be none.
    ensure!(names.windows(2).any(|two| two[0] == two[1]), "{names:?}");
    Ok(())
}

/// Checks that keys decide, of which `ask` makes a request.
fn same_for_the_same(ask: impl Fn(usize) -> Result<String>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for key in 0..20 {
        let names = [ask(key)?, ask(key)?, ask(key)?];
        ensure!(names[0] == names[1] && names[1] == names[2], "{key}: {names:?}");
        seen.extend(names);
    }
    ensure!(seen.len() == 2, "{seen:?}");
    Ok(())
}

pub(super) fn the_same_for_the_same_header(farm: &mut Farm) -> Result<()> {
    for table in ["", ", ringHash: {minimumRingSize: 16}", ", maglev: {tableSize: 17}"] {
        let hash = format!("httpHeaderName: X-User{table}");
        farm.rule(&format!("loadBalancer: {{consistentHash: {{{hash}}}}}"))?;
        same_for_the_same(|key| {
            Ok(farm.get_with(HTTP, "/", &format!("x-user: user-{key}\r\n"))?.name().to_owned())
        })
        .context(hash)?;
    }
    Ok(())
}

pub(super) fn the_same_for_the_same_parameter(farm: &mut Farm) -> Result<()> {
    farm.rule("loadBalancer: {consistentHash: {httpQueryParameterName: user}}")?;
    same_for_the_same(|key| Ok(farm.get(&format!("/?user=user-{key}"))?.name().to_owned()))
}

pub(super) fn the_same_for_the_cookie_that_was_made(farm: &mut Farm) -> Result<()> {
    let cookie = "name: farm, path: /, ttl: 60s, attributes: [{name: SameSite, value: Lax}]";
    farm.rule(&format!("loadBalancer: {{consistentHash: {{httpCookie: {{{cookie}}}}}}}"))?;
    for _ in 0..5 {
        let answer = farm.get("/")?;
        let made = answer.header("set-cookie").context("no cookie")?;
        let (pair, attributes) = made.split_once("; ").context("no attributes")?;
        ensure!(attributes == "Max-Age=60; Path=/; SameSite=Lax; HttpOnly", "{made}");
        for _ in 0..5 {
            let again = farm.get_with(HTTP, "/", &format!("cookie: {pair}\r\n"))?;
            ensure!(again.name() == answer.name(), "{pair}: {again:?}");
            ensure!(again.header("set-cookie").is_none(), "{again:?}");
        }
    }
    Ok(())
}

pub(super) fn the_same_for_the_same_client(farm: &mut Farm) -> Result<()> {
    farm.rule("loadBalancer: {consistentHash: {useSourceIp: true}}")?;
    let name = farm.get("/")?.name().to_owned();
    farm.is_all(&name)?;
    // What is no HTTP has no other key.
    for _ in 0..10 {
        let answer = farm.get_with(super::farm::TCP, "/", "")?;
        ensure!(answer.name() == name, "{answer:?} in place of {name}");
    }
    Ok(())
}

pub(super) fn where_the_shares_of_localities_are(farm: &mut Farm) -> Result<()> {
    for (locality, name) in [("home/*", "near"), ("abroad", "far")] {
        let shares = format!("distribute: [{{from: '*', to: {{'{locality}': 100}}}}]");
        farm.rule(&format!("loadBalancer: {{localityLbSetting: {{{shares}}}}}"))?;
        farm.is_all(name)?;
    }
    Ok(())
}

pub(super) fn another_way_for_a_port_and_for_a_subset(farm: &mut Farm) -> Result<()> {
    let to = |place: &str| {
        let shares = format!("distribute: [{{from: '*', to: {{{place}: 100}}}}]");
        format!("loadBalancer: {{localityLbSetting: {{{shares}}}}}")
    };
    let of_port = format!("portLevelSettings: [{{port: {{number: {OTHER}}}, {}}}]", to("abroad"));
    farm.rule(&format!("{}, {of_port}", to("home")))?;
    farm.is_all("near")?;
    for _ in 0..10 {
        ensure!(farm.get_with(OTHER, "/", "")?.name() == "far");
    }
    // What is said of a port is all that is said of it, and a subset says nothing but its labels here.
    let subset = ", subsets: [{name: there, labels: {place: far}}]";
    farm.rule_with("loadBalancer: {simple: RANDOM}", subset, ", subset: there")?;
    farm.is_all("far")
}
