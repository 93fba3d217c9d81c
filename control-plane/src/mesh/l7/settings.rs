//! What holds for all requests, whichever waypoint they pass.

use mesh_api::proto::l7::{PathNormalisation, Settings, resource::Kind};

use super::every_waypoint;
use crate::{
    mesh::context::{Context, config_name},
    object::ObjectName,
    resource::Resource,
};

/// Name of the resource.
pub(super) const NAME: &str = "settings";

/// Returns what the mesh configuration `config` says beside what holds anyway.
pub(in crate::mesh) fn settings(context: &Context<'_>, config: &ObjectName) -> Option<Resource> {
    let path_normalisation = context.settings.path_normalisation;
    if *config != config_name(context.options) || path_normalisation == PathNormalisation::Base {
        return None;
    }
    let settings = Settings { path_normalisation: path_normalisation.into() };
    Some(Resource::l7(NAME.to_owned(), Kind::Settings(settings), every_waypoint()))
}
