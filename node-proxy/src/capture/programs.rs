//! The BPF object in the kernel: loaded, attached and pinned, so that capture outlives a crash.
//!
//! While neither half runs, the pinned programs go on steering; connections then find no listening
//! socket and are refused. A successor opens the same maps, attaches its own programs and only then
//! lets go of its predecessor's, so there is no moment without capture.

mod datagrams;

use std::{
    fmt, fs, io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError, SockHash},
    programs::{
        CgroupAttachMode, CgroupSockAddr, ProgramError, SkLookup, SockOps,
        links::{FdLink, LinkError},
    },
};
use fairlead_ebpf::{
    Counts, Listener, ListenerKey, NetnsCookie, PodAddresses, PodConfig, ProbeSource, ProxyProcess,
};
use socket2::{Domain, Socket, Type};

use self::datagrams::Datagrams;
use super::{
    counts::{COUNTS, PodCounts},
    links,
};

/// Layout of the pinned maps. A release that changes a key, value or name counts it up, and finds
/// nothing of its predecessor's under the new name.
const LAYOUT: &str = "v1";

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/capture.o"));
const MAPS: [&str; 7] =
    ["ENROLLED", "PROXIES", "REGISTRATIONS", "LISTENERS", "PROBES", "PROBE_SOURCES", COUNTS];
const HOOKS: [&str; 4] =
    ["fairlead_connect4", "fairlead_connect6", "fairlead_sendmsg4", "fairlead_sendmsg6"];
const STEER: &str = "fairlead_steer";
const PROBES: &str = "fairlead_probes";

/// Why the kernel's half could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// The object does not load.
    #[error(
        "the BPF object was not accepted: {0}; `fairlead-node check` names what the kernel lacks"
    )]
    Load(#[from] Box<aya::EbpfError>),
    /// A program does not load or attach.
    #[error("the BPF program {name} was not accepted: {cause}")]
    Program {
        /// Name of the program.
        name: &'static str,
        /// What the kernel said.
        cause: Box<ProgramError>,
    },
    /// A program was attached in a way that cannot be pinned.
    #[error("the BPF program {name} has no link ({cause}); use a kernel of 5.9 or newer")]
    Link {
        /// Name of the program.
        name: &'static str,
        /// What the library said.
        cause: LinkError,
    },
    /// A map could not be read or written.
    #[error("the BPF map {name} could not be changed: {cause}")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// What the kernel said.
        cause: Box<MapError>,
    },
    /// The object lacks something that this program expects.
    #[error("the BPF object has no {0}; it does not belong to this build")]
    Missing(&'static str),
    /// A pin could not be made, replaced or removed.
    #[error("the pin {} could not be changed: {cause}", path.display())]
    Pin {
        /// Path of the pin.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// Another process has its programs there.
    #[error(
        "another fairlead-node has its BPF programs in {}: stop it, or choose another --bpf-dir",
        .0.display()
    )]
    InUse(PathBuf),
    /// The connect hook did not answer.
    #[error(
        "the connect hook did not register the proxy process; is another program in the cgroup tree \
         refusing connections to loopback addresses?"
    )]
    NotRegistered,
    /// Another system call failed.
    #[error("{what}: {cause}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What went wrong.
        cause: io::Error,
    },
}

/// The loaded programs and their maps.
pub struct Programs {
    dir: PathBuf,
    /// Released by the kernel when the last process that holds it dies.
    lock: fs::File,
    /// Kept, since it reads the kernel's type information when it is made: that takes longer than
    /// all the rest of an enrolment.
    loader: EbpfLoader<'static>,
    enrolled: HashMap<MapData, NetnsCookie, PodAddresses>,
    proxies: HashMap<MapData, ProxyProcess, u64>,
    registrations: HashMap<MapData, u64, u8>,
    listeners: SockHash<MapData, ListenerKey>,
    probe_sources: HashMap<MapData, ProbeSource, u8>,
    counts: PodCounts,
    pub(super) datagrams: Datagrams,
}

/// A socket whose connecting exempts a process from capture.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) socket: Socket,
    cookie: u64,
}

// === impl Programs ===

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programs").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Programs {
    /// Loads the object with its maps pinned under `dir` (on a BPF file system) and attaches the
    /// connect hooks to `cgroup`. Takes over what a predecessor left under `dir`; one that still runs
    /// has given its `lock`.
    pub fn load(dir: &Path, cgroup: &Path, lock: Option<fs::File>) -> Result<Self, ProgramsError> {
        let dir = dir.join(LAYOUT);
        fs::create_dir_all(dir.join("pods"))
            .map_err(|cause| ProgramsError::Pin { path: dir.clone(), cause })?;
        let lock = lock.map_or_else(|| take_lock(&dir), Ok)?;
        let mut loader = EbpfLoader::new();
        // The programs need no types of the kernel: ten megabytes less.
        loader.btf(None);
        for name in all_maps() {
            loader.map_pin_path(name, dir.join(name));
        }
        let mut object = load_object(&mut loader)?;
        let programs = Self {
            enrolled: take_map(&mut object, "ENROLLED")?,
            proxies: take_map(&mut object, "PROXIES")?,
            registrations: take_map(&mut object, "REGISTRATIONS")?,
            listeners: take_map(&mut object, "LISTENERS")?,
            probe_sources: take_map(&mut object, "PROBE_SOURCES")?,
            counts: PodCounts::new(take_map(&mut object, COUNTS)?),
            datagrams: Datagrams::take(&mut object)?,
            dir,
            lock,
            loader,
        };
        programs.attach_hooks(&mut object, cgroup)?;
        Ok(programs)
    }

    /// Returns the open file whose lock says that this process owns the directory.
    pub(super) fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Steers the new connections of the namespace to `listeners`.
    pub fn steer(
        &mut self,
        netns: BorrowedFd<'_>,
        pod: PodConfig,
        listeners: [(Listener, BorrowedFd<'_>); 3],
    ) -> Result<(), ProgramsError> {
        for (listener, socket) in listeners {
            self.listeners
                .insert(ListenerKey::new(pod.netns, listener), socket, 0)
                .map_err(map_error("LISTENERS"))?;
        }
        self.counts.begin(pod.netns)?;
        let mut object = load_object(&mut self.loader)?;
        let mut config: Array<_, PodConfig> = take_map(&mut object, "POD")?;
        config.set(0, pod, 0).map_err(map_error("POD"))?;
        let program: &mut SkLookup = program(&mut object, STEER)?;
        let fail = program_error(STEER);
        program.load().map_err(fail)?;
        let id = program.attach(netns).map_err(fail)?;
        let link = program.take_link(id).map_err(fail)?;
        links::pin(FdLink::from(link), &self.pod_pin(pod.netns))
    }

    /// Captures the connections that the namespace opens.
    pub fn capture(&mut self, pod: NetnsCookie, own: PodAddresses) -> Result<(), ProgramsError> {
        self.enrolled.insert(pod, own, 0).map_err(map_error("ENROLLED"))
    }

    /// Stops capturing and steering connections of the namespace. Absent parts are no error.
    pub fn release(&mut self, pod: NetnsCookie) -> Result<(), ProgramsError> {
        ignore_absent(self.enrolled.remove(&pod)).map_err(map_error("ENROLLED"))?;
        links::unpin(&self.pod_pin(pod))?;
        for listener in [Listener::Outbound, Listener::InboundHbone, Listener::InboundPlaintext] {
            ignore_absent(self.listeners.remove(&ListenerKey::new(pod, listener)))
                .map_err(map_error("LISTENERS"))?;
        }
        self.datagrams.forget(pod)?;
        self.counts.end(pod)
    }

    /// Returns what became of the connections of a captured pod.
    pub(super) fn counts(&self, pod: NetnsCookie) -> Counts {
        self.counts.of(pod)
    }

    /// Lets connections from these addresses pass as probes, and from no others.
    pub fn set_probe_sources(&mut self, sources: &[IpAddr]) -> Result<(), ProgramsError> {
        let wanted: Vec<_> = sources.iter().copied().map(ProbeSource::from).collect();
        let known: Vec<_> = self.probe_sources.keys().filter_map(Result::ok).collect();
        for source in known.into_iter().filter(|source| !wanted.contains(source)) {
            ignore_absent(self.probe_sources.remove(&source))
                .map_err(map_error("PROBE_SOURCES"))?;
        }
        for source in wanted {
            self.probe_sources.insert(source, 1, 0).map_err(map_error("PROBE_SOURCES"))?;
        }
        Ok(())
    }

    /// Lets the connections of processes in `cgroup`, the kubelet's, pass as probes, and of no other
    /// cgroup's.
    pub(super) fn recognise_probes(&mut self, cgroup: Option<&Path>) -> Result<(), ProgramsError> {
        let pin = self.dir.join(PROBES);
        let Some(cgroup) = cgroup else { return links::unpin(&pin) };
        let cgroup = fs::File::open(cgroup)
            .map_err(|cause| ProgramsError::Io { what: "opening the kubelet's cgroup", cause })?;
        let mut object = load_object(&mut self.loader)?;
        let program: &mut SockOps = program(&mut object, PROBES)?;
        let fail = program_error(PROBES);
        program.load().map_err(fail)?;
        let id = program.attach(&cgroup, CgroupAttachMode::Single).map_err(fail)?;
        let link = program.take_link(id).map_err(fail)?;
        links::pin(FdLink::try_from(link).map_err(link_error(PROBES))?, &pin)
    }

    /// Returns the namespaces that the kernel captures, also those a predecessor left behind.
    pub fn captured(&self) -> Result<Vec<NetnsCookie>, ProgramsError> {
        let enrolled = self.enrolled.keys().collect::<Result<_, _>>();
        let mut pods: Vec<_> = enrolled.map_err(map_error("ENROLLED"))?;
        pods.extend(links::numbered(&self.dir.join("pods"))?.into_iter().map(NetnsCookie));
        pods.sort_unstable();
        pods.dedup();
        Ok(pods)
    }

    /// Detaches the programs and removes every pin.
    pub fn unload(&mut self) -> Result<(), ProgramsError> {
        for pod in self.captured()? {
            self.release(pod)?;
        }
        for name in HOOKS.into_iter().chain([PROBES]) {
            links::unpin(&self.dir.join(name))?;
        }
        for map in all_maps() {
            links::unpin(&self.dir.join(map))?;
        }
        links::remove_dirs(&self.dir, &["pods"])
    }

    /// Returns a socket that registers the process that connects it, see [`Self::registered`].
    ///
    /// A process does not know its id outside its own PID namespace, but the connect hook does.
    /// One at a time: what an earlier one has left is of no use any more.
    pub(super) fn registration(&mut self) -> Result<Registration, ProgramsError> {
        let left: Vec<_> = self.registrations.keys().filter_map(Result::ok).collect();
        for cookie in left {
            ignore_absent(self.registrations.remove(&cookie))
                .map_err(map_error("REGISTRATIONS"))?;
        }
        let io = |cause| ProgramsError::Io { what: "registering a proxy process", cause };
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(io)?;
        let cookie = fairlead_sys::socket::cookie(&socket).map_err(io)?;
        self.registrations.insert(cookie, 1, 0).map_err(map_error("REGISTRATIONS"))?;
        Ok(Registration { socket, cookie })
    }

    /// Returns the process that connected the socket: it is exempt from capture from then on.
    pub(super) fn registered(
        &mut self,
        registration: &Registration,
    ) -> Result<ProxyProcess, ProgramsError> {
        let cookie = registration.cookie;
        ignore_absent(self.registrations.remove(&cookie)).map_err(map_error("REGISTRATIONS"))?;
        let found = self.proxies.iter().filter_map(Result::ok).find(|(_, value)| *value == cookie);
        found.map(|(process, _)| process).ok_or(ProgramsError::NotRegistered)
    }

    /// Captures the connections of every process that is not among `proxies`. If those are none,
    /// all stays as it is: a proxy whose link is renewed goes on connecting.
    pub(super) fn exempt_only(&mut self, proxies: &[ProxyProcess]) -> Result<(), ProgramsError> {
        if proxies.is_empty() {
            return Ok(());
        }
        let known: Vec<_> = self.proxies.keys().filter_map(Result::ok).collect();
        for process in known.into_iter().filter(|process| !proxies.contains(process)) {
            ignore_absent(self.proxies.remove(&process)).map_err(map_error("PROXIES"))?;
        }
        Ok(())
    }

    fn attach_hooks(&self, object: &mut Ebpf, cgroup: &Path) -> Result<(), ProgramsError> {
        let cgroup = fs::File::open(cgroup)
            .map_err(|cause| ProgramsError::Io { what: "opening the cgroup v2 root", cause })?;
        for name in HOOKS {
            let fail = program_error(name);
            let hook: &mut CgroupSockAddr = program(object, name)?;
            hook.load().map_err(fail)?;
            let id = hook.attach(&cgroup, CgroupAttachMode::Single).map_err(fail)?;
            let link = hook.take_link(id).map_err(fail)?;
            let link = FdLink::try_from(link).map_err(link_error(name))?;
            links::pin(link, &self.dir.join(name))?;
        }
        Ok(())
    }

    fn pod_pin(&self, pod: NetnsCookie) -> PathBuf {
        self.dir.join("pods").join(pod.0.to_string())
    }
}

fn all_maps() -> impl Iterator<Item = &'static str> {
    MAPS.into_iter().chain(datagrams::MAPS)
}

/// Two processes that share pins would release each other's pods.
fn take_lock(dir: &Path) -> Result<fs::File, ProgramsError> {
    let fail = |cause| ProgramsError::Pin { path: dir.to_owned(), cause };
    let file = fs::File::open(dir).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(ProgramsError::InUse(dir.to_owned())),
        Err(fs::TryLockError::Error(cause)) => Err(fail(cause)),
    }
}

fn load_object(loader: &mut EbpfLoader<'_>) -> Result<Ebpf, ProgramsError> {
    loader.load(OBJECT).map_err(|e| ProgramsError::Load(Box::new(e)))
}

pub(super) fn take_map<M: TryFrom<Map, Error = MapError>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<M, ProgramsError> {
    let map = object.take_map(name).ok_or(ProgramsError::Missing(name))?;
    M::try_from(map).map_err(map_error(name))
}

pub(super) fn program<'a, P>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut P, ProgramsError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program = object.program_mut(name).ok_or(ProgramsError::Missing(name))?;
    program.try_into().map_err(program_error(name))
}

pub(super) fn program_error(name: &'static str) -> impl Fn(ProgramError) -> ProgramsError + Copy {
    move |cause| ProgramsError::Program { name, cause: Box::new(cause) }
}

fn link_error(name: &'static str) -> impl Fn(LinkError) -> ProgramsError {
    move |cause| ProgramsError::Link { name, cause }
}

pub(super) fn map_error(name: &'static str) -> impl Fn(MapError) -> ProgramsError + Copy {
    move |cause| ProgramsError::Map { name, cause: Box::new(cause) }
}

pub(super) fn ignore_absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(nix::libc::ENOENT) => {
            Ok(())
        }
        other => other,
    }
}
