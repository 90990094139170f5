//! TLS to directories: an authority of the test's own, and who believes it.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::PASSWORD;
use super::served::Served;

/// Puts a server's certificate and key into a folder (`cert.pem`, `key.pem`), for
/// 127.0.0.1, and the authorities that may be believed: `ca.pem`, which made it, and
/// `other.pem`, which did not.
pub(super) fn certificates(folder: &Path) {
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("own folder");
    let (authority, pem) = authority("an authority");
    let (_, other) = self::authority("another authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
    let made = params.signed_by(&key, &authority).expect("a certificate");
    write("cert.pem", &made.pem());
    write("key.pem", &key.serialize_pem());
    write("ca.pem", &pem);
    write("other.pem", &other);
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let pem = params.self_signed(&key).expect("a certificate").pem();
    (Issuer::new(params, key), pem)
}

/// A directory is asked behind a handshake with who shows a certificate of the authority
/// that is believed, and with nobody else. `serve` makes a popcore that believes this
/// file.
pub(super) fn only_its_authority_is_believed(folder: &Path, serve: impl Fn(&Path) -> Served) {
    let popcore = serve(&folder.join("ca.pem"));
    popcore.log_in("bob", PASSWORD);
    let (said, well) = popcore.check();
    assert!(well && said.contains("it answers"), "{said}");
    let deceived = serve(&folder.join("other.pem"));
    let reply = deceived.reply("bob", PASSWORD);
    assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply}");
    let (said, well) = deceived.check();
    let cause = said.to_lowercase();
    let is_told = cause.contains("no answer") && cause.contains("certificate");
    assert!(!well && is_told, "{said}");
}
