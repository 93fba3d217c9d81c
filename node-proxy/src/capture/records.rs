//! What is on disk of pods, so that a restarted node finds them again.

use std::{
    fs, io,
    marker::PhantomData,
    net::IpAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::routing::Sysctls;
use crate::{
    api::{Origin, PodKey, PodSpec},
    link::message::PodId,
};

/// Longest record that is read, in bytes; what this program writes is far shorter.
const MAX_RECORD_BYTES: u64 = 64 << 10;

/// Directory of the enrolments, in the run directory.
pub(super) const ENROLMENTS: &str = "pods";

/// What is remembered of a pod.
pub(super) trait Keyed: Serialize + DeserializeOwned {
    /// Returns the pod.
    fn key(&self) -> PodKey;
}

/// What is remembered of an enrolment.
///
/// Read by the next release too: fields may be added with a default.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) spec: PodSpec,
    #[serde(default)]
    pub(super) origin: Origin,
    /// Where the namespace was found, if the specification does not say where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) found_at: Option<PathBuf>,
    /// Cookie of the namespace: a path may lead to another one after a restart.
    pub(super) netns_cookie: u64,
    /// See [`PodId::enrolment`].
    #[serde(default)]
    pub(super) enrolment: u64,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) sysctls: Sysctls,
    /// Whether the pod was released and only its routing is left.
    pub(super) draining: bool,
}

/// What a directory of records holds.
#[derive(Debug)]
pub(super) struct OnDisk<T> {
    pub(super) records: Vec<T>,
    pub(super) unreadable: Vec<Unreadable>,
}

/// A record that makes no sense.
#[derive(Clone, Debug)]
pub(super) struct Unreadable {
    /// The pod, as the file's name says.
    pub(super) key: PodKey,
    path: PathBuf,
    error: String,
}

/// A directory of records.
#[derive(Debug)]
pub(super) struct Records<T> {
    dir: PathBuf,
    form: PhantomData<fn(T)>,
}

// === impl Record ===

impl Record {
    pub(super) fn pod(&self) -> PodId {
        PodId { netns: self.netns_cookie, enrolment: self.enrolment }
    }
}

impl Keyed for Record {
    fn key(&self) -> PodKey {
        self.spec.key()
    }
}

// === impl Unreadable ===

impl Unreadable {
    /// Returns what is wrong and what to do.
    pub(super) fn problem(&self) -> String {
        format!(
            "its enrolment record {} cannot be read ({}): if it was captured it stays so, and has no \
             connections; enrol it again with `fairlead-node pod add`, or let it leave the mesh with \
             `fairlead-node pod remove {}`",
            self.path.display(),
            self.error,
            self.key
        )
    }
}

// === impl Records ===

impl<T: Keyed> Records<T> {
    pub(super) fn open(run_dir: &Path, name: &str) -> io::Result<Self> {
        let dir = run_dir.join(name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir, form: PhantomData })
    }

    /// Returns all records, also those that make no sense. Files that are no records are named in the
    /// log and left alone.
    pub(super) fn load(&self) -> io::Result<OnDisk<T>> {
        let mut found = OnDisk { records: Vec::new(), unreadable: Vec::new() };
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            match read(&path) {
                Ok(record) => found.records.push(record),
                Err(error) if is_broken(&error) => {
                    let Some(key) = key(&path) else {
                        tracing::warn!(path = %path.display(), "not a record of a pod");
                        continue;
                    };
                    found.unreadable.push(Unreadable { key, path, error: error.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    pub(super) fn save(&self, record: &T) -> io::Result<()> {
        let path = self.path(&record.key());
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(record)?)?;
        fs::rename(fresh, path)
    }

    pub(super) fn remove(&self, key: &PodKey) -> io::Result<()> {
        match fs::remove_file(self.path(key)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Names hold neither `/` nor `@`: no two pods share a file.
    fn path(&self, key: &PodKey) -> PathBuf {
        self.dir.join(format!("{}@{}.json", key.name, key.namespace))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    if fs::metadata(path)?.len() > MAX_RECORD_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Returns the pod that the file of a record is named after.
fn key(path: &Path) -> Option<PodKey> {
    let (name, namespace) = path.file_stem()?.to_str()?.split_once('@')?;
    Some(PodKey { namespace: namespace.parse().ok()?, name: name.parse().ok()? })
}

/// Whether it is the record that is at fault, and will be the next time.
fn is_broken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Record {
        let spec = serde_json::json!({
            "uid": null, "namespace": "shop", "name": name, "service_account": "a", "netns": "/n"
        });
        let sysctls = Sysctls::default();
        let spec = serde_json::from_value(spec).unwrap();
        let (origin, found_at) = (Origin::Operator, None);
        let (netns_cookie, enrolment, addresses, draining) = (1, 1, Vec::new(), false);
        Record { spec, origin, found_at, netns_cookie, enrolment, addresses, sysctls, draining }
    }

    #[test]
    fn a_broken_record_is_told_apart_and_one_that_cannot_be_read_stops_everything() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path(), ENROLMENTS).unwrap();
        records.save(&record("whole")).unwrap();
        let pods = dir.path().join("pods");
        for (name, content) in
            [("cut@shop", "{"), ("other@shop", "7"), ("empty@shop", ""), ("stranger", "")]
        {
            fs::write(pods.join(name).with_extension("json"), content).unwrap();
        }
        let found = records.load().unwrap();
        let names: Vec<_> = found.records.iter().map(|r| r.spec.key().to_string()).collect();
        assert_eq!(names, ["shop/whole"]);
        let mut names: Vec<_> = found.unreadable.iter().map(|r| r.key.to_string()).collect();
        names.sort_unstable();
        assert_eq!(names, ["shop/cut", "shop/empty", "shop/other"]);
        assert!(found.unreadable[0].problem().contains("pod remove shop/"));
        // A directory, so that reading fails for any user.
        fs::create_dir(pods.join("later.json")).unwrap();
        assert!(records.load().is_err());
    }
}
