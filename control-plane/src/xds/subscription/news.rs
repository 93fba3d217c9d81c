//! What a client is told next: removals, then what it has to catch up with, then what changed since.

use std::{collections::HashSet, sync::Arc};

use super::{Refusal, Subscription};
use crate::{
    resource::{Kind, ResourceName},
    xds::{
        frame,
        resource_type::ResourceType,
        store::{Collection, Entry, Position, Slot},
    },
};

/// What to tell the client next.
#[derive(Debug, Default)]
pub struct News {
    /// Identifies the response.
    pub nonce: String,
    /// Resources that are new to the client, or different.
    pub entries: Vec<Arc<Entry>>,
    /// Names of what is gone, or does not exist.
    pub removed: Vec<Box<str>>,
    /// Whether more of the same news follows.
    pub incomplete: bool,
}

enum Item {
    Entry(Position, Arc<Entry>),
    Removed(Box<str>),
}

// === impl Subscription ===

impl Subscription {
    /// Returns the next response, of at most `limit` bytes of resources or one of them.
    pub fn next(&mut self, collection: &Collection, limit: usize) -> Result<Option<News>, Refusal> {
        if self.in_flight.is_some() {
            return Ok(None);
        }
        if self.cursor.max(self.removals_from) < collection.horizon() {
            return Err(Refusal::TooFarBehind);
        }
        let mut news = News::default();
        let mut deferred = Vec::new();
        let mut bytes = 0;
        while let Some(item) = self.next_item(collection, &mut deferred) {
            bytes += item.wire_len(self.scope.resource_type);
            if bytes > limit && !news.is_empty() {
                self.put_back(item);
                news.incomplete = true;
                break;
            }
            match item {
                Item::Entry(_, entry) => {
                    self.hold(&entry, collection);
                    news.entries.push(entry);
                }
                Item::Removed(name) => news.removed.push(name),
            }
        }
        self.settle_deferred(deferred, &mut news, collection);
        if news.is_empty() && !self.owes_answer {
            return Ok(None);
        }
        // What follows may have been undone by then; the client waits for it all the same.
        self.owes_answer = news.incomplete;
        self.progress.sent += 1;
        news.nonce = format!("{:08x}-{}", self.stream, self.progress.sent);
        self.in_flight = Some(news.nonce.clone());
        Ok(Some(news))
    }

    /// Takes note that the client holds `entry` from now on.
    fn hold(&mut self, entry: &Entry, collection: &Collection) {
        let resource = entry.resource();
        if self.everything || !self.held.insert(resource.name.clone()) {
            return;
        }
        if resource.kind == Kind::Service {
            self.want_endpoints(&resource.name, collection);
        }
    }

    /// Returns the next thing to tell. Removals that a resource has overtaken go to `deferred`.
    fn next_item(&mut self, collection: &Collection, deferred: &mut Vec<Box<str>>) -> Option<Item> {
        while let Some(name) = self.removed.pop_front() {
            if !collection.find(&name).any(|(_, entry)| self.wants(entry)) {
                return Some(Item::Removed(name));
            }
            // It has come into being since, and is found below.
            deferred.push(name);
        }
        while let Some(position) = self.catch_up.pop_first() {
            // What changed since is behind the cursor.
            if let Some(entry) = collection.at(position)
                && self.wants(entry)
            {
                return Some(Item::Entry(position, Arc::clone(entry)));
            }
        }
        while let Some((position, slot)) = collection.after(self.cursor).next() {
            self.cursor = position;
            match slot {
                Slot::Live(entry) if self.wants(entry) => {
                    return Some(Item::Entry(position, Arc::clone(entry)));
                }
                // It is for others than before.
                Slot::Live(entry) if self.held.remove(&entry.resource().name) => {
                    return Some(Item::Removed(entry.resource().name.as_str().into()));
                }
                Slot::Gone(name, kind) if self.loses(position, name, *kind) => {
                    return Some(Item::Removed(name.as_str().into()));
                }
                Slot::Live(_) | Slot::Gone(..) => {}
            }
        }
        None
    }

    fn loses(&mut self, position: Position, name: &ResourceName, kind: Kind) -> bool {
        if self.everything {
            position > self.removals_from && self.scope.has(kind)
        } else {
            self.held.remove(name)
        }
    }

    /// Deals with removals that no resource of this response stands for: what overtook them is yet
    /// to come, or has ceased to concern the client meanwhile.
    fn settle_deferred(
        &mut self,
        mut deferred: Vec<Box<str>>,
        news: &mut News,
        collection: &Collection,
    ) {
        if deferred.is_empty() {
            return;
        }
        let resources = news.entries.iter().map(|entry| entry.resource());
        let answered: HashSet<&str> = resources
            .flat_map(|r| r.aliases.iter().map(|alias| &**alias).chain([r.name.as_str()]))
            .collect();
        deferred.retain(|name| !answered.contains(&**name));
        for name in deferred {
            let wanted = collection.find(&name).any(|(_, entry)| self.wants(entry));
            if wanted || news.incomplete {
                self.removed.push_back(name);
            } else {
                news.removed.push(name);
            }
        }
    }

    fn put_back(&mut self, item: Item) {
        match item {
            Item::Entry(position, _) => drop(self.catch_up.insert(position)),
            Item::Removed(name) => self.removed.push_front(name),
        }
    }
}

// === impl News ===

impl News {
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.removed.is_empty()
    }
}

// === impl Item ===

impl Item {
    fn wire_len(&self, resource_type: ResourceType) -> usize {
        match self {
            Self::Entry(_, entry) => entry.wire_len(resource_type),
            Self::Removed(name) => frame::removed_len(name),
        }
    }
}
