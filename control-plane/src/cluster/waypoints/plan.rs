//! What is to be written so that every gateway has its waypoint: pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use kube::{api::DynamicObject, runtime::watcher};
use serde_json::{Value, json};

use super::{
    class::Class,
    gateway::{Gateway, Refusal},
    manifest::{Part, Settings, has},
    parameters::{Layers, Parameters, defaults},
    status::{Standing, amended_status},
};
use crate::{cluster::followed::Followed, mesh::WAYPOINT_CLASS, object::ObjectName};

/// What to do about a name that is taken.
const RENAME: &str = "give this gateway's another name (annotation gateway.istio.io/name-override)";

/// What happened to objects.
#[derive(Debug)]
pub(super) enum Event {
    /// To the class of the waypoints: whether it is served here.
    Class(watcher::Event<(String, Class)>),
    /// To a gateway; none if it is of another class.
    Gateway(watcher::Event<(ObjectName, Option<Box<Gateway>>)>),
    /// To a config map by which one may be made.
    Parameters(watcher::Event<(ObjectName, Parameters)>),
    /// To what may have been made for one.
    Part(Part, watcher::Event<(ObjectName, Made)>),
}

/// Something that was made for a gateway.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Made {
    pub(super) version: Box<str>,
    pub(super) object: Value,
}

/// A write that is due.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Write {
    /// Make the class.
    Class,
    /// Say that the class is served, by this patch.
    ClassStatus(Value),
    /// Make a part of a gateway's waypoint, or put it right.
    Part {
        gateway: ObjectName,
        /// Unique id of the gateway.
        owner: String,
        part: Part,
        object: Value,
        /// Whether there is one that is of the gateway.
        is_there: bool,
    },
    /// Remove a part of a gateway's waypoint that is not wanted any more, the one with this unique id.
    Remove { gateway: ObjectName, part: Part, name: ObjectName, uid: String },
    /// Say what became of a gateway.
    Status { gateway: ObjectName, version: Box<str>, status: Value },
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is done; a part is at this version now.
    Done(Box<str>),
    /// There is an object of that name which was not made here.
    Foreign,
    /// Somebody else was faster: events say what is to be done.
    Overtaken,
    /// It may not be done, for a reason that is to be said.
    Refused(String),
    /// It may be done later.
    Failed,
}

/// Identifies a part of a gateway's waypoint.
type PartKey = (ObjectName, Part);

/// All gateways, and what there is of their waypoints.
#[derive(Debug)]
pub(super) struct Plan {
    settings: Settings,
    class: Followed<String, Class>,
    gateways: Followed<ObjectName, Option<Box<Gateway>>>,
    parameters: Followed<ObjectName, Parameters>,
    /// The config map for all gateways of the class.
    defaults: Option<ObjectName>,
    parts: BTreeMap<Part, Followed<ObjectName, Made>>,
    /// Gateways to look at.
    touched: BTreeSet<ObjectName>,
    /// Config maps by which gateways to look at may be made.
    touched_parameters: BTreeSet<ObjectName>,
    /// Names of what may have been made for gateways to look at.
    touched_parts: BTreeSet<ObjectName>,
    class_touched: bool,
    /// What was written last, and the version that it became.
    applied: BTreeMap<PartKey, (Value, Box<str>)>,
    /// Why a part cannot be made.
    problems: BTreeMap<PartKey, String>,
    /// Versions of gateways whose status was written.
    told: BTreeMap<ObjectName, Box<str>>,
    failed: BTreeSet<ObjectName>,
    class_failed: bool,
}

// === impl Write ===

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class => write!(f, "GatewayClass {WAYPOINT_CLASS}"),
            Self::ClassStatus(_) => write!(f, "status of GatewayClass {WAYPOINT_CLASS}"),
            Self::Part { gateway, part, .. } => write!(f, "{} of Gateway {gateway}", part.kind()),
            Self::Remove { gateway, part, .. } => {
                write!(f, "{} of Gateway {gateway}, not wanted any more", part.kind())
            }
            Self::Status { gateway, .. } => write!(f, "status of Gateway {gateway}"),
        }
    }
}

// === impl Plan ===

impl Plan {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            class: Followed::default(),
            gateways: Followed::default(),
            parameters: Followed::default(),
            defaults: None,
            parts: Part::ALL.map(|part| (part, Followed::default())).into(),
            touched: BTreeSet::new(),
            touched_parameters: BTreeSet::new(),
            touched_parts: BTreeSet::new(),
            class_touched: false,
            applied: BTreeMap::new(),
            problems: BTreeMap::new(),
            told: BTreeMap::new(),
            failed: BTreeSet::new(),
            class_failed: false,
        }
    }

    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Class(event) => {
                let served = self.serves();
                self.class.take(event, &mut BTreeSet::new());
                self.class_touched = true;
                if self.serves() != served {
                    self.touched.extend(self.gateways.names().cloned());
                }
            }
            Event::Gateway(event) => {
                self.gateways.take(event, &mut self.touched);
            }
            Event::Parameters(event) => {
                if let watcher::Event::Apply((name, parameters)) = &event
                    && self.parameters.get(name) == Some(parameters)
                {
                    return;
                }
                self.parameters.take(event, &mut self.touched_parameters);
            }
            Event::Part(part, event) => {
                if matches!(event, watcher::Event::InitDone) {
                    // What was written a moment ago may be gone without ever having been seen.
                    self.touched.extend(self.gateways.names().cloned());
                }
                if let Some(parts) = self.parts.get_mut(&part) {
                    parts.take(event, &mut self.touched_parts);
                }
            }
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.class_failed || !self.failed.is_empty()
    }

    /// Looks again at what has failed.
    pub(super) fn retry(&mut self) {
        self.class_touched |= std::mem::take(&mut self.class_failed);
        self.touched.append(&mut self.failed);
    }

    /// Returns what is to be written of what has been touched; nothing before everything is known.
    pub(super) fn due(&mut self, now: &str) -> Vec<Write> {
        let complete = self.class.is_complete()
            && self.gateways.is_complete()
            && self.parameters.is_complete()
            && self.parts.values().all(Followed::is_complete);
        if !complete {
            return Vec::new();
        }
        self.touch_users();
        self.touch_makers();
        let mut due = Vec::new();
        if std::mem::take(&mut self.class_touched) {
            due.extend(self.class_write(now));
        }
        for name in std::mem::take(&mut self.touched) {
            self.writes_of(&name, now, &mut due);
        }
        due
    }

    /// Sets down what became of a write.
    pub(super) fn done(&mut self, write: Write, outcome: Outcome) {
        let is_to_repeat = match outcome {
            Outcome::Done(_) | Outcome::Overtaken => false,
            Outcome::Foreign | Outcome::Refused(_) | Outcome::Failed => true,
        };
        match write {
            Write::Class | Write::ClassStatus(_) => self.class_failed |= is_to_repeat,
            Write::Remove { gateway, .. } if is_to_repeat => drop(self.failed.insert(gateway)),
            Write::Remove { .. } => {}
            Write::Status { gateway, .. } if is_to_repeat => drop(self.failed.insert(gateway)),
            Write::Status { gateway, version, .. } => drop(self.told.insert(gateway, version)),
            Write::Part { gateway, part, object, .. } => {
                if is_to_repeat {
                    self.failed.insert(gateway.clone());
                }
                self.part_done((gateway, part), object, outcome);
            }
        }
    }

    /// Returns the gateways of the class.
    fn known_gateways(&self) -> impl Iterator<Item = &Gateway> {
        self.gateways.values().filter_map(Option::as_deref)
    }

    /// Looks at the gateways that are made by config maps which may be different from before.
    fn touch_users(&mut self) {
        let maps = std::mem::take(&mut self.touched_parameters);
        if maps.is_empty() {
            return;
        }
        let former = self.defaults.take();
        self.defaults = defaults(&self.parameters, &self.settings.root_namespace);
        let is_for_all = self.defaults != former
            || self.defaults.as_ref().is_some_and(|defaults| maps.contains(defaults));
        let is_touched = |gateway: &&Gateway| {
            is_for_all || gateway.parameters().is_some_and(|map| maps.contains(&map))
        };
        let gateways = self.known_gateways().filter(is_touched);
        let names: Vec<_> = gateways.map(|gateway| gateway.name.clone()).collect();
        self.touched.extend(names);
    }

    /// Looks at the gateways of parts that may be different from before.
    fn touch_makers(&mut self) {
        let parts = std::mem::take(&mut self.touched_parts);
        if parts.is_empty() {
            return;
        }
        let is_touched = |gateway: &&Gateway| {
            Part::ALL.into_iter().any(|part| parts.contains(&part.name(gateway)))
        };
        let gateways = self.known_gateways().filter(is_touched);
        let names: Vec<_> = gateways.map(|gateway| gateway.name.clone()).collect();
        self.touched.extend(names);
    }

    fn part_done(&mut self, key: PartKey, object: Value, outcome: Outcome) {
        let problem = match outcome {
            Outcome::Failed => return,
            Outcome::Overtaken => None,
            Outcome::Refused(problem) => Some(problem),
            // Whoever made the account wants it to be used.
            Outcome::Foreign if key.1 == Part::ServiceAccount => None,
            Outcome::Foreign => Some(format!(
                "there is a {} {} that was not made for this gateway: remove it, or {RENAME}",
                key.1.kind(),
                object["metadata"]["name"].as_str().unwrap_or_default()
            )),
            Outcome::Done(version) => {
                self.applied.insert(key.clone(), (object, version));
                None
            }
        };
        let before = match &problem {
            Some(problem) => self.problems.insert(key.clone(), problem.clone()),
            None => self.problems.remove(&key),
        };
        if before != problem {
            // Its status is to say so.
            self.touched.insert(key.0);
        }
    }

    /// Returns whether gateways of the class are served here.
    fn serves(&self) -> bool {
        self.class().is_some_and(|class| class.is_ours)
    }

    fn class(&self) -> Option<&Class> {
        self.class.names().next().and_then(|name| self.class.get(name))
    }

    fn class_write(&self, now: &str) -> Option<Write> {
        let Some(class) = self.class() else { return Some(Write::Class) };
        if class.is_ours { class.accepted(now).map(Write::ClassStatus) } else { None }
    }

    fn writes_of(&mut self, name: &ObjectName, now: &str, due: &mut Vec<Write>) {
        let gateway = self.gateways.get(name).and_then(Option::as_ref);
        let Some(gateway) = gateway.filter(|gateway| !gateway.is_deleting && self.serves()) else {
            self.applied.retain(|(gateway, _), _| gateway != name);
            self.problems.retain(|(gateway, _), _| gateway != name);
            self.told.remove(name);
            return;
        };
        // What there is stays as it is while nothing can be made as the gateway says.
        let refusal = match self.wanted(gateway) {
            Ok(parts) => {
                for (part, object) in parts {
                    if let Some(object) = object {
                        due.extend(self.part_write(gateway, part, object));
                    } else {
                        due.extend(self.removal(gateway, part));
                        self.problems.remove(&(name.clone(), part));
                    }
                }
                None
            }
            Err(refusal) => Some(refusal),
        };
        let standing = self.standing(gateway, refusal);
        if self.told.get(name) != Some(&gateway.version)
            && let Some(status) = amended_status(gateway, &standing, now)
        {
            let (gateway, version) = (name.clone(), gateway.version.clone());
            due.push(Write::Status { gateway, version, status });
        }
    }

    /// Returns each part as it has to be; none if it has not to be.
    fn wanted(&self, gateway: &Gateway) -> Result<Vec<(Part, Option<Value>)>, Refusal> {
        if let Some(refusal) = gateway.refusal() {
            return Err(refusal);
        }
        let layers = Layers::of(gateway, &self.parameters, self.defaults.as_ref())?;
        let made = |part| Ok((part, layers.made(part, gateway, &self.settings)?));
        Part::ALL.into_iter().map(made).collect()
    }

    /// Returns the write by which a part goes, if it is there.
    fn removal(&self, gateway: &Gateway, part: Part) -> Option<Write> {
        let object = &self.present(gateway, part)?.object;
        let uid = object["metadata"]["uid"].as_str()?.to_owned();
        let is_own = owner(object) == Some(&gateway.uid);
        let (gateway, name) = (gateway.name.clone(), part.name(gateway));
        is_own.then_some(Write::Remove { gateway, part, name, uid })
    }

    fn part_write(&self, gateway: &Gateway, part: Part, object: Value) -> Option<Write> {
        let present = self.present(gateway, part);
        let is_there = match present {
            None => false,
            // It goes with its own gateway, and is made anew then.
            Some(made) if owner(&made.object).is_some_and(|owner| owner != gateway.uid) => {
                return None;
            }
            Some(made) => {
                let applied = self.applied.get(&(gateway.name.clone(), part));
                if let Some((wanted, version)) = applied
                    && *wanted == object
                    && (has(&made.object, &object) || *version == made.version)
                {
                    return None;
                }
                true
            }
        };
        let (gateway, owner) = (gateway.name.clone(), gateway.uid.clone());
        Some(Write::Part { gateway, owner, part, object, is_there })
    }

    fn present(&self, gateway: &Gateway, part: Part) -> Option<&Made> {
        self.parts.get(&part)?.get(&part.name(gateway))
    }

    /// Returns what is the matter with a part that was made for another gateway.
    fn conflict(&self, gateway: &Gateway, part: Part) -> Option<String> {
        let owner = owner(&self.present(gateway, part)?.object).filter(|o| *o != gateway.uid)?;
        let other = self.known_gateways().find(|other| other.uid == owner)?;
        let (kind, name, other) = (part.kind(), part.name(gateway).name, &other.name.name);
        Some(format!("the {kind} {name} is that of Gateway {other}: {RENAME}"))
    }

    fn standing(&self, gateway: &Gateway, refusal: Option<Refusal>) -> Standing {
        let of = |part| {
            let made = self.present(gateway, part);
            made.map(|made| &made.object).filter(|o| owner(o) == Some(&gateway.uid))
        };
        let ready = of(Part::Deployment).map(|object| &object["status"]["readyReplicas"]);
        let problem = Part::ALL
            .into_iter()
            .find_map(|part| self.problems.get(&(gateway.name.clone(), part)).cloned())
            .or_else(|| self.conflict(gateway, Part::Service))
            .or_else(|| self.conflict(gateway, Part::Deployment));
        let ObjectName { namespace, name } = Part::Service.name(gateway);
        Standing {
            host: format!("{name}.{namespace}.svc.{}", self.settings.domain),
            addresses: of(Part::Service).and_then(cluster_addresses),
            is_ready: ready.and_then(Value::as_u64).is_some_and(|ready| ready > 0),
            refusal,
            problem,
        }
    }
}

/// Returns the unique id of the gateway that an object is of, if it is of one.
pub(super) fn owner(object: &Value) -> Option<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["kind"] == "Gateway")?;
    owner["uid"].as_str()
}

/// Returns the addresses of a service; none before it has any.
fn cluster_addresses(service: &Value) -> Option<Vec<String>> {
    let spec = &service["spec"];
    let listed = spec["clusterIPs"].as_array().cloned();
    let listed = listed.unwrap_or_else(|| vec![spec["clusterIP"].clone()]);
    let ips: Vec<String> = listed
        .iter()
        .filter_map(Value::as_str)
        .filter(|ip| !ip.is_empty() && *ip != "None")
        .map(str::to_owned)
        .collect();
    (!ips.is_empty()).then_some(ips)
}

/// Returns an object as it was made.
pub(super) fn read_made(object: DynamicObject) -> (ObjectName, Made) {
    let mut value = object.data;
    value["metadata"] = json!(object.metadata);
    let version = object.metadata.resource_version.unwrap_or_default().into();
    let namespace = object.metadata.namespace.unwrap_or_default();
    let name = ObjectName::new(namespace, object.metadata.name.unwrap_or_default());
    (name, Made { version, object: value })
}

#[cfg(test)]
mod tests;
