//! TLS with servers by what is in secrets.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use fairlead_lab::wait_for;
use serde_json::{Value, json};

use super::{
    FELT,
    origins::{NAME, Outside, SNI, issue},
};
use crate::{
    clients::Answer,
    peer::{Ca, Credentials},
};

/// The secret that rules name.
const SECRET: &str = "client";

/// What rules say of TLS.
const RULE: &str = "tls: {mode: MUTUAL, credentialName: client}";

/// What lines of keys in PEM have.
const KEY: &str = "PRIVATE KEY";

/// Returns a secret with these keys.
fn secret(namespace: &str, data: &[(&str, &str)]) -> String {
    let data: BTreeMap<_, _> = data.iter().copied().collect();
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": SECRET, "namespace": namespace },
        "type": "Opaque",
        "stringData": data,
    });
    secret.to_string()
}

// === impl Outside ===

impl Outside {
    fn put_secret(&self, data: &[(&str, &str)]) -> Result<()> {
        self.bound.mesh.plane.write("secret.yaml", &secret("shop", data))
    }

    /// Has the secret hold a new certificate of this name; returns that.
    fn put_certificate(&self, name: &str) -> Result<Credentials> {
        let own = issue(&self.ca, name)?;
        let (certificate, key) = (own.leaf_pem(), own.key_pem());
        self.put_secret(&[("tls.crt", certificate), ("tls.key", &key), ("ca.crt", self.ca.pem())])?;
        Ok(own)
    }

    /// Waits until the server sees a certificate of this name.
    fn wait_for_client(&self, name: &str) -> Result<Answer> {
        self.wait_for(name, |answer| answer.is_ok() && answer.seen("client").contains(name))
    }

    /// Returns what the waypoint shows of secrets.
    fn shown(&self) -> Result<Value> {
        Ok(self.bound.waypoint.config_dump()?["credentials"].clone())
    }

    /// Checks that neither pages nor logs show a key.
    fn ensure_discreet(&self, own: &Credentials) -> Result<()> {
        let plane = &self.bound.mesh.plane;
        let name = format!("credential/shop/{SECRET}");
        let shown = [
            self.bound.waypoint.config_dump()?.to_string(),
            self.bound.waypoint.log()?,
            plane.resource(&name)?.unwrap_or_default(),
            plane.log()?,
        ];
        let key = own.key_pem();
        let inside = key.lines().find(|line| !line.contains(KEY)).unwrap_or_default();
        for page in shown {
            ensure!(!page.contains(KEY) && !page.contains(inside), "a key is shown: {page}");
        }
        Ok(())
    }
}

#[test]
fn a_server_is_shown_the_certificate_of_a_secret_for_as_long_as_there_is_one() -> Result<()> {
    let outside = Outside::new("wpsecret", true)?;
    outside.rule(RULE)?;
    outside.wait_for_failure("trafficPolicy.tls.credentialName: there is no secret shop/client")?;
    outside.put_certificate("first.example")?;
    outside.wait_for_client("first.example")?;
    // By another one from the next connection on, without a restart.
    let own = outside.put_certificate("second.example")?;
    outside.wait_for_client("second.example")?;
    let parts = outside.shown()?;
    assert_eq!(parts[0]["secret"], "shop/client", "{parts}");
    assert_eq!(parts[0]["private_key"], true, "{parts}");
    outside.ensure_discreet(&own)?;
    // The certificate without its key.
    let (certificate, roots) = (own.leaf_pem(), outside.ca.pem());
    outside.put_secret(&[("tls.crt", certificate), ("ca.crt", roots)])?;
    outside.wait_for_failure("tls.key (or key) of secret shop/client: there is none in it")?;
    ensure!(outside.bound.get(&[])?.is_ok(), "others are not affected");
    outside.put_certificate("third.example")?;
    outside.wait_for_client("third.example")?;
    outside.bound.mesh.plane.remove("secret.yaml")?;
    outside.wait_for("a refusal", |answer| answer.status == "503")?;
    ensure!(outside.bound.get(&[])?.is_ok(), "others are not affected");
    let parts = outside.shown()?;
    assert_eq!((&parts[0]["absent"], &parts[0]["private_key"]), (&json!(true), &json!(false)));
    // Nobody needs it any more.
    outside.rule("tls: {mode: SIMPLE, insecureSkipVerify: true}")?;
    wait_for("the secret to be forgotten", FELT, || {
        Ok((outside.shown()? == json!([])).then_some(()))
    })
}

#[test]
fn the_roots_of_a_secret_and_the_names_of_a_rule_say_whom_to_trust() -> Result<()> {
    let outside = Outside::new("wpsecretroots", false)?;
    let other = Ca::foreign()?;
    let simple = |more: &str| format!("tls: {{mode: SIMPLE, credentialName: client{more}}}");
    outside.rule(&simple(""))?;
    outside.put_secret(&[("ca.crt", other.pem())])?;
    outside.wait_for_failure("TLS_error: invalid peer certificate")?;
    outside.put_secret(&[("cacert", outside.ca.pem()), ("ca.crt", other.pem())])?;
    let answer = outside.wait_for("an answer to one that is known", Answer::is_ok)?;
    assert_eq!(answer.seen("sni"), NAME, "{answer:?}");
    outside.rule(&simple(&format!(", sni: {SNI}")))?;
    outside.wait_for_failure("TLS_error")?;
    outside.rule(&simple(&format!(", sni: {SNI}, subjectAltNames: [{NAME}]")))?;
    let answer = outside.wait_for("an answer to one of the names", Answer::is_ok)?;
    assert_eq!(answer.seen("sni"), SNI, "{answer:?}");
    // Nothing to trust, which only matters to who looks.
    outside.put_secret(&[("note", "nothing")])?;
    outside.wait_for_failure("ca.crt (or cacert) of secret shop/client: there is none in it")?;
    outside.rule(&simple(", insecureSkipVerify: true"))?;
    outside.wait_for("an answer from whomever", Answer::is_ok).map(drop)
}

#[test]
fn a_secret_of_another_namespace_is_not_told() -> Result<()> {
    let outside = Outside::new("wpsecretelse", true)?;
    outside.rule(RULE)?;
    let own = issue(&outside.ca, "elsewhere.example")?;
    let (certificate, key) = (own.leaf_pem(), own.key_pem());
    let data = [("tls.crt", certificate), ("tls.key", &key), ("ca.crt", outside.ca.pem())];
    let plane = &outside.bound.mesh.plane;
    plane.write("secret.yaml", &secret("bank", &data))?;
    // One that is told after it shows that it has been looked at.
    plane.write("roots.yaml", &secret("shop", &[("ca.crt", outside.ca.pem())]))?;
    outside.wait_for_failure("tls.key (or key) of secret shop/client: there is none in it")?;
    let shown = outside.shown()?;
    assert_eq!(shown.as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!(shown[0]["private_key"], false, "{shown}");
    assert_eq!(plane.resource("credential/bank/client")?, None);
    outside.ensure_discreet(&own)
}
