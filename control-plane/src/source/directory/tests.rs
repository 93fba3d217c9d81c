use std::{fs, io::Write as _, time::Duration};

use tempfile::TempDir;

use super::*;
use crate::object::ObjectKind;

fn namespace(name: &str, label: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{l: '{label}'}}}}}}\n"
    )
}

struct Dir {
    temporary: TempDir,
    directory: Directory,
}

impl Dir {
    fn new(files: &[(&str, &str)]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::new(temporary.path().to_owned());
        let dir = Self { temporary, directory };
        for (name, text) in files {
            dir.write(name, text);
        }
        dir
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.temporary.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.temporary.path().join(name)).unwrap();
    }

    /// Looks at the directory; returns what happened as `+name=label` and `-name`, and the errors.
    fn look(&mut self) -> (Vec<String>, Vec<String>) {
        let changes = self.directory.refresh().unwrap();
        let event = |event: &Event| match event {
            Event::Applied(object) => {
                let metadata = object.metadata();
                format!("+{}={}", metadata.name.name, metadata.label("l").unwrap_or_default())
            }
            Event::Deleted(key) => format!("-{}", key.name.name),
            Event::Relisted(..) => panic!("a relist"),
        };
        let mut events: Vec<_> = changes.events.iter().map(event).collect();
        events.sort();
        (events, changes.errors.iter().map(ToString::to_string).collect())
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn files_of_all_folders_are_read() {
    let json = "{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"c\"}}";
    let mut dir = Dir::new(&[
        ("a.yaml", &(namespace("a", "1") + "---\n# nothing\n" + &namespace("b", "1"))),
        ("deep/er/c.json", json),
        ("deep/d.yml", &namespace("d", "1")),
        ("README.md", "not: [yaml"),
        (".hidden.yaml", "not: [yaml"),
    ]);
    let (events, errors) = dir.look();
    assert_eq!(events, ["+a=1", "+b=1", "+c=", "+d=1"]);
    assert_eq!(errors, NOTHING);
    assert_eq!(dir.look().0, NOTHING);
}

#[test]
fn only_what_changed_in_a_file_is_applied() {
    let mut dir = Dir::new(&[("a.yaml", &(namespace("a", "1") + &namespace("b", "1")))]);
    dir.look();
    dir.write("a.yaml", &(namespace("a", "2") + &namespace("c", "1") + "# a word\n"));
    assert_eq!(dir.look().0, ["+a=2", "+c=1", "-b"]);
    dir.remove("a.yaml");
    assert_eq!(dir.look().0, ["-a", "-c"]);
}

#[test]
fn a_broken_file_keeps_its_last_good_version() {
    let mut dir = Dir::new(&[("a.yaml", &namespace("a", "1")), ("b.yaml", &namespace("b", "1"))]);
    dir.look();
    dir.write("a.yaml", &(namespace("a", "2") + "---\nkind: Pod\n"));
    dir.write("b.yaml", &namespace("b", "2"));
    let (events, errors) = dir.look();
    assert_eq!(events, ["+b=2"]);
    let missing = "a.yaml: document 2: apiVersion: is missing: set it, for instance to v1";
    assert_eq!(errors, [missing]);
    dir.write("a.yaml", "a: [");
    let (events, errors) = dir.look();
    assert_eq!(events, NOTHING);
    assert!(errors[0].starts_with("a.yaml: document 1: "), "{errors:?}");
    dir.write("a.yaml", &namespace("a", "3"));
    assert_eq!(dir.look(), (vec!["+a=3".to_owned()], vec![]));
}

#[test]
fn an_error_names_the_item_of_a_list_and_its_field() {
    let list = "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Node, metadata: {name: \
                n}}, {apiVersion: v1, kind: Pod, metadata: {name: p}, status: {podIP: x}}]}";
    let mut dir = Dir::new(&[("a.yaml", list)]);
    let (_, errors) = dir.look();
    let expected = "a.yaml: document 1, item 2: status.podIP: \"x\" is not an IP address: use one \
                    such as 10.0.0.1 or fd00::1";
    assert_eq!(errors, [expected]);
}

#[test]
fn an_object_in_two_files_is_an_error_that_names_both() {
    let mut dir = Dir::new(&[("b.yaml", &namespace("x", "1"))]);
    dir.look();
    dir.write("a.yaml", &(namespace("y", "1") + &namespace("x", "2")));
    let (events, errors) = dir.look();
    assert_eq!(events, NOTHING);
    let expected = "a.yaml: document 2: Namespace x is in b.yaml, too: remove one of them";
    assert_eq!(errors, [expected]);
    dir.remove("b.yaml");
    assert_eq!(dir.look(), (vec!["+x=2".to_owned(), "+y=1".to_owned()], vec![]));
    dir.write("a.yaml", &(namespace("x", "1") + &namespace("x", "2")));
    let expected = "a.yaml: document 2: Namespace x is in document 1, too: remove one of them";
    assert_eq!(dir.look().1, [expected]);
}

#[test]
fn at_the_start_the_first_of_two_files_has_the_object() {
    let mut dir = Dir::new(&[("b.yaml", &namespace("x", "b")), ("a.yaml", &namespace("x", "a"))]);
    let (events, errors) = dir.look();
    assert_eq!(events, ["+x=a"]);
    assert_eq!(errors.len(), 1);
}

#[test]
fn objects_move_between_files_without_going_away() {
    let mut dir = Dir::new(&[("a.yaml", &namespace("x", "1")), ("b.yaml", &namespace("y", "1"))]);
    dir.look();
    dir.write("a.yaml", &namespace("y", "1"));
    dir.write("b.yaml", &namespace("x", "1"));
    assert_eq!(dir.look(), (vec!["+x=1".to_owned(), "+y=1".to_owned()], vec![]));
    dir.write("b.yaml", &(namespace("x", "2") + &namespace("y", "2")));
    dir.write("a.yaml", "");
    assert_eq!(dir.look(), (vec!["+x=2".to_owned(), "+y=2".to_owned()], vec![]));
}

#[test]
fn a_file_that_cannot_give_an_object_away_keeps_it() {
    let mut dir = Dir::new(&[("a.yaml", &namespace("x", "1")), ("c.yaml", &namespace("z", "1"))]);
    dir.look();
    // The new version of `a` is refused because of `z`, so `b` cannot take `x`.
    dir.write("a.yaml", &namespace("z", "2"));
    dir.write("b.yaml", &namespace("x", "2"));
    let (events, errors) = dir.look();
    assert_eq!(events, NOTHING);
    assert_eq!(errors.len(), 2);
}

#[test]
fn other_kinds_are_counted() {
    let deployment = "---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}}\n";
    let dir = Dir::new(&[("a.yaml", &(deployment.repeat(2) + &namespace("a", "1")))]);
    let Dir { temporary: _kept, mut directory } = dir;
    let changes = directory.refresh().unwrap();
    assert_eq!(changes.ignored, [("Deployment".to_owned(), 2)].into());
    assert_eq!((changes.applied, changes.refused, changes.events.len()), (1, 0, 1));
    assert!(changes.events.iter().all(|event| match event {
        Event::Applied(object) => object.kind() == ObjectKind::Namespace,
        Event::Deleted(_) | Event::Relisted(..) => false,
    }));
}

#[test]
fn a_mounted_config_map_is_read_once() {
    use std::os::unix::fs::symlink;

    let mut dir = Dir::new(&[("..v1/a.yaml", &namespace("a", "1"))]);
    let root = dir.temporary.path().to_owned();
    symlink("..v1", root.join("..data")).unwrap();
    symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    assert_eq!(dir.look(), (vec!["+a=1".to_owned()], vec![]));
    dir.write("..v2/a.yaml", &namespace("a", "2"));
    symlink("..v2", root.join("..new")).unwrap();
    fs::rename(root.join("..new"), root.join("..data")).unwrap();
    assert_eq!(dir.look(), (vec!["+a=2".to_owned()], vec![]));
}

#[test]
fn odd_files_are_refused_and_others_are_not_affected() {
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    let line = |c: u8| {
        let (name, before) = (char::from(c), char::from(c - 1));
        format!("{name}: &{name} [{}]", vec![format!("*{before}"); 10].join(","))
    };
    let first = "a: &a [1,1,1,1,1,1,1,1,1,1]".to_owned();
    let bomb = std::iter::once(first).chain((b'b'..b'm').map(line)).collect::<Vec<_>>().join("\n");
    let mut dir = Dir::new(&[
        ("bomb.yaml", &bomb),
        ("deep.yaml", &deep),
        ("good.yaml", &namespace("good", "1")),
        ("scalar.yaml", "just text"),
    ]);
    fs::write(dir.temporary.path().join("binary.yaml"), [0xff, 0xfe, 0xff]).unwrap();
    let (events, errors) = dir.look();
    assert_eq!(events, ["+good=1"]);
    assert_eq!(errors.len(), 4, "{errors:?}");
}

#[test]
fn a_directory_that_does_not_exist_is_an_error() {
    let error = Directory::new("/nonexistent".into()).refresh().unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nonexistent: "), "{error}");
}

#[tokio::test]
async fn changes_of_a_watched_directory_are_told() {
    let dir = Dir::new(&[("a.yaml", &namespace("a", "1"))]);
    let (watched, changes) = WatchedDirectory::start(dir.temporary.path().to_owned()).unwrap();
    assert_eq!(changes.events.len(), 1);
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let following = tokio::spawn(watched.follow(send));
    dir.write("a.yaml", &namespace("a", "2"));
    assert_eq!(receive.recv().await.unwrap().unwrap().events.len(), 1);
    dir.write("new/b.yaml", &namespace("b", "1"));
    let mut events = 0;
    while events == 0 {
        events += receive.recv().await.unwrap().unwrap().events.len();
    }
    following.abort();
}

#[tokio::test]
async fn a_file_is_not_read_while_it_is_written() {
    let dir = Dir::new(&[("a.yaml", &(namespace("a", "1") + &namespace("b", "1")))]);
    let (watched, _) = WatchedDirectory::start(dir.temporary.path().to_owned()).unwrap();
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let following = tokio::spawn(watched.follow(send));
    let mut file = fs::File::create(dir.temporary.path().join("a.yaml")).unwrap();
    file.write_all(namespace("a", "2").as_bytes()).unwrap();
    // Well within the time that a writer is waited for.
    let early = tokio::time::timeout(Duration::from_millis(60), receive.recv()).await;
    assert!(early.is_err(), "{early:?}");
    file.write_all(namespace("b", "2").as_bytes()).unwrap();
    drop(file);
    let changes = receive.recv().await.unwrap().unwrap();
    let applied = |event: &Event| match event {
        Event::Applied(object) => object.metadata().label("l") == Some("2"),
        Event::Deleted(_) | Event::Relisted(..) => false,
    };
    assert!(changes.events.len() == 2 && changes.events.iter().all(applied), "{changes:?}");
    following.abort();
}
