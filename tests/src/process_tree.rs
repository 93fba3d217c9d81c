//! A process and its descendants: what a program uses that is more than one process.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

use crate::resources::Resources;

/// One process of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeProcess {
    /// Its id.
    pub pid: Pid,
    /// Its program, with the subcommand where the first argument is one: `fairlead-node run`.
    pub name: String,
    /// What it uses now.
    pub resources: Resources,
}

/// Returns `root` and its descendants, parents first; one that ends meanwhile may be left out.
pub fn process_tree(root: Pid) -> Result<Vec<TreeProcess>> {
    let mut tree = vec![TreeProcess::of(root)?];
    let mut next = 0;
    while let Some(parent) = tree.get(next) {
        // A child whose files are gone has ended: its parent accounts for it now.
        let children = children_of(parent.pid);
        tree.extend(children.into_iter().filter_map(|pid| TreeProcess::of(pid).ok()));
        next += 1;
    }
    Ok(tree)
}

/// Returns whether a process has ended, even if nobody has waited for it yet.
pub(crate) fn has_ended(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state comes after the name, which may hold anything.
    stat.rsplit_once(") ").is_none_or(|(_, fields)| fields.starts_with(['Z', 'X']))
}

// === impl TreeProcess ===

impl TreeProcess {
    fn of(pid: Pid) -> Result<Self> {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .with_context(|| format!("process {pid}"))?;
        Ok(Self { pid, name: name_in(&command), resources: Resources::of(pid)? })
    }
}

/// Each thread has the list of the processes that it started.
fn children_of(pid: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| pids_in(&list)).collect()
}

fn pids_in(list: &str) -> Vec<Pid> {
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

/// Names a process by its arguments, each of which ends with a null byte.
fn name_in(command: &str) -> String {
    let mut words = command.split('\0');
    let path = Path::new(words.next().unwrap_or_default());
    let program = path.file_name().unwrap_or_default().to_string_lossy();
    match words.next() {
        Some(word) if is_subcommand(word) => format!("{program} {word}"),
        _ => program.into_owned(),
    }
}

fn is_subcommand(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_name_has_the_subcommand_and_no_other_argument() {
        for (command, expected) in [
            ("/usr/bin/fairlead-node\0run\0--node-name\0n1\0", "fairlead-node run"),
            ("haproxy\0-f\0x.cfg\0", "haproxy"),
            ("bash\0benches/adapters/fairlead.sh\0", "bash"),
            ("socat\0TCP-LISTEN:80\0", "socat"),
            ("ztunnel\0", "ztunnel"),
            ("", ""),
        ] {
            assert_eq!(name_in(command), expected, "{command:?}");
        }
    }

    #[test]
    fn a_tree_has_the_children_of_children() {
        // The shells wait for their input, so that the tree stands still while it is looked at.
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'echo up; read line; :'; :"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = [0; 3];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut up).unwrap();
        let tree = process_tree(Pid::from_raw(shell.id().cast_signed())).unwrap();
        drop(shell.stdin.take());
        shell.wait().unwrap();
        let names: Vec<_> = tree.iter().map(|process| process.name.as_str()).collect();
        assert_eq!(names, ["sh", "sh"]);
        assert!(tree.iter().all(|process| process.resources.resident_kib > 0));
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(process_tree(Pid::from_raw(i32::MAX)).is_err());
    }
}
