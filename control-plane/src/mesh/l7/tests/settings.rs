use mesh_api::proto::l7::{PathNormalisation, resource::Kind};

use super::shop;
use crate::{
    fixture::{applied, l7, object},
    mesh::{Event, Mesh},
    resource::Urgency,
};

/// The mesh configuration, in a namespace.
fn config(namespace: &str, text: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio, namespace: {namespace}}}, \
         data: {{mesh: '{text}'}}}}\n"
    )
}

fn told(mesh: &Mesh) -> Option<PathNormalisation> {
    match l7(mesh).remove("settings")? {
        Kind::Settings(settings) => Some(settings.path_normalisation()),
        Kind::Route(_) | Kind::Destination(_) | Kind::Authorization(_) | Kind::Labels(_) => None,
    }
}

#[test]
fn waypoints_are_told_how_paths_are_normalised_unless_it_is_as_usual() {
    for (written, expected) in [
        ("DEFAULT", None),
        ("BASE", None),
        ("NONE", Some(PathNormalisation::None)),
        ("MERGE_SLASHES", Some(PathNormalisation::MergeSlashes)),
        ("DECODE_AND_MERGE_SLASHES", Some(PathNormalisation::DecodeAndMergeSlashes)),
    ] {
        let text = format!("pathNormalization: {{normalization: {written}}}");
        assert_eq!(told(&shop(&config("istio-system", &text))), expected, "{written}");
        // It is no configuration of the mesh elsewhere.
        assert_eq!(told(&shop(&config("shop", &text))), None, "{written}");
    }
    assert_eq!(told(&shop("")), None);
}

#[test]
fn what_is_said_of_paths_is_told_at_once_and_ends_with_the_configuration() {
    let mut mesh = shop("");
    let merge = config("istio-system", "pathNormalization: {normalization: MERGE_SLASHES}");
    let changes = mesh.apply(applied(&merge));
    let change = changes.iter().find(|change| change.name.as_str() == "settings").unwrap();
    assert_eq!(change.urgency, Urgency::Immediate);
    mesh.apply(vec![Event::Deleted(object(&merge).key())]);
    assert_eq!(told(&mesh), None);
}
