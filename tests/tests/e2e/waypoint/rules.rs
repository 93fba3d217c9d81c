//! Destination rules, field by field: two endpoints, of which one is near and one is far as rules see it.

mod choice;
mod farm;
mod health;
mod limits;

use anyhow::{Context as _, Result};

use self::farm::Farm;

/// Does one thing after another in the same mesh.
macro_rules! each {
    ($on:expr, $($thing:path),+ $(,)?) => {
        $($thing($on).context(stringify!($thing))?;)+
    };
}

#[test]
fn endpoints_are_chosen_as_a_rule_says() -> Result<()> {
    let farm = &mut Farm::new("rulechoice")?;
    each!(
        farm,
        choice::one_after_the_other,
        choice::the_less_busy_one,
        choice::any,
        choice::the_same_for_the_same_header,
        choice::the_same_for_the_same_parameter,
        choice::the_same_for_the_cookie_that_was_made,
        choice::the_same_for_the_same_client,
        choice::where_the_shares_of_localities_are,
        choice::another_way_for_a_port_and_for_a_subset,
    );
    Ok(())
}

#[test]
fn endpoints_that_fail_are_avoided_as_a_rule_says() -> Result<()> {
    let farm = &mut Farm::new("rulehealth")?;
    each!(
        farm,
        health::preferred_ones_until_they_fail_and_again_after_their_time,
        health::for_the_statuses_that_are_listed,
        health::for_what_gateways_answer,
        health::for_want_of_an_answer_where_that_counts_on_its_own,
        health::until_none_is_left_or_too_few_are,
    );
    Ok(())
}

#[test]
fn there_are_no_more_requests_and_connections_than_a_rule_says() -> Result<()> {
    let farm = &mut Farm::new("rulelimits")?;
    each!(
        farm,
        limits::requests_at_once,
        limits::requests_that_wait_for_a_connection_to_be_made,
        limits::time_of_a_connection_that_is_no_http,
    );
    Ok(())
}
