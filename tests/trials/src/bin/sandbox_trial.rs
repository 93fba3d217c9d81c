//! Confines itself to a sandbox that shows one directory, and tries something there.
//!
//! `sandbox-trial TRIAL DIRECTORY` succeeds if the trial found what it should; a trial that is to be
//! killed does not return.
#![expect(clippy::unwrap_used, reason = "what fails, fails the trial")]

#[path = "sandbox_trial/names.rs"]
mod names;
#[expect(unsafe_code, reason = "system calls that no proxy makes, and no library offers")]
#[path = "sandbox_trial/probe.rs"]
mod probe;

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use fairlead_node::sandbox::{Sandbox, SandboxError};
use fairlead_sys::descriptors;
use nix::{
    errno::Errno,
    fcntl::{SpliceFFlags, splice},
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::{Gid, Pid, Uid, execve, getpid, getppid, setgid, setgroups, setuid},
};
use notify::{RecursiveMode, Watcher};
use socket2::{Domain, Protocol, Socket, Type};

/// A trial that hangs has failed.
const SOON: Duration = Duration::from_secs(20);

/// Ids that own nothing.
const USER: u32 = 64_998;
const GROUP: u32 = 64_997;

fn main() {
    let arguments: Vec<_> = env::args().collect();
    let [_, name, visible] = arguments.as_slice() else {
        panic!("usage: sandbox-trial TRIAL DIRECTORY");
    };
    make(name, Path::new(visible));
}

fn make(name: &str, visible: &Path) {
    match name {
        "as_root" => return as_root(visible),
        "as_group_root" => return as_group_root(visible),
        "with_threads" => return with_threads(visible),
        "with_relative_path" => return with_path(Path::new("visible"), "absolute path"),
        "with_no_path" => return with_path(&visible.join("gone"), "cannot show"),
        "no_low_port" => return no_low_port(visible),
        "setns" => return other_namespace(visible),
        "names" => return names::are_looked_up(visible),
        _ => {}
    }
    sandbox(visible).enter().unwrap();
    match name {
        "rest" => rest(),
        "sees_little" => sees_little(visible),
        "threads" => threads(),
        "network" => network(),
        "sockets" => sockets(),
        "splice" => splices(),
        "cryptography" => cryptography(),
        "panics_are_caught" => panics_are_caught(),
        "watch" => watch(visible),
        "no_writing" => no_writing(visible),
        "no_programs" => no_programs(),
        "no_sockets" => no_sockets(),
        "no_code" => no_code(),
        "no_users" => no_users(),
        "abort" => std::process::abort(),
        "execve" => drop(execve::<&std::ffi::CStr, &std::ffi::CStr>(c"/bin/true", &[], &[])),
        "unshare" => drop(unshare(CloneFlags::CLONE_NEWUSER)),
        "mount" => drop(mount(Some("x"), "/", Some("tmpfs"), MsFlags::empty(), None::<&str>)),
        call => {
            let number = call.strip_prefix("call ").unwrap().parse().unwrap();
            let result = probe::call(number, [0; 6]);
            panic!("call {number} returned {result:?}");
        }
    }
}

fn sandbox(visible: &Path) -> Sandbox {
    // So that there are some to leave.
    setgroups(&[Gid::from_raw(0), Gid::from_raw(4)]).unwrap();
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(GROUP));
    Sandbox { user, group, readable: vec![visible.to_owned()], files: Vec::new() }
}

fn say(point: &str) {
    println!("{point}");
    io::stdout().flush().unwrap();
}

fn rest() {
    say("rest");
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn sees_little(visible: &Path) {
    for hidden in ["/etc", "/proc", "/sys", "/dev", "/bin", "/usr", "/root", "/run"] {
        assert!(!Path::new(hidden).exists(), "{hidden}");
    }
    assert!(visible.is_absolute());
    let roots: Vec<_> = fs::read_dir("/").unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(roots, [visible.components().nth(1).unwrap().as_os_str()]);
    assert_eq!(fs::read_to_string(visible.join("mesh.yaml")).unwrap(), "first");
    assert!(fs::read_to_string(visible.join("../../etc/passwd")).is_err());
}

fn threads() {
    let threads: Vec<_> = (0..4)
        .map(|n| thread::Builder::new().name(format!("t{n}")).spawn(move || n * n).unwrap())
        .collect();
    let squares: Vec<i32> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(squares, [0, 1, 4, 9]);
    assert!(thread::available_parallelism().is_ok());
    let large = vec![1_u8; 64 << 20];
    assert_eq!(large[large.len() - 1], 1);
}

fn network() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use tokio::{
            io::{AsyncReadExt as _, AsyncWriteExt as _},
            net::{TcpListener, TcpStream},
            signal::unix::{SignalKind, signal},
            time::{sleep, timeout},
        };
        let _terminate = signal(SignalKind::terminate()).unwrap();
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut data = [0; 4];
            stream.read_exact(&mut data).await.unwrap();
            stream.write_all(&data).await.unwrap();
        };
        let ask = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(b"ping").await.unwrap();
            let mut data = Vec::new();
            stream.read_to_end(&mut data).await.unwrap();
            assert_eq!(data, b"ping");
        };
        timeout(SOON, async { tokio::join!(echo, ask) }).await.unwrap();
        sleep(Duration::from_millis(1)).await;
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    });
}

fn sockets() {
    let (left, right) = descriptors::pair().unwrap();
    descriptors::send(&left, b"x", &[std::os::fd::AsFd::as_fd(&left)]).unwrap();
    assert_eq!(descriptors::receive(&right, &mut [0; 1]).unwrap().descriptors.len(), 1);
    let listener = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).unwrap();
    listener.set_only_v6(false).unwrap();
    listener.set_reuse_address(true).unwrap();
    listener.set_nonblocking(true).unwrap();
}

fn splices() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let (mut out, into) = io::pipe().unwrap();
    nix::fcntl::fcntl(&into, nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 18)).unwrap();
    client.write_all(b"moved").unwrap();
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    assert_eq!(splice(&server, None, &into, None, 5, flags), Ok(5));
    let mut data = [0; 5];
    out.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"moved");
}

fn cryptography() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
    certificate.self_signed(&key).unwrap();
    let mut random = [0; 32];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut random).unwrap();
    assert_ne!(random, [0; 32]);
    assert_ne!(rand::random::<u128>(), 0);
}

fn panics_are_caught() {
    let result = thread::spawn(|| panic!("on purpose")).join();
    assert!(result.is_err());
}

fn watch(visible: &Path) {
    let file = visible.join("mesh.yaml");
    assert_eq!(fs::read_to_string(&file).unwrap(), "first");
    let (send, changes) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event| {
        let _ = send.send(event);
    })
    .unwrap();
    watcher.watch(visible, RecursiveMode::NonRecursive).unwrap();
    say("watch");
    while fs::read_to_string(&file).unwrap() != "second" {
        changes.recv_timeout(SOON).unwrap().unwrap();
    }
}

fn no_writing(visible: &Path) {
    let file = visible.join("mesh.yaml");
    for mut options in [
        OpenOptions::new().write(true).to_owned(),
        OpenOptions::new().append(true).to_owned(),
        OpenOptions::new().write(true).create(true).truncate(true).to_owned(),
    ] {
        refused(options.read(false).open(&file), libc::EPERM);
    }
    refused(File::create(visible.join("new")), libc::EPERM);
    refused(fs::create_dir(visible.join("new")), libc::EPERM);
    refused(fs::remove_file(&file), libc::EPERM);
    refused(fs::rename(&file, visible.join("new")), libc::EPERM);
    refused(std::os::unix::fs::symlink("a", visible.join("new")), libc::EPERM);
    refused(fs::set_permissions(&file, fs::metadata(&file).unwrap().permissions()), libc::EPERM);
    refused(nix::unistd::truncate(&file, 0), libc::EPERM);
}

fn no_programs() {
    assert!(Command::new("/bin/true").spawn().is_err());
    refused(kill(getppid(), None), libc::EPERM);
    refused(kill(Pid::from_raw(1), Signal::SIGTERM), libc::EPERM);
    refused(kill(getpid(), None), libc::EPERM);
    for number in [libc::SYS_clone, libc::SYS_seccomp, libc::SYS_pidfd_open] {
        assert_eq!(probe::call(number, [0; 6]), Err(Errno::EPERM), "call {number}");
    }
}

fn no_sockets() {
    for (family, kind) in [
        (libc::AF_NETLINK, libc::SOCK_RAW),
        (libc::AF_PACKET, libc::SOCK_RAW),
        (libc::AF_PACKET, libc::SOCK_DGRAM),
        (libc::AF_INET, libc::SOCK_RAW),
        (libc::AF_INET6, libc::SOCK_RAW),
        (libc::AF_UNIX, libc::SOCK_STREAM),
        (libc::AF_ALG, libc::SOCK_SEQPACKET),
        (libc::AF_VSOCK, libc::SOCK_STREAM),
    ] {
        let socket = Socket::new(Domain::from(family), Type::from(kind), None);
        refused(socket, libc::EPERM);
    }
    // What is allowed still needs privilege where it needed privilege.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    refused(socket.set_mark(1), libc::EPERM);
    refused(socket.set_ip_transparent_v4(true), libc::EPERM);
}

fn no_code() {
    let executable = u16::try_from(libc::PROT_EXEC).unwrap();
    let empty = [0; 6];
    assert_eq!(probe::call(libc::SYS_mprotect, empty), Ok(0), "nothing is protected");
    for number in [libc::SYS_mprotect, libc::SYS_mmap, libc::SYS_pkey_mprotect] {
        let result = probe::call(number, [0, 0, executable, 0, 0, 0]);
        assert_eq!(result, Err(Errno::EPERM), "call {number}");
    }
    assert_eq!(probe::call(libc::SYS_memfd_create, empty), Err(Errno::EPERM));
}

fn no_users() {
    refused(setuid(Uid::from_raw(0)), libc::EPERM);
    refused(setgid(Gid::from_raw(0)), libc::EPERM);
    refused(setgroups(&[Gid::from_raw(0)]), libc::EPERM);
    refused(prctl::set_dumpable(true), libc::EPERM);
    refused(nix::sys::stat::fchmod(io::stdin(), nix::sys::stat::Mode::S_ISUID), libc::EPERM);
    assert_eq!(probe::call(libc::SYS_capset, [0; 6]), Err(Errno::EPERM));
}

fn no_low_port(visible: &Path) {
    // Where the lowest port that needs no privilege is the kernel's default.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap();
    sandbox(visible).enter().unwrap();
    refused(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)), libc::EACCES);
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap();
}

fn other_namespace(visible: &Path) {
    let namespace = File::open("/proc/self/ns/net").unwrap();
    sandbox(visible).enter().unwrap();
    let result = setns(&namespace, CloneFlags::CLONE_NEWNET);
    panic!("setns returned {result:?}");
}

fn as_root(visible: &Path) {
    let sandbox = Sandbox { user: Uid::from_raw(0), ..sandbox(visible) };
    assert!(matches!(sandbox.enter(), Err(SandboxError::PrivilegedUser)));
}

fn as_group_root(visible: &Path) {
    let sandbox = Sandbox { group: Gid::from_raw(0), ..sandbox(visible) };
    assert!(matches!(sandbox.enter(), Err(SandboxError::PrivilegedUser)));
}

fn with_threads(visible: &Path) {
    let (stop, wait) = mpsc::channel::<()>();
    let other = thread::spawn(move || wait.recv());
    let error = sandbox(visible).enter().unwrap_err();
    assert!(matches!(error, SandboxError::Threads(2)), "{error}");
    drop(stop);
    assert!(other.join().unwrap().is_err());
}

fn with_path(path: &Path, message: &str) {
    let error = sandbox(path).enter().unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

fn refused<T, E: Into<io::Error>>(result: Result<T, E>, errno: i32) {
    match result {
        Ok(_) => panic!("was allowed"),
        Err(error) => assert_eq!(error.into().raw_os_error(), Some(errno)),
    }
}
