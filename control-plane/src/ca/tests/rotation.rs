use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{
    super::{authority::Authority, directory::CaDirectory, error::CaError, rotation::Rotation},
    pki::{HOUR, TestClock, TestWorkload, write},
};

/// Workloads that talk to each other and renew their certificates at half of their life.
pub(super) struct Mesh {
    workloads: Vec<TestWorkload>,
}

impl Mesh {
    pub(super) fn new(authority: &Authority, clock: &TestClock) -> Self {
        let workloads = (0..5).map(|n| {
            // They do not all renew at the same time.
            let mut workload = TestWorkload::certified_by(authority, clock.now());
            workload.renew_at -= HOUR * (2 * n);
            workload
        });
        Self { workloads: workloads.collect() }
    }

    pub(super) fn hour(&mut self, authority: &Authority, now: SystemTime) {
        for workload in &mut self.workloads {
            if now >= workload.renew_at {
                *workload = TestWorkload::certified_by(authority, now);
            }
        }
        for a in &self.workloads {
            for b in &self.workloads {
                a.trusts(b, now).unwrap();
            }
        }
    }
}

pub(super) fn step_of(authority: &Authority) -> &'static str {
    match authority.bundle().rotation() {
        None => "none",
        Some(Rotation::Requested) => "requested",
        Some(Rotation::Spreading { .. }) => "spreading",
        Some(Rotation::Switched { .. }) => "switched",
    }
}

/// Lets hours pass until the rotation is at another step; returns how many.
fn until_step_changes(
    mesh: &mut Mesh,
    authority: &Authority,
    clock: &TestClock,
    step: &str,
) -> u32 {
    for hours in 0..100 {
        if step_of(authority) != step {
            return hours;
        }
        clock.advance(HOUR);
        authority.refresh().unwrap();
        mesh.hour(authority, clock.now());
    }
    panic!("still {step}");
}

#[test]
fn a_root_gives_way_to_a_new_one_without_a_failed_verification() {
    let directory = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let authority = clock.open(directory.path());
    let old = authority.bundle().roots().to_vec();
    let mut mesh = Mesh::new(&authority, &clock);
    mesh.hour(&authority, clock.now());

    CaDirectory::open(directory.path()).unwrap().request_rotation().unwrap();
    authority.refresh().unwrap();
    assert_eq!(step_of(&authority), "spreading");
    let both = authority.bundle().roots().to_vec();
    assert_eq!((both.len(), &both[0]), (2, &old[0]));
    let hours = until_step_changes(&mut mesh, &authority, &clock, "spreading");
    assert!((24..=26).contains(&hours), "the last old leaf ends after a day, not {hours} h");

    // A process that takes over goes on where the other was.
    let authority = clock.open(directory.path());
    assert_eq!(step_of(&authority), "switched");
    assert_eq!(authority.bundle().roots(), both);
    let hours = until_step_changes(&mut mesh, &authority, &clock, "switched");
    assert!((24..=26).contains(&hours), "the last old leaf ends after a day, not {hours} h");

    assert_eq!(step_of(&authority), "none");
    assert_eq!(authority.bundle().roots(), &both[1..]);
    for _ in 0..30 {
        clock.advance(HOUR);
        authority.refresh().unwrap();
        mesh.hour(&authority, clock.now());
    }
    let reopened = clock.open(directory.path());
    assert_eq!(reopened.bundle().roots(), &both[1..]);
    mesh.hour(&reopened, clock.now());
}

#[test]
fn a_root_that_grows_old_is_replaced_without_being_asked() {
    let directory = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let authority = clock.open(directory.path());
    let year = HOUR * 24 * 365;
    clock.advance(year * 8);
    authority.refresh().unwrap();
    assert_eq!(step_of(&authority), "none");
    clock.advance(year + HOUR * 24 * 65);
    authority.refresh().unwrap();
    assert_eq!(step_of(&authority), "spreading");
    // Nothing was issued for years: no step has to wait for long.
    for _ in 0..2 {
        clock.advance(Duration::from_secs(1));
        authority.refresh().unwrap();
    }
    assert_eq!(step_of(&authority), "none");
    assert_eq!(authority.bundle().roots().len(), 1);
    assert!(authority.bundle().not_after() > clock.now() + year * 9);
}

#[test]
fn a_rotation_is_asked_for_once_and_where_there_is_a_root() {
    let directory = tempfile::tempdir().unwrap();
    let files = CaDirectory::open(directory.path()).unwrap();
    assert!(matches!(files.request_rotation(), Err(CaError::Unusable { .. })));
    TestClock::new().open(directory.path());
    files.request_rotation().unwrap();
    assert!(matches!(files.request_rotation(), Err(CaError::RotationUnderWay)));
    write(directory.path(), &[("cert-chain.pem", "x")]);
    assert!(matches!(files.request_rotation(), Err(CaError::PluggedIn)));
}

#[test]
fn a_last_step_that_was_interrupted_is_finished() {
    let read = |directory: &Path, name: &str| fs::read_to_string(directory.join(name)).unwrap();
    // What is in place of the old files when the process is killed.
    for replaced in [&[][..], &["ca-key.pem"], &["ca-key.pem", "ca-cert.pem"]] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let clock = TestClock::new();
        let authority = clock.open(path);
        TestWorkload::certified_by(&authority, clock.now());
        CaDirectory::open(path).unwrap().request_rotation().unwrap();
        authority.refresh().unwrap();
        clock.advance(HOUR * 26);
        authority.refresh().unwrap();
        assert_eq!(step_of(&authority), "switched");
        let next = read(path, "next-cert.pem");
        write(path, &[("root-cert.pem", &next)]);
        for name in replaced {
            write(path, &[(name, &read(path, &name.replace("ca-", "next-")))]);
        }
        clock.advance(HOUR * 26);
        let successor = clock.open(path);
        successor.refresh().unwrap();
        assert_eq!(step_of(&successor), "none");
        assert_eq!(read(path, "ca-cert.pem"), next);
        assert_eq!(successor.bundle().roots().len(), 1);
        assert!(!path.join("next-key.pem").exists());
    }
}

#[test]
fn processes_that_share_a_directory_have_one_root() {
    let directory = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let (one, other) = (clock.open(directory.path()), clock.open(directory.path()));
    assert_eq!(one.bundle().roots(), other.bundle().roots());
}
