use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Barrier,
    thread,
};

use tempfile::TempDir;

use super::*;

const DIRECTORY_VARIABLE: &str = "FAIRLEAD_TEST_CA_DIR";
const RESULT_VARIABLE: &str = "FAIRLEAD_TEST_CA_RESULT";
const HOUR: Duration = Duration::from_hours(1);

fn trust_domain() -> TrustDomain {
    TrustDomain::default()
}

fn cart() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_new_root_is_private_and_is_found_again() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("made/on/the/way");
    let first = LocalCa::open_or_create(&dir, &trust_domain()).unwrap();
    let again = LocalCa::open_or_create(&dir, &trust_domain()).unwrap();
    assert_eq!(first.root(), again.root());
    assert_eq!(mode(&dir), 0o700);
    let mut names: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["root-cert.pem", "root-key.pem"]);
    assert_eq!(mode(&dir.join("root-cert.pem")), 0o600);
    assert_eq!(mode(&dir.join("root-key.pem")), 0o600);
}

#[test]
fn a_root_may_sign_leaves_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let ca = LocalCa::open_or_create(dir.path(), &trust_domain()).unwrap();
    let (_, root) = X509Certificate::from_der(ca.root()).unwrap();
    let constraints = root.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = root.key_usage().unwrap().unwrap();
    assert!(usage.value.key_cert_sign() && usage.value.crl_sign());
    assert!(!usage.value.digital_signature());
    assert!(ca.root_validity.lifetime() >= ROOT_LIFETIME);
}

#[test]
fn an_issued_leaf_follows_the_svid_standard() {
    let dir = TempDir::new().unwrap();
    let ca = LocalCa::open_or_create(dir.path(), &trust_domain()).unwrap();
    let now = SystemTime::now();
    let svid = ca.issue(&cart(), HOUR, now).unwrap();
    assert_eq!(svid.identity(), &cart());
    assert_eq!(svid.roots(), [ca.root().clone()]);

    let (_, leaf) = X509Certificate::from_der(&svid.chain()[0]).unwrap();
    assert_eq!(leaf.subject().iter().count(), 0);
    assert!(leaf.subject_alternative_name().unwrap().unwrap().critical);
    assert!(!leaf.basic_constraints().unwrap().unwrap().value.ca);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature());
    assert_eq!(usage.value.flags, 1);
    let extended = leaf.extended_key_usage().unwrap().unwrap();
    assert!(extended.value.server_auth && extended.value.client_auth);
    let (_, root) = X509Certificate::from_der(ca.root()).unwrap();
    leaf.verify_signature(Some(root.public_key())).unwrap();

    let Validity { not_before, not_after } = svid.validity();
    let second = Duration::from_secs(1);
    assert!(not_before <= now - CLOCK_SKEW_TOLERANCE);
    assert!(not_before >= now - CLOCK_SKEW_TOLERANCE - second);
    assert!(not_after <= now + HOUR && not_after >= now + HOUR - second);
}

#[test]
fn every_leaf_has_its_own_key_and_serial_number() {
    let dir = TempDir::new().unwrap();
    let ca = LocalCa::open_or_create(dir.path(), &trust_domain()).unwrap();
    let issue = || ca.issue(&cart(), HOUR, SystemTime::now()).unwrap();
    let (one, two) = (issue(), issue());
    assert_ne!(one.leaf().serial, two.leaf().serial);
    let key = |svid: &Svid| svid.certified_key().key.public_key().unwrap().to_vec();
    assert_ne!(key(&one), key(&two));
}

#[test]
fn a_leaf_never_outlives_the_root() {
    let dir = TempDir::new().unwrap();
    let ca = LocalCa::open_or_create(dir.path(), &trust_domain()).unwrap();
    let end = ca.root_validity.not_after;
    for ttl in [ROOT_LIFETIME * 2, Duration::MAX] {
        let svid = ca.issue(&cart(), ttl, SystemTime::now()).unwrap();
        assert_eq!(svid.validity().not_after, end);
    }
    let late = ca.issue(&cart(), HOUR, end).unwrap_err();
    assert!(matches!(late, CaError::RootExpired(_)), "{late}");
}

#[test]
fn an_identity_of_another_trust_domain_is_refused() {
    let dir = TempDir::new().unwrap();
    let ca = LocalCa::open_or_create(dir.path(), &trust_domain()).unwrap();
    let foreign = "spiffe://elsewhere/ns/shop/sa/cart".parse().unwrap();
    let error = ca.issue(&foreign, HOUR, SystemTime::now()).unwrap_err();
    assert!(matches!(error, CaError::ForeignIdentity { .. }), "{error}");
}

/// Makes a valid root, applies `damage`, and returns the error of opening it again.
fn error_after(damage: impl FnOnce(&Path)) -> String {
    let dir = TempDir::new().unwrap();
    LocalCa::open_or_create(dir.path(), &trust_domain()).unwrap();
    damage(dir.path());
    let snapshot = || -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = snapshot();
    let error = LocalCa::open_or_create(dir.path(), &trust_domain()).unwrap_err();
    assert_eq!(snapshot(), before, "the files were touched");
    error.to_string()
}

fn replace(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::write(dir.join(name), content).unwrap();
}

type Damage = fn(&Path);

/// Checks that each damage is answered with an error that names the file and the problem.
fn assert_named(file: &str, cases: &[(Damage, &str)]) {
    for (damage, problem) in cases {
        let error = error_after(damage);
        assert!(error.contains(file) && error.contains(problem), "{error}");
    }
}

#[test]
fn a_damaged_certificate_file_is_named_and_never_overwritten() {
    const FILE: &str = "root-cert.pem";
    assert_named(
        FILE,
        &[
            (|dir| replace(dir, FILE, ""), "0 certificates"),
            (|dir| replace(dir, FILE, "garbage"), "0 certificates"),
            (|dir| replace(dir, FILE, [0xff; 9]), "read"),
            (|dir| replace(dir, FILE, vec![b'a'; 1 << 20]), "too large"),
            (|dir| fs::remove_file(dir.join(FILE)).unwrap(), "missing"),
        ],
    );
}

#[test]
fn a_damaged_key_file_is_named_and_never_overwritten() {
    const FILE: &str = "root-key.pem";
    assert_named(
        FILE,
        &[
            (|dir| replace(dir, FILE, "garbage"), "no private key"),
            (|dir| replace(dir, FILE, another_key()), FILE),
            (|dir| fs::remove_file(dir.join(FILE)).unwrap(), "missing"),
            (|dir| set_mode(&dir.join(FILE), 0o644), "chmod 600"),
        ],
    );
}

fn another_key() -> String {
    KeyPair::generate().unwrap().serialize_pem()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn two_certificates_in_one_file_are_refused() {
    let error = error_after(|dir| {
        let pem = fs::read_to_string(dir.join("root-cert.pem")).unwrap();
        replace(dir, "root-cert.pem", pem.repeat(2));
    });
    assert!(error.contains("2 certificates"), "{error}");
}

#[test]
fn a_certificate_that_may_not_sign_is_no_root() {
    let error = error_after(|dir| {
        let key = KeyPair::from_pem(&fs::read_to_string(dir.join("root-key.pem")).unwrap());
        let certificate = CertificateParams::default().self_signed(&key.unwrap()).unwrap();
        replace(dir, "root-cert.pem", certificate.pem());
    });
    assert!(error.contains("may not sign"), "{error}");
}

#[test]
fn an_expired_root_is_named() {
    let error = error_after(|dir| {
        let pem = generate_root(&trust_domain(), SystemTime::now() - ROOT_LIFETIME * 2).unwrap();
        replace(dir, "root-cert.pem", pem.certificate);
        replace(dir, "root-key.pem", pem.key);
    });
    assert!(error.contains("expired") && error.contains("move both away"), "{error}");
}

#[test]
fn a_root_of_another_trust_domain_is_refused() {
    let dir = TempDir::new().unwrap();
    LocalCa::open_or_create(dir.path(), &trust_domain()).unwrap();
    let error = LocalCa::open_or_create(dir.path(), &"elsewhere".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("spiffe://cluster.local"), "{error}");
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let dir = TempDir::new().unwrap();
    set_mode(dir.path(), 0o777);
    let error = LocalCa::open_or_create(dir.path(), &trust_domain()).unwrap_err();
    assert!(error.to_string().contains("chmod 700"), "{error}");
}

#[test]
fn a_draft_of_a_killed_process_is_no_obstacle() {
    let dir = TempDir::new().unwrap();
    replace(dir.path(), "root-key.pem.new", "half a k");
    LocalCa::open_or_create(dir.path(), &trust_domain()).unwrap();
    assert!(!dir.path().join("root-key.pem.new").exists());
}

#[test]
fn threads_that_start_together_end_with_one_root() {
    const THREADS: usize = 8;
    for _ in 0..20 {
        let dir = TempDir::new().unwrap();
        let start = Barrier::new(THREADS);
        let open = || {
            start.wait();
            LocalCa::open_or_create(dir.path(), &trust_domain()).unwrap().root().clone()
        };
        let roots: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

/// Does nothing unless another test runs it in a process of its own.
#[test]
fn a_process_opens_the_directory_it_was_given() {
    let Ok(dir) = std::env::var(DIRECTORY_VARIABLE) else {
        return;
    };
    let result = std::env::var(RESULT_VARIABLE).unwrap();
    let ca = LocalCa::open_or_create(Path::new(&dir), &trust_domain()).unwrap();
    fs::write(result, ca.root()).unwrap();
}

#[test]
fn processes_that_start_together_end_with_one_root() {
    const PROCESSES: usize = 6;
    let dir = TempDir::new().unwrap();
    let ca_dir = dir.path().join("ca");
    let result = |n: usize| dir.path().join(format!("root-{n}"));
    let module = module_path!().split_once("::").unwrap().1;
    let child = |n| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::a_process_opens_the_directory_it_was_given")])
            .env(DIRECTORY_VARIABLE, &ca_dir)
            .env(RESULT_VARIABLE, result(n))
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..PROCESSES).map(child).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let roots: Vec<_> = (0..PROCESSES).map(|n| fs::read(result(n)).unwrap()).collect();
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
    assert!(!roots[0].is_empty());
}

#[test]
fn debug_output_of_the_ca_holds_no_key() {
    let dir = TempDir::new().unwrap();
    let ca = LocalCa::open_or_create(dir.path(), &trust_domain()).unwrap();
    let shown = format!("{ca:?}");
    assert!(shown.contains("cluster.local") && !shown.contains("key"), "{shown}");
}
