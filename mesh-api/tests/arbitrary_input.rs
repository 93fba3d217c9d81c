//! No text makes a parser panic.
#![forbid(unsafe_code)]

use mesh_api::{config::LocalConfig, identity::Identity};
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../examples/local-config.yaml");

/// Pieces that have a meaning in YAML or in the configuration.
const PIECES: [&str; 20] = [
    "workloads:",
    "policies:",
    "  - ",
    "\n",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "&a ",
    "*a",
    "<<: ",
    "!!binary ",
    "|\n",
    "\"",
    "'",
    "---\n",
    "10.0.0.0/8",
    "presence: {}",
    "\u{feff}",
];

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_text_is_an_identity_or_an_error(text in any::<String>()) {
        if let Ok(identity) = text.parse::<Identity>() {
            prop_assert_eq!(identity.to_string(), text);
        }
    }

    #[test]
    fn a_text_close_to_an_identity_round_trips_or_is_an_error(
        text in "spiffe://[a-zA-Z0-9._-]{0,6}/(ns|n)/[a-zA-Z0-9._%-]{0,6}/sa/[a-z./]{0,6}",
    ) {
        if let Ok(identity) = text.parse::<Identity>() {
            prop_assert_eq!(identity.to_string(), text);
        }
    }

    #[test]
    fn any_text_is_a_configuration_or_an_error(text in any::<String>()) {
        drop(LocalConfig::parse(&text));
    }

    #[test]
    fn any_pieces_of_yaml_are_a_configuration_or_an_error(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40),
    ) {
        drop(LocalConfig::parse(&pieces.concat()));
    }

    #[test]
    fn the_example_with_a_change_anywhere_is_a_configuration_or_an_error(
        start in any::<prop::sample::Index>(),
        length in 0..20_usize,
        insert in prop::sample::select(&PIECES[..]),
    ) {
        let characters: Vec<char> = EXAMPLE.chars().collect();
        let start = start.index(characters.len());
        let end = (start + length).min(characters.len());
        let head = characters[..start].iter();
        let text: String = head.copied().chain(insert.chars()).chain(characters[end..].iter().copied()).collect();
        drop(LocalConfig::parse(&text));
    }
}
