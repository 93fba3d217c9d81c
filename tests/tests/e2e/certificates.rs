//! The identities of both ends as a peer sees them, and keys, which nobody sees.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result};
use fairlead_lab::{Child, Host as _, Pod, PodSpec, WorkloadEntry, python};

use crate::{
    clients::{SOON, curl},
    mesh::{HTTP, Mesh, vip4},
};

/// Port of the tunnels.
const HBONE: u16 = 15008;

/// What no file but one, no log line and no page may contain.
const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Makes a certificate for the identity `$2` that the lab's authority in `$1` signs, in `$3`.
const SIGN: &str = r#"set -e
printf 'subjectAltName=critical,URI:%s\nextendedKeyUsage=clientAuth,serverAuth\nkeyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:FALSE\n' "$2" > "$3.ext"
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$3.key" -out "$3.csr" -subj /
openssl x509 -req -in "$3.csr" -CA "$1/root-cert.pem" -CAkey "$1/root-key.pem" -set_serial 4711 -days 1 -extfile "$3.ext" -out "$3.pem"
"#;

/// Shows the names in the certificate of the server `$1` to a client with the certificate `$2`.
const SHOW: &str = r#"openssl s_client -connect "$1" -alpn h2 -tls1_3 -cert "$2.pem" -key "$2.key" \
    -CAfile "$3/root-cert.pem" -verify_return_error < /dev/null > "$2.session"
openssl x509 -in "$2.session" -noout -ext subjectAltName
grep -aE 'ALPN protocol|Verify return code|^New' "$2.session"
"#;

#[test]
fn the_server_of_a_tunnel_shows_the_identity_of_its_pod_and_no_other() -> Result<()> {
    let mesh = Mesh::new("showcert")?;
    let own = signed(&mesh, &mesh.outsider)?;
    let ca = mesh.ca_dir();
    for (pod, server) in
        [(&mesh.b, mesh.b.v4(HBONE)), (&mesh.b, mesh.b.v6(HBONE)), (&mesh.d, mesh.d.v4(HBONE))]
    {
        let shown = mesh
            .outsider
            .run(["sh", "-c", SHOW, "sh", &server.to_string(), &own, &ca.to_string_lossy()])?
            .checked()?
            .stdout;
        let names: Vec<_> = shown.split_whitespace().filter(|word| word.contains(':')).collect();
        assert!(names.contains(&format!("URI:{}", pod.identity()).as_str()), "{shown}");
        assert_eq!(shown.matches("URI:").count(), 1, "{shown}");
        assert!(shown.contains("ALPN protocol: h2"), "{shown}");
        assert!(shown.contains("TLSv1.3"), "{shown}");
        assert!(shown.contains("Verify return code: 0 (ok)"), "{shown}");
    }
    Ok(())
}

#[test]
fn the_client_of_a_tunnel_shows_the_identity_of_its_pod_and_no_other() -> Result<()> {
    let mut mesh = Mesh::new("clientcert")?;
    let (mimic, mut server) = mimic(&mut mesh, Pod::identity)?;
    for (pod, target) in [(&mesh.a, mimic.v4(HTTP)), (&mesh.c, mimic.v6(HTTP))] {
        assert!(curl(pod, target)?.is_refused());
        server.wait_for_output(&format!("URI {}\n", pod.identity()), SOON)?;
    }
    let said = server.stdout()?;
    let known = [mesh.a.identity(), mesh.c.identity()];
    for line in said.lines() {
        let expected = line == "TLSv1.3 h2"
            || line.strip_prefix("URI ").is_some_and(|name| known.iter().any(|own| own == name));
        assert!(expected, "{said}");
    }
    Ok(())
}

#[test]
fn a_server_with_another_identity_gets_no_byte() -> Result<()> {
    let mut mesh = Mesh::new("mimic")?;
    let other = mesh.d.identity();
    let (mimic, _server) = mimic(&mut mesh, |_| other.clone())?;
    assert!(curl(&mesh.a, mimic.v4(HTTP))?.is_refused());
    let line = mesh.n1.wait_for_access(|line| line.is("dst.workload", "mimic"))?;
    assert!(line.is("reason", "peer_identity_mismatch"), "{line:?}");
    assert!(line.is("bytes_sent", "0"), "{line:?}");
    Ok(())
}

#[test]
fn private_keys_are_in_one_file_and_nowhere_else() -> Result<()> {
    let mesh = Mesh::with_args("keys", &["--log-level", "trace"])?;
    assert!(curl(&mesh.a, vip4(10, 80))?.is_ok());
    assert!(curl(&mesh.a, vip4(20, 80))?.is_ok());

    let root_key = fs::read_to_string(mesh.ca_dir().join("root-key.pem"))?;
    let secret = root_key.lines().nth(1).context("no key")?;
    let mut with_keys = Vec::new();
    for dir in [&mesh.ca_dir(), mesh.n1.run_dir(), mesh.n2.run_dir()] {
        find(dir, &mut |path, text| {
            if text.contains(PRIVATE_KEY) || text.contains(secret) {
                with_keys.push(path.to_owned());
            }
        })?;
    }
    assert_eq!(with_keys, [mesh.ca_dir().join("root-key.pem")]);

    for node in [&mesh.n1, &mesh.n2] {
        let page = node.node().http_get("127.0.0.1:15000".parse()?, "/config_dump")?;
        assert_eq!(page.status, 200);
        assert!(page.body.contains("spiffe://cluster.local/ns/shop/sa/"), "{}", page.body);
        for text in [page.body, node.log()?] {
            assert!(!text.contains(PRIVATE_KEY) && !text.contains(secret));
        }
    }
    Ok(())
}

#[test]
fn the_key_of_the_authority_is_readable_by_its_owner_only() -> Result<()> {
    let mesh = Mesh::new("keymode")?;
    let mode =
        |path: &Path| -> Result<u32> { Ok(fs::metadata(path)?.permissions().mode() & 0o077) };
    assert_eq!(mode(&mesh.ca_dir().join("root-key.pem"))?, 0);
    Ok(())
}

/// Adds a pod on node 2 that the mesh takes for one of its own, with a TLS server in place of a
/// proxy whose certificate is for the identity that `shown` chooses.
fn mimic(mesh: &mut Mesh, shown: impl Fn(&Pod) -> String) -> Result<(Pod, Child)> {
    let spec = PodSpec::new("mimic").namespace("shop").service_account("mimic");
    let pod = mesh.lab.node(2).add_pod(spec)?;
    mesh.config.workloads.push(WorkloadEntry::of(&pod));
    mesh.apply()?;
    let own = sign(mesh, &shown(&pod), "mimic")?;
    let (cert, key) = (format!("{own}.pem"), format!("{own}.key"));
    let root = mesh.ca_dir().join("root-cert.pem").to_string_lossy().into_owned();
    let server =
        pod.serve(python("tls_server.py", &[HBONE.to_string(), cert, key, root]), HBONE)?;
    Ok((pod, server))
}

fn signed(mesh: &Mesh, pod: &Pod) -> Result<String> {
    sign(mesh, &pod.identity(), pod.name())
}

/// Returns the path, without its extension, of a certificate and a key for `identity`.
fn sign(mesh: &Mesh, identity: &str, name: &str) -> Result<String> {
    let own = mesh.lab.dir().join(name).to_string_lossy().into_owned();
    let ca = mesh.ca_dir();
    mesh.outsider
        .run(["sh", "-c", SIGN, "sh", &ca.to_string_lossy(), identity, &own])?
        .checked()?;
    Ok(own)
}

/// Shows `look` every file below `dir`.
fn find(dir: &Path, look: &mut impl FnMut(&Path, &str)) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, look)?;
        } else if path.is_file() {
            look(&path, &String::from_utf8_lossy(&fs::read(&path)?));
        }
    }
    Ok(())
}
