//! Generates the wire types and services from `proto/`, with the attributes that let the local
//! configuration file be read into the same types.

use std::{error::Error, path::Path};

use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MessageOptions,
    field_descriptor_proto::{Label, Type},
};

const PROTO_DIR: &str = "proto";
const PROTO_FILES: [&str; 7] = [
    "workload.proto",
    "authorization.proto",
    "discovery.proto",
    "ca.proto",
    "mesh_config.proto",
    "service_entry.proto",
    "l7.proto",
];

/// Messages written in the configuration file as a mapping of their fields.
const MAPPINGS: [&str; 15] = [
    ".istio.networking.v1alpha3.ServicePort",
    ".istio.security.Authorization",
    ".istio.security.Clause",
    ".istio.security.Match",
    ".istio.security.Rule",
    ".istio.security.ServiceAccountMatch",
    ".istio.workload.ApplicationTunnel",
    ".istio.workload.LoadBalancing",
    ".istio.workload.Locality",
    ".istio.workload.NamespacedHostname",
    ".istio.workload.Port",
    ".istio.workload.PortList",
    ".istio.workload.Service",
    ".istio.workload.WeightedWaypoint",
    ".istio.workload.Workload",
];

/// Enumerations written in the configuration file by name.
const ENUM_FIELDS: [(&str, &str); 12] = [
    (".istio.security.Authorization.action", "security::Action"),
    (".istio.security.Authorization.scope", "security::Scope"),
    (".istio.workload.ApplicationTunnel.protocol", "workload::application_tunnel::Protocol"),
    (".istio.workload.LoadBalancing.health_policy", "workload::load_balancing::HealthPolicy"),
    (".istio.workload.LoadBalancing.mode", "workload::load_balancing::Mode"),
    (".istio.workload.Port.app_protocol", "workload::AppProtocol"),
    (".istio.workload.Service.ip_families", "workload::IpFamilies"),
    (".istio.workload.Service.visibility", "workload::Visibility"),
    (".istio.workload.Workload.network_mode", "workload::NetworkMode"),
    (".istio.workload.Workload.status", "workload::WorkloadStatus"),
    (".istio.workload.Workload.tunnel_protocol", "workload::TunnelProtocol"),
    (".istio.workload.Workload.workload_type", "workload::WorkloadType"),
];

/// Fields with a function of `proto::yaml` that reads their form in the configuration file.
const FIELD_READERS: [(&str, &str); 4] = [
    (".istio.security.StringMatch.match_type.presence", "empty"),
    (".istio.workload.LoadBalancing.routing_preference", "routing_preference"),
    (PORT_NAMES, "port_names"),
    (".istio.workload.Workload.addresses", "addresses"),
];

/// Field of which the configuration file has the one extension that is known, under its name.
const PORT_NAMES: &str = ".istio.workload.Service.extensions";

/// Fields that the configuration file cannot hold.
const SKIPPED_FIELDS: [&str; 3] = [
    ".istio.security.Authorization.extensions",
    ".istio.security.Match.extensions",
    ".istio.workload.Workload.extensions",
];

/// Message that holds what must not be seen in logs; `proto::credential` says how it is shown.
const CONFIDENTIAL: &str = ".fairlead.l7.Credential";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO_DIR}");
    let descriptors = protox::compile(PROTO_FILES, [Path::new(PROTO_DIR)])?;
    let mut config = prost_build::Config::new();
    config.btree_map(["."]).bytes(["."]).skip_debug([CONFIDENTIAL]);
    configure_serde(&mut config);
    refuse_null(&mut config, &descriptors);
    config.service_generator(tonic_prost_build::configure().service_generator());
    config.compile_fds(descriptors)?;
    Ok(())
}

fn configure_serde(config: &mut prost_build::Config) {
    const DERIVE: &str = "#[derive(::serde::Deserialize)]";
    for message in MAPPINGS {
        config.message_attribute(message, DERIVE);
        config.message_attribute(message, "#[serde(default, deny_unknown_fields)]");
    }
    config.message_attribute(".istio.security.StringMatch", DERIVE);
    config.message_attribute(".istio.security.StringMatch", "#[serde(transparent)]");
    config.enum_attribute(".istio.security.StringMatch.match_type", DERIVE);
    config.enum_attribute(
        ".istio.security.StringMatch.match_type",
        "#[serde(rename_all = \"snake_case\")]",
    );
    config.message_attribute(".istio.workload.GatewayAddress", DERIVE);
    config.message_attribute(
        ".istio.workload.GatewayAddress",
        "#[serde(try_from = \"crate::proto::yaml::GatewayAddressFields\")]",
    );
    for (field, name) in ENUM_FIELDS {
        let reader = format!("enumeration::<_, crate::proto::{name}>");
        config.field_attribute(field, deserialize_with(&reader));
    }
    for (field, reader) in FIELD_READERS {
        config.field_attribute(field, deserialize_with(reader));
    }
    config.field_attribute(PORT_NAMES, "#[serde(rename = \"port_names\")]");
    for field in SKIPPED_FIELDS {
        config.field_attribute(field, "#[serde(skip)]");
    }
}

/// Has lists, mappings and messages read by functions that tell null from empty.
fn refuse_null(config: &mut prost_build::Config, descriptors: &FileDescriptorSet) {
    for file in &descriptors.file {
        for message in &file.message_type {
            let path = format!(".{}.{}", file.package(), message.name());
            if !MAPPINGS.contains(&path.as_str()) {
                continue;
            }
            for field in &message.field {
                let field_path = format!("{path}.{}", field.name());
                if let Some(reader) = reader(message, field)
                    && !has_reader(&field_path)
                {
                    config.field_attribute(field_path, deserialize_with(reader));
                }
            }
        }
    }
}

/// Returns the function that reads a field in which null would otherwise be taken for empty.
fn reader(message: &DescriptorProto, field: &FieldDescriptorProto) -> Option<&'static str> {
    let is_map = || {
        let mut entries = message
            .nested_type
            .iter()
            .filter(|nested| nested.options.as_ref().is_some_and(MessageOptions::map_entry));
        entries.any(|entry| field.type_name().ends_with(&format!(".{}", entry.name())))
    };
    match (field.label(), field.r#type()) {
        (Label::Repeated, Type::Message) if is_map() => Some("mapping"),
        (Label::Repeated, _) => Some("list"),
        (Label::Optional | Label::Required, Type::Message) => Some("optional"),
        (Label::Optional | Label::Required, _) => None,
    }
}

/// Returns whether `configure_serde` says how a field is read.
fn has_reader(path: &str) -> bool {
    SKIPPED_FIELDS.contains(&path)
        || FIELD_READERS.into_iter().chain(ENUM_FIELDS).any(|(field, _)| field == path)
}

fn deserialize_with(reader: &str) -> String {
    format!("#[serde(deserialize_with = \"crate::proto::yaml::{reader}\")]")
}
