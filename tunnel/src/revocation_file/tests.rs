use std::{fs, time::Duration};

use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::*;
use crate::tls::tests::pki::TestCa;

/// More than a change takes to be noticed.
const SOON: Duration = Duration::from_secs(10);

fn lists(number: u64) -> String {
    let ca = TestCa::new();
    (0..number).map(|serial| ca.revoke(&[serial]).pem().unwrap()).collect()
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("crl.pem");
    (dir, path)
}

#[test]
fn without_the_file_nothing_is_revoked_and_a_broken_one_changes_nothing() {
    let (_dir, path) = place();
    let revocations = Revocations::none();
    let mut file = RevocationFile::start(&path, revocations.clone()).unwrap();
    assert_eq!(revocations.lists(), 0);

    fs::write(&path, lists(2)).unwrap();
    file.reload().unwrap();
    assert_eq!(revocations.lists(), 2);

    fs::write(&path, "what is this").unwrap();
    let error = file.reload().unwrap_err().to_string();
    assert!(error.contains("crl.pem: list 1 cannot be used"), "{error}");
    assert_eq!(revocations.lists(), 2);

    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(file.reload(), Err(RevocationFileError::Read { .. })));
    assert_eq!(revocations.lists(), 2);

    fs::remove_dir(&path).unwrap();
    file.reload().unwrap();
    assert_eq!(revocations.lists(), 0);
}

#[test]
fn a_file_that_cannot_be_used_at_the_start_is_an_error() {
    let (_dir, path) = place();
    for (what, content) in [("words", "revoked: all".to_owned()), ("nothing", String::new())] {
        fs::write(&path, content).unwrap();
        let started = RevocationFile::start(&path, Revocations::none());
        assert!(matches!(started, Err(RevocationFileError::Invalid { .. })), "{what}");
    }
    let large = fs::File::create(&path).unwrap();
    large.set_len(MAX_FILE_BYTES + 1).unwrap();
    let started = RevocationFile::start(&path, Revocations::none());
    assert!(matches!(started, Err(RevocationFileError::TooLarge { .. })));
    let nowhere = RevocationFile::start(Path::new("/nowhere/crl.pem"), Revocations::none());
    assert!(matches!(nowhere, Err(RevocationFileError::Watch { .. })));
}

#[tokio::test]
async fn a_file_that_comes_is_applied() {
    let (_dir, path) = place();
    let revocations = Revocations::none();
    let file = RevocationFile::start(&path, revocations.clone()).unwrap();
    fs::write(&path, lists(1)).unwrap();
    let applied = async {
        while revocations.lists() == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = file.follow() => panic!("it is not watched"),
        applied = timeout(SOON, applied) => applied.unwrap(),
    }
}
