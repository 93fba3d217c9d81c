//! Certificates that a revocation list names: what is open ends, what is new is refused.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use fairlead_lab::{FairleadNode, Host as _, Pod, wait_for};
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
};
use tempfile::TempDir;

use crate::{
    clients::{SOON, curl, end_of, say, talk},
    mesh::{ECHO, Mesh, vip4},
};

/// Time from the change of the file to the end of the last connection.
const BOUND: Duration = Duration::from_secs(2);

const HOUR: Duration = Duration::from_hours(1);

/// A mesh whose proxies follow a file with revocation lists, which is not there at first.
struct Scene {
    mesh: Mesh,
    file: PathBuf,
    _dir: TempDir,
}

// === impl Scene ===

impl Scene {
    fn new(name: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let file = dir.path().join("ca-crl.pem");
        let mut mesh = Mesh::with_args(name, &["--crl-file", &file.to_string_lossy()])?;
        for pod in [mesh.b.clone(), mesh.d.clone()] {
            mesh.serve_echo(&pod)?;
        }
        Ok(Self { mesh, file, _dir: dir })
    }

    /// Returns a list of the mesh's authority with these serial numbers.
    fn list(&self, serials: &[SerialNumber]) -> Result<String> {
        let read = |name| fs::read_to_string(self.mesh.ca_dir().join(name));
        let key = KeyPair::from_pem(&read("root-key.pem")?)?;
        let issuer = Issuer::from_ca_cert_pem(&read("root-cert.pem")?, key)?;
        let now = SystemTime::now();
        let revoked = |serial: &SerialNumber| RevokedCertParams {
            serial_number: serial.clone(),
            revocation_time: (now - HOUR).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: (now - HOUR).into(),
            next_update: (now + HOUR).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&issuer)?.pem()?)
    }

    /// Replaces the file as a whole.
    fn write(&self, text: &str) -> Result<()> {
        let draft = self.file.with_extension("new");
        fs::write(&draft, text)?;
        Ok(fs::rename(draft, &self.file)?)
    }

    /// Puts a list in force, of which `openssl` says that the authority signed it.
    fn revoke(&self, serials: &[SerialNumber]) -> Result<()> {
        self.write(&self.list(serials)?)?;
        let root = self.mesh.ca_dir().join("root-cert.pem");
        let check = ["openssl", "crl", "-noout", "-CAfile", path(&root), "-in", path(&self.file)];
        let checked = self.mesh.outsider.run(check)?.checked()?;
        assert!(checked.stderr.contains("verify OK"), "{checked:?}");
        Ok(())
    }
}

#[test]
fn a_client_whose_certificate_is_revoked_loses_its_connections_and_gets_no_new_ones() -> Result<()>
{
    let scene = Scene::new("crlclient")?;
    let Mesh { n1, n2, a, c, .. } = &scene.mesh;
    let servers = [vip4(10, ECHO), vip4(20, ECHO)];
    let mut of_a = [talk(a, servers[0])?, talk(a, servers[1])?];
    let mut of_c = [talk(c, servers[0])?, talk(c, servers[1])?];
    for client in of_a.iter_mut().chain(&mut of_c) {
        say(client, "before")?;
    }
    scene.revoke(&[serial(n1, a)?])?;
    let started = Instant::now();
    for client in &mut of_a {
        assert_eq!(end_of(client)?, "reset");
    }
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
    for client in &mut of_c {
        say(client, "after")?;
    }
    for server in [vip4(10, 80), vip4(20, 80)] {
        assert!(curl(a, server)?.is_refused(), "{server}");
        assert!(curl(c, server)?.is_ok(), "{server}");
    }
    // By a tunnel, and on the own node: the side that refuses says why.
    for node in [n2, n1] {
        ended(node, a, "certificate_revoked")?;
        ended(node, a, "revoked_peer")?;
        let flags = [("response_flags", "CERT_REVOKED")];
        let failed = || node.metrics().map(|m| m.sum("istio_tcp_connections_closed_total", &flags));
        wait_for("the metric", SOON, || Ok((failed()? > 0.0).then_some(())))?;
    }
    Ok(())
}

#[test]
fn a_server_whose_certificate_is_revoked_is_left_at_once_and_trusted_again_without_the_list()
-> Result<()> {
    let scene = Scene::new("crlserver")?;
    let Mesh { n1, n2, a, b, .. } = &scene.mesh;
    let mut client = talk(a, vip4(10, ECHO))?;
    say(&mut client, "before")?;
    scene.revoke(&[serial(n2, b)?])?;
    assert_eq!(end_of(&mut client)?, "reset");
    assert!(curl(a, vip4(10, 80))?.is_refused());
    ended(n1, a, "certificate_revoked")?;
    ended(n1, a, "revoked_peer")?;

    // What is broken changes nothing, and is reported.
    scene.write("revoked: nobody")?;
    reported(n1, "the last good ones stay")?;
    assert!(curl(a, vip4(10, 80))?.is_refused());
    fs::remove_file(&scene.file)?;
    wait_for("trust", SOON, || Ok(curl(a, vip4(10, 80))?.is_ok().then_some(())))
}

#[test]
fn a_proxy_does_not_start_with_lists_that_it_cannot_read() -> Result<()> {
    let scene = Scene::new("crlbroken")?;
    let Scene { mesh, file, .. } = &scene;
    scene.write("revoked: nobody")?;
    let mut command = std::process::Command::new(mesh.n2.binary());
    command.args(["run", "--node-name", "n2", "--run-dir", path(&mesh.lab.dir().join("other"))]);
    command.args(["--local-config", path(&mesh.config_path()), "--single-process"]);
    command.args(["--local-ca", path(&mesh.ca_dir()), "--crl-file", path(file)]);
    let output = mesh.n2.node().run(command)?;
    assert!(!output.status.success());
    assert!(output.stderr.contains("list 1 cannot be used"), "{output:?}");
    Ok(())
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// Returns the serial number of the certificate that a proxy shows for a pod.
fn serial(node: &FairleadNode, pod: &Pod) -> Result<SerialNumber> {
    let page = node.node().http_get("127.0.0.1:15000".parse()?, "/config_dump")?;
    let dump: serde_json::Value = serde_json::from_str(&page.body)?;
    let certificates = dump["certificates"].as_array().context("no certificates")?;
    let own = certificates.iter().find(|shown| shown["identity"] == pod.identity());
    let text = own
        .and_then(|own| own["certChain"][0]["serialNumber"].as_str())
        .context("no certificate")?;
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
    Ok(SerialNumber::from(bytes.collect::<Result<Vec<_>, _>>()?))
}

/// Waits for a connection of `client` that ended for `reason`, says `node`.
fn ended(node: &FairleadNode, client: &Pod, reason: &str) -> Result<()> {
    let address = client.v4(0).ip().to_string();
    node.wait_for_access(|line| {
        let source = line.get("src.addr").is_some_and(|from| from.starts_with(&address));
        source && line.is("reason", reason)
    })
    .map(drop)
}

fn reported(node: &FairleadNode, text: &str) -> Result<()> {
    wait_for("the report", SOON, || Ok(node.log()?.contains(text).then_some(())))
}
