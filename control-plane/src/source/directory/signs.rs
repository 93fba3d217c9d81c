//! What is seen of files from outside, and how long to wait until they are whole. Pure.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::event::{
    AccessKind, AccessMode, CreateKind, Event, EventKind, ModifyKind, RemoveKind, RenameMode,
};

use super::files::{self, MAX_FILES};

/// Pause after which files that are whole are read: those that belong together are written within
/// less.
const GATHER_TIME: Duration = Duration::from_millis(5);
/// Pause after which files are read of which nobody says that they are whole: a link is never closed.
const SETTLE_TIME: Duration = Duration::from_millis(20);

/// What was seen of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It has come to be. Who made it may be about to write.
    Created(PathBuf),
    /// It is written to, and will be closed.
    Written(PathBuf),
    /// It was closed or put in its place as a whole, or it is gone.
    Complete(PathBuf),
    /// Something else of it is different than what it holds, such as who may read it.
    Attributes,
    /// Something happened that does not say more.
    Unclear,
}

/// Files that may not be whole.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    files: HashMap<PathBuf, Progress>,
    is_unclear: bool,
}

/// How far the writing of a file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Created,
    Written,
}

// === impl Sign ===

impl Sign {
    /// Returns what an event says; nothing if no file is different from before.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let sign: fn(PathBuf) -> Self = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::From | RenameMode::To))
            | EventKind::Remove(
                RemoveKind::Any | RemoveKind::File | RemoveKind::Folder | RemoveKind::Other,
            ) => Self::Complete,
            EventKind::Create(CreateKind::File) => Self::Created,
            EventKind::Modify(ModifyKind::Data(_)) => Self::Written,
            EventKind::Modify(ModifyKind::Metadata(_)) => return Some(Self::Attributes),
            // Both names were told of before.
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
                return None;
            }
            // A folder is watched from the time of its event: what is in it may not be told of.
            EventKind::Create(CreateKind::Any | CreateKind::Folder | CreateKind::Other)
            | EventKind::Modify(
                ModifyKind::Any
                | ModifyKind::Name(RenameMode::Any | RenameMode::Other)
                | ModifyKind::Other,
            )
            | EventKind::Any
            | EventKind::Other => return Some(Self::Unclear),
        };
        Some(event.paths.first().cloned().map_or(Self::Unclear, sign))
    }
}

// === impl Unfinished ===

impl Unfinished {
    /// Takes note of a sign.
    pub(super) fn note(&mut self, sign: Sign) {
        match sign {
            Sign::Created(path) => self.insert(path, Progress::Created),
            Sign::Written(path) => self.insert(path, Progress::Written),
            Sign::Complete(path) => drop(self.files.remove(&path)),
            Sign::Attributes => {}
            Sign::Unclear => self.is_unclear = true,
        }
    }

    /// Returns how long it has to be quiet before the files are read; none if somebody is still
    /// writing, whose next word is waited for.
    pub(super) fn pause(&self) -> Option<Duration> {
        if self.files.values().any(|progress| *progress == Progress::Written) {
            None
        } else if self.is_unclear || !self.files.is_empty() {
            Some(SETTLE_TIME)
        } else {
            Some(GATHER_TIME)
        }
    }

    fn insert(&mut self, path: PathBuf, progress: Progress) {
        // Others are not read, and editors keep some of them open.
        if is_read(&path) && self.files.len() < MAX_FILES {
            self.files.insert(path, progress);
        }
    }
}

/// Returns whether the file at a path is read, by its name.
fn is_read(path: &Path) -> bool {
    path.file_name().is_some_and(|name| !files::is_hidden(name)) && files::has_extension(path)
}

#[cfg(test)]
mod tests {
    use notify::event::{DataChange, MetadataKind};

    use super::*;

    const CREATED: EventKind = EventKind::Create(CreateKind::File);
    const WRITTEN: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const READ: EventKind = EventKind::Access(AccessKind::Open(AccessMode::Any));
    const FROM: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::From));
    const TO: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::To));
    const GONE: EventKind = EventKind::Remove(RemoveKind::File);
    const FOLDER: EventKind = EventKind::Create(CreateKind::Folder);
    const TOUCHED: EventKind = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));

    /// What was seen, and the pause that follows.
    type Case = (&'static [(EventKind, &'static str)], Option<Duration>);

    #[test]
    fn files_that_are_whole_are_read_soon_and_those_that_are_written_are_waited_for() {
        let (gather, settle) = (Some(GATHER_TIME), Some(SETTLE_TIME));
        let cases: [Case; 15] = [
            (&[(CREATED, "a.yaml"), (WRITTEN, "a.yaml"), (CLOSED, "a.yaml")], gather),
            (&[(CREATED, "a.yaml"), (WRITTEN, "a.yaml")], None),
            // Cut to nothing before it is written anew.
            (&[(WRITTEN, "a.yaml")], None),
            (&[(WRITTEN, "a.yaml"), (WRITTEN, "b.json"), (CLOSED, "a.yaml")], None),
            (&[(WRITTEN, "a.yaml"), (CLOSED, "a.yaml"), (WRITTEN, "a.yaml")], None),
            (&[(WRITTEN, "a.yaml"), (GONE, "a.yaml")], gather),
            (&[(WRITTEN, "a.yaml"), (FROM, "a.yaml"), (TO, "b.yaml")], gather),
            // A link.
            (&[(CREATED, "a.yaml")], settle),
            // An editor keeps its own file open.
            (&[(CREATED, ".a.yaml.swp"), (WRITTEN, ".a.yaml.swp"), (TO, "a.yaml")], gather),
            (&[(CREATED, ".a.yaml"), (WRITTEN, ".a.yaml"), (TO, "a.yaml")], gather),
            (&[(CREATED, "..data_tmp"), (FROM, "..data_tmp"), (TO, "..data")], gather),
            (&[(FOLDER, "folder"), (TO, "a.yaml")], settle),
            (&[(TOUCHED, "a.yaml")], gather),
            (&[(WRITTEN, "a.yaml"), (TOUCHED, "a.yaml")], None),
            (&[(EventKind::Other, "")], settle),
        ];
        for (events, expected) in cases {
            let mut unfinished = Unfinished::default();
            for (kind, path) in events {
                let event = Event::new(*kind).add_path(path.into());
                unfinished.note(Sign::of(&event).unwrap());
            }
            assert_eq!(unfinished.pause(), expected, "{events:?}");
        }
    }

    #[test]
    fn what_changes_no_file_is_no_sign() {
        let both = EventKind::Modify(ModifyKind::Name(RenameMode::Both));
        for kind in [READ, both] {
            assert_eq!(Sign::of(&Event::new(kind).add_path("a.yaml".into())), None, "{kind:?}");
        }
        // Events were lost.
        assert_eq!(Sign::of(&Event::new(EventKind::Other)), Some(Sign::Unclear));
        assert_eq!(Sign::of(&Event::new(WRITTEN)), Some(Sign::Unclear));
    }
}
