//! [`fairlead_fuzz::waypoint_rules`] for libFuzzer; without it, for the files that are named.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fairlead_fuzz::waypoint_rules(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    fairlead_fuzz::replay_arguments(fairlead_fuzz::waypoint_rules)
}
