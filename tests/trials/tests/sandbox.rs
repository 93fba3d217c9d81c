//! The sandbox of the proxy process, tried from inside by processes of their own and looked at from
//! outside.
#![expect(clippy::unwrap_used, reason = "what fails, fails the test")]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::ExitStatusExt,
    },
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use nix::libc::{self, c_int, c_long};
use tempfile::TempDir;

/// Ids that the trials use.
const USER: u32 = 64_998;
const GROUP: u32 = 64_997;

/// Calls that kill the process.
const KILLED: &[(&str, c_long)] = &[
    ("acct", libc::SYS_acct),
    ("add_key", libc::SYS_add_key),
    ("bpf", libc::SYS_bpf),
    ("chroot", libc::SYS_chroot),
    ("clock_settime", libc::SYS_clock_settime),
    ("delete_module", libc::SYS_delete_module),
    ("execve", libc::SYS_execve),
    ("execveat", libc::SYS_execveat),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("finit_module", libc::SYS_finit_module),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fsopen", libc::SYS_fsopen),
    ("init_module", libc::SYS_init_module),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("kcmp", libc::SYS_kcmp),
    ("kexec_file_load", libc::SYS_kexec_file_load),
    ("kexec_load", libc::SYS_kexec_load),
    ("keyctl", libc::SYS_keyctl),
    ("mount", libc::SYS_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("move_mount", libc::SYS_move_mount),
    ("name_to_handle_at", libc::SYS_name_to_handle_at),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("open_tree", libc::SYS_open_tree),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("personality", libc::SYS_personality),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pivot_root", libc::SYS_pivot_root),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("ptrace", libc::SYS_ptrace),
    ("reboot", libc::SYS_reboot),
    ("request_key", libc::SYS_request_key),
    ("setns", libc::SYS_setns),
    ("swapon", libc::SYS_swapon),
    ("syslog", libc::SYS_syslog),
    ("umount2", libc::SYS_umount2),
    ("unshare", libc::SYS_unshare),
    ("userfaultfd", libc::SYS_userfaultfd),
];

/// A process that makes a trial.
struct Trial {
    name: String,
    process: Child,
    output: BufReader<ChildStdout>,
    visible: TempDir,
}

impl Trial {
    fn start(name: &str) -> Self {
        let visible = tempfile::tempdir().unwrap();
        set_mode(visible.path(), 0o755);
        let config = visible.path().join("mesh.yaml");
        fs::write(&config, "first").unwrap();
        set_mode(&config, 0o644);
        let mut process = Command::new(env!("CARGO_BIN_EXE_sandbox-trial"))
            .arg(name)
            .arg(visible.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { name: name.to_owned(), process, output, visible }
    }

    /// Waits until the trial says that it has come to `point`.
    fn wait_for(&mut self, point: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), point, "{}", self.name);
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.process.id())).unwrap()
    }

    fn end(mut self) -> ExitStatus {
        drop(self.process.stdin.take());
        self.process.wait().unwrap()
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn passes(name: &str) {
    let status = Trial::start(name).end();
    assert!(status.success(), "{name}: {status}");
}

fn is_killed(name: &str, signal: c_int) {
    let status = Trial::start(name).end();
    assert_eq!(status.signal(), Some(signal), "{name}: {status}");
}

#[test]
fn the_sandbox_shows_one_directory_read_only_and_nothing_else() {
    let mut trial = Trial::start("rest");
    trial.wait_for("rest");
    let mounts = trial.proc("mountinfo");
    let mut points = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        for option in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(fields[5].split(',').any(|o| o == option), "{option}: {line}");
        }
        points.push(fields[4]);
    }
    assert_eq!(points, ["/", trial.visible.path().to_str().unwrap()]);
    for namespace in ["mnt", "ipc", "uts"] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(of(trial.process.id()), of(std::process::id()), "{namespace}");
    }
    assert!(trial.end().success());
    passes("sees_little");
}

#[test]
fn the_sandbox_has_a_user_of_its_own_and_no_privilege() {
    let mut trial = Trial::start("rest");
    trial.wait_for("rest");
    let status = trial.proc("status");
    let field = |name: &str| {
        let value = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    };
    assert_eq!(field("Uid"), [USER; 4].map(|n| n.to_string()).join("\t"));
    assert_eq!(field("Gid"), [GROUP; 4].map(|n| n.to_string()).join("\t"));
    assert_eq!(field("Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"));
    let limits = trial.proc("limits");
    let limit = |name: &str| {
        let values = limits.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        values.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(limit("Max core file size")[..2], ["0", "0"]);
    let descriptors = limit("Max open files");
    assert_eq!(descriptors[0], descriptors[1]);
    // What may be dumped belongs to its user.
    let memory = format!("/proc/{}/mem", trial.process.id());
    assert_eq!(fs::metadata(memory).unwrap().uid(), 0);
    assert!(trial.end().success());
}

#[test]
fn nothing_that_a_proxy_needs_is_missing() {
    for name in ["threads", "network", "sockets", "splice", "cryptography", "panics_are_caught"] {
        passes(name);
    }
}

#[test]
fn host_names_are_looked_up_with_the_files_that_say_how() {
    passes("names");
}

#[test]
fn a_configuration_is_watched_and_read_again() {
    let mut trial = Trial::start("watch");
    trial.wait_for("watch");
    let next = trial.visible.path().join("next");
    fs::write(&next, "second").unwrap();
    set_mode(&next, 0o644);
    fs::rename(&next, trial.visible.path().join("mesh.yaml")).unwrap();
    let status = trial.end();
    assert!(status.success(), "{status}");
}

#[test]
fn what_a_proxy_does_not_need_is_refused() {
    for name in ["no_writing", "no_programs", "no_sockets", "no_code", "no_users", "no_low_port"] {
        passes(name);
    }
}

#[test]
fn an_abort_ends_the_process_as_ever() {
    is_killed("abort", libc::SIGABRT);
}

#[test]
fn a_call_that_only_an_attacker_makes_kills_the_process() {
    for (name, number) in KILLED {
        let status = Trial::start(&format!("call {number}")).end();
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{name}: {status}");
    }
    // With arguments that would do something.
    for name in ["execve", "setns", "unshare", "mount"] {
        is_killed(name, libc::SIGSYS);
    }
}

#[test]
fn a_process_that_could_not_be_confined_is_told_why() {
    for name in ["as_root", "as_group_root", "with_threads", "with_relative_path", "with_no_path"] {
        passes(name);
    }
}
