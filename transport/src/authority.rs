//! Certificate authorities: one issues the certificates of nodes, one those of clients.
//! `cortado init` and the local cluster use it; nodes and clients only read the files.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cortado_protocol::{NodeId, content_hash};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::identity::{Identity, IdentityError, Role, checked_name};

/// How long certificates are valid. They begin in the past, so that a node whose clock was set back
/// can still use them.
const VALID_YEARS: i32 = 10;
const VALID_FROM_YEAR: i32 = 2020;

/// Issues the certificates of one cluster's nodes, or those of its clients.
pub struct Authority {
    cluster: String,
    role: Role,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key, both PEM. The key is a secret.
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key (PKCS #8).
    pub key_pem: String,
}

/// Why an authority could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A name that can't stand in a certificate.
    #[error(transparent)]
    Name(#[from] IdentityError),
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path} is not an authority's certificate and key: {reason}", path = path.display())]
    NotAuthority {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The certificate could not be made.
    #[error("certificate could not be made: {0}")]
    Issue(#[from] rcgen::Error),
}

impl Authority {
    /// A new authority with a new key (ECDSA P-256).
    ///
    /// # Errors
    /// If the cluster's name can't stand in a certificate.
    pub fn generate(cluster: &str, role: Role) -> Result<Self, AuthorityError> {
        let identity = Identity::Authority { cluster: checked_name(cluster)?.to_owned(), role };
        let key = KeyPair::generate()?;
        // Authorities must differ in their subject, or a verifier would take one for another.
        let mark = content_hash(key.public_key_raw());
        let subject = format!("Cortado {cluster} {role} authority {mark:016x}");
        let mut params = params(&subject, &identity, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { cluster: cluster.to_owned(), role, certificate_pem, issuer })
    }

    /// Reads an authority that [`Authority::save`] wrote.
    ///
    /// # Errors
    /// If a file can't be read or is not what it should be.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let certificate_pem = read(certificate)?;
        let other = |path: &Path, reason: String| AuthorityError::NotAuthority {
            path: path.to_owned(),
            reason,
        };
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| other(certificate, error.to_string()))?;
        let Identity::Authority { cluster, role } =
            Identity::of(&der).map_err(|error| other(certificate, error.to_string()))?
        else {
            return Err(other(certificate, "it is the certificate of a node or client".into()));
        };
        let pair = KeyPair::from_pem(&read(key)?).map_err(|e| other(key, e.to_string()))?;
        let issuer = Issuer::from_ca_cert_der(&der, pair)
            .map_err(|error| other(certificate, error.to_string()))?;
        Ok(Self { cluster, role, certificate_pem, issuer })
    }

    /// Writes certificate and key; only the owner may read the key. Existing files are replaced.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), AuthorityError> {
        write(certificate, &self.certificate_pem, false)?;
        write(key, &self.issuer.key().serialize_pem(), true)
    }

    /// The authority's certificate, PEM. The other side of a connection must trust it.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The cluster that it issues certificates for.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Whether it issues certificates for nodes or for clients.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// A certificate for a node, valid for both ends of a connection. The host names and addresses
    /// in it are only informative: the other side recognises a node by its id.
    ///
    /// # Errors
    /// If a name is not a DNS name, or this is the authority for clients.
    pub fn issue_node(
        &self,
        node: NodeId,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<Issued, AuthorityError> {
        self.expect_role(Role::Peer)?;
        let identity = Identity::Node { cluster: self.cluster.clone(), node };
        let mut alternatives = Vec::with_capacity(names.len() + addresses.len());
        for name in names {
            alternatives.push(SanType::DnsName(Ia5String::try_from(name.as_str())?));
        }
        alternatives.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        let mut params = params(node.as_str(), &identity, &alternatives)?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    /// A certificate for a client.
    ///
    /// # Errors
    /// If the name can't stand in a certificate, or this is the authority for nodes.
    pub fn issue_client(&self, name: &str) -> Result<Issued, AuthorityError> {
        self.expect_role(Role::Client)?;
        let name = checked_name(name)?;
        let identity = Identity::Client { cluster: self.cluster.clone(), name: name.to_owned() };
        let mut params = params(name, &identity, &[])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn expect_role(&self, role: Role) -> Result<(), AuthorityError> {
        if self.role == role {
            return Ok(());
        }
        let cluster = self.cluster.clone();
        Err(IdentityError::NotPeer(Identity::Authority { cluster, role: self.role }).into())
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Issued, AuthorityError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate_pem, key_pem: key.serialize_pem() })
    }
}

impl Issued {
    /// Writes certificate and key; only the owner may read the key. Existing files are replaced.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), AuthorityError> {
        write(certificate, &self.certificate_pem, false)?;
        write(key, &self.key_pem, true)
    }
}

fn params(
    subject: &str,
    identity: &Identity,
    alternatives: &[SanType],
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let years = i32::try_from(now.as_secs() / 31_556_952).unwrap_or(0);
    params.not_before = rcgen::date_time_ymd(VALID_FROM_YEAR, 1, 1);
    params.not_after = rcgen::date_time_ymd(1970 + years.min(1000) + VALID_YEARS, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.subject_alt_names =
        vec![SanType::URI(Ia5String::try_from(identity.to_string().as_str())?)];
    params.subject_alt_names.extend_from_slice(alternatives);
    Ok(params)
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|source| AuthorityError::File { path: path.into(), source })
}

/// Writes to a new file and renames it, so that other users can't read a key even for a moment.
fn write(path: &Path, text: &str, secret: bool) -> Result<(), AuthorityError> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, if secret { 0o600 } else { 0o644 });
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        options.open(&temporary)?.write_all(text.as_bytes())?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| AuthorityError::File { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_survives_its_files_and_keeps_its_key_secret() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("ca.pem"), dir.path().join("ca.key"));
        Authority::generate("dev", Role::Peer).unwrap().save(&cert, &key).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let loaded = Authority::load(&cert, &key).unwrap();
        assert_eq!((loaded.cluster(), loaded.role()), ("dev", Role::Peer));
        let issued = loaded
            .issue_node("node-1".parse().unwrap(), &["localhost".into()], &[[127, 0, 0, 1].into()])
            .unwrap();
        let der = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap();
        assert_eq!(Identity::of(&der).unwrap().to_string(), "urn:cortado:dev:node:node-1");
        issued.save(&cert, &key).unwrap();
        assert!(matches!(Authority::load(&cert, &key), Err(AuthorityError::NotAuthority { .. })));
    }

    #[test]
    fn each_authority_issues_its_own_kind_only() {
        let client = Authority::generate("dev", Role::Client).unwrap();
        assert!(client.issue_client("alice").is_ok());
        assert!(client.issue_client("a:b").is_err());
        assert!(client.issue_node("node-1".parse().unwrap(), &[], &[]).is_err());
        assert!(Authority::generate("no spaces", Role::Peer).is_err());
    }
}
