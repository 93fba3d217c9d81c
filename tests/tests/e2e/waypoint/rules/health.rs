//! Endpoints that fail.

use anyhow::{Result, ensure};
use fairlead_lab::wait_for;

use super::{
    super::FELT,
    farm::{Does, Farm},
};

/// Prefers the near endpoint as long as it does not fail.
const NEAR_FIRST: &str = "loadBalancer: {localityLbSetting: {failoverPriority: ['place=near']}}";

/// Has endpoints be avoided for what these fields of `outlierDetection` say, whatever their share, and for
/// longer than a test lasts.
fn avoid(farm: &mut Farm, fields: &str) -> Result<()> {
    // Without detection what was done is forgiven.
    farm.rule(NEAR_FIRST)?;
    let always = "interval: 1s, baseEjectionTime: 300s, maxEjectionPercent: 100";
    farm.rule(&format!("{NEAR_FIRST}, outlierDetection: {{{always}, {fields}}}"))
}

pub(super) fn preferred_ones_until_they_fail_and_again_after_their_time(
    farm: &mut Farm,
) -> Result<()> {
    let fails = "consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 1s";
    farm.rule(&format!("{NEAR_FIRST}, outlierDetection: {{{fails}, maxEjectionPercent: 50}}"))?;
    farm.is_all("near")?;
    farm.near.does(Does::Answer(500));
    for _ in 0..3 {
        ensure!(farm.get("/")?.status() == "500");
    }
    ensure!(farm.get("/")?.name() == "far");
    farm.near.does(Does::Answer(200));
    farm.wait_for("near")?;
    farm.is_all("near")
}

pub(super) fn for_the_statuses_that_are_listed(farm: &mut Farm) -> Result<()> {
    let codes = "consecutive5xxErrors: 1, outlierDetectionHttpErrorCodes: [418]";
    avoid(farm, codes)?;
    farm.near.does(Does::Answer(500));
    farm.is_all("near")?;
    farm.near.does(Does::Answer(418));
    ensure!(farm.get("/")?.status() == "418");
    farm.is_all("far")
}

pub(super) fn for_what_gateways_answer(farm: &mut Farm) -> Result<()> {
    avoid(farm, "consecutive5xxErrors: 0, consecutiveGatewayErrors: 2")?;
    farm.near.does(Does::Answer(500));
    farm.is_all("near")?;
    farm.near.does(Does::Answer(503));
    for _ in 0..2 {
        ensure!(farm.get("/")?.status() == "503");
    }
    farm.is_all("far")
}

pub(super) fn for_want_of_an_answer_where_that_counts_on_its_own(farm: &mut Farm) -> Result<()> {
    let split = "splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2";
    avoid(farm, &format!("consecutive5xxErrors: 0, {split}"))?;
    farm.near.does(Does::Answer(503));
    farm.is_all("near")?;
    farm.near.does(Does::Close);
    for _ in 0..2 {
        let answer = farm.get("/")?;
        ensure!(answer.status() == "503" && answer.name().contains("reset reason"), "{answer:?}");
    }
    farm.is_all("far")
}

pub(super) fn until_none_is_left_or_too_few_are(farm: &mut Farm) -> Result<()> {
    for (least, expected) in [("", "no healthy upstream"), (", minHealthPercent: 50", "near")] {
        avoid(farm, &format!("consecutive5xxErrors: 1{least}"))?;
        farm.near.does(Does::Answer(503));
        farm.far.does(Does::Answer(503));
        let mut last = None;
        let found = wait_for(expected, FELT, || {
            let answer = farm.get("/")?;
            let found = answer.status() == "503" && answer.name() == expected;
            last = Some(answer);
            Ok(found.then_some(()))
        });
        found.map_err(|error| error.context(format!("the last was {last:?}")))?;
    }
    Ok(())
}
