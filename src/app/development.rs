//! A certificate for the SMTP listeners of a gateway that was given none: issued by an authority of its own, kept in the
//! data directory, and renewed before it ends.
//!
//! Not here: certificates that strangers trust (certs/README.md), and showing one (`net::Certificates`).

use std::{
    fs::Permissions,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_util::sync::CancellationToken;

use super::x509;
use crate::net::Certificates;

/// Long: each new one has to be made known to every client.
const AUTHORITY_LASTS: SignedDuration = SignedDuration::from_hours(24 * 3650);
/// As long as public authorities issue for.
const CERTIFICATE_LASTS: SignedDuration = SignedDuration::from_hours(24 * 90);
/// A third of that, as ACME clients do.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_hours(24 * 30);
/// Clients' clocks may be behind ours.
const BEGINS_BEFORE: SignedDuration = SignedDuration::from_hours(24);
/// How often the time left is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
const AUTHORITY_NAME: &str = "Mailweave development authority";

/// Why there is no development certificate.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentError {
    #[error("cannot write {path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot issue it")]
    Issue(#[from] rcgen::Error),
}

/// Where it lies, and for whom it is.
#[derive(Debug, Clone)]
pub struct Development {
    /// What clients must trust, in PEM.
    authority: PathBuf,
    hostname: String,
}

/// The authority, ready to issue.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Development {
    #[must_use]
    pub fn new(authority: PathBuf, hostname: String) -> Self {
        Self { authority, hostname }
    }

    /// Certificate, chain and key in one file, which is replaced whole: a reader never finds one without the other.
    #[must_use]
    pub fn pair(&self) -> PathBuf {
        self.authority.with_file_name("development.pem")
    }

    fn authority_key(&self) -> PathBuf {
        self.authority.with_extension("key")
    }

    /// Makes what is missing, unusable, for another name or nearly over. True when it made something.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn ensure(&self, now: Timestamp) -> Result<bool, DevelopmentError> {
        let authority = match self.authority(now) {
            Some(authority) if self.serves(&authority, now) => return Ok(false),
            Some(authority) => authority,
            None => self.make_authority(now)?,
        };
        self.issue(&authority, now)?;
        Ok(true)
    }

    /// Renews it in time, until `shutdown`. Whoever shows it reads it anew when the file changes.
    pub async fn keep(self, shutdown: CancellationToken) {
        loop {
            tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(LOOK_EVERY) => {} }
            match self.ensure(Timestamp::now()) {
                Ok(false) => {}
                Ok(true) => tracing::info!("development certificate renewed"),
                Err(error) => tracing::warn!(%error, "development certificate not renewed, trying again"),
            }
        }
    }

    /// The one that is there, if it outlives the next certificate.
    fn authority(&self, now: Timestamp) -> Option<Authority> {
        let certificate = x509::certificates(&self.authority).into_iter().next()?;
        let key = KeyPair::from_pem(&std::fs::read_to_string(self.authority_key()).ok()?).ok()?;
        let lasts = x509::not_after(&certificate)?.duration_since(now) > CERTIFICATE_LASTS;
        // Two processes that began at once in one directory may have left the key of one and the certificate of the other.
        let public = key.public_key_raw();
        let fits = certificate.windows(public.len()).any(|octets| octets == public);
        (lasts && fits).then(|| Authority { issuer: Issuer::new(authority_parameters(), key), certificate })
    }

    fn make_authority(&self, now: Timestamp) -> Result<Authority, DevelopmentError> {
        let key = KeyPair::generate()?;
        let mut parameters = authority_parameters();
        valid(&mut parameters, now, AUTHORITY_LASTS);
        let certificate = parameters.self_signed(&key)?;
        // The certificate last: without it the key is not looked at.
        let _ = std::fs::remove_file(&self.authority);
        write(&self.authority_key(), &key.serialize_pem(), 0o600)?;
        write(&self.authority, &certificate.pem(), 0o644)?;
        Ok(Authority { issuer: Issuer::new(parameters, key), certificate: certificate.der().clone() })
    }

    /// Whether the certificate that is there is this authority's, for our name, and good for a while.
    fn serves(&self, authority: &Authority, now: Timestamp) -> bool {
        let chain = x509::certificates(&self.pair());
        let [own, above] = chain.as_slice() else { return false };
        let left = x509::not_after(own).map(|end| end.duration_since(now));
        *above == authority.certificate
            && left.is_some_and(|left| left > RENEWED_BEFORE)
            && self.names().iter().all(|name| x509::bears(own, name))
            && Certificates::load(&self.pair(), &self.pair()).is_ok()
    }

    fn issue(&self, authority: &Authority, now: Timestamp) -> Result<(), DevelopmentError> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(self.names())?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        valid(&mut parameters, now, CERTIFICATE_LASTS);
        let certificate = parameters.signed_by(&key, &authority.issuer)?;
        let above = std::fs::read_to_string(&self.authority)
            .map_err(|source| DevelopmentError::File { path: self.authority.clone(), source })?;
        let text = format!("{}{above}{}", certificate.pem(), key.serialize_pem());
        write(&self.pair(), &text, 0o600)
    }

    /// Our name, unless it is none that a certificate can bear, and those of this machine for itself.
    fn names(&self) -> Vec<String> {
        let own = Some(self.hostname.as_str()).filter(|name| ServerName::try_from(*name).is_ok());
        let mut names: Vec<String> =
            own.into_iter().chain(["localhost", "127.0.0.1", "::1"]).map(str::to_owned).collect();
        names.dedup();
        names
    }
}

/// Its name and rights, which never change: with its key they are all that issuing takes.
fn authority_parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, AUTHORITY_NAME);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

/// To the day, which is all that the times of a certificate need.
fn valid(parameters: &mut CertificateParams, now: Timestamp, lasts: SignedDuration) {
    let day = |at: Timestamp| {
        let date = at.to_zoned(TimeZone::UTC).date();
        let part = |number: i8| number.unsigned_abs();
        rcgen::date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    parameters.not_before = day(now.saturating_sub(BEGINS_BEFORE).unwrap_or(now));
    parameters.not_after = day(now.saturating_add(lasts).unwrap_or(now));
}

/// Whole or not at all, and never for more eyes than `mode` says.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), DevelopmentError> {
    let failed = |source| DevelopmentError::File { path: path.to_owned(), source };
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map(drop).map_err(|error| failed(error.error))
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::{app::Running, config::Config};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn development(directory: &Path, hostname: &str) -> Development {
        crate::net::install_provider();
        Development::new(directory.join("development-ca.pem"), hostname.to_owned())
    }

    #[test]
    fn it_is_made_once_for_our_name_and_its_keys_are_nobody_elses() {
        let directory = tempfile::tempdir().unwrap();
        let made = development(directory.path(), "mx.example.com");
        let now = Timestamp::now();
        assert!(made.ensure(now).unwrap());
        assert!(!made.ensure(now).unwrap(), "what is there is good");
        assert_eq!((mode(&made.pair()), mode(&made.authority_key())), (0o600, 0o600));
        let own = &x509::certificates(&made.pair())[0];
        for name in ["mx.example.com", "localhost", "127.0.0.1", "::1"] {
            assert!(x509::bears(own, name), "{name}");
        }
        let elsewhere = development(directory.path(), "other.example.com");
        let authority = std::fs::read(&made.authority).unwrap();
        assert!(elsewhere.ensure(now).unwrap(), "another name takes another certificate");
        assert_eq!(std::fs::read(&made.authority).unwrap(), authority, "and the same authority");
        let nameless = tempfile::tempdir().unwrap();
        assert!(development(nameless.path(), "no name at all").ensure(now).unwrap());
    }

    #[test]
    fn it_is_renewed_a_month_before_it_ends_and_the_authority_before_that() {
        let directory = tempfile::tempdir().unwrap();
        let made = development(directory.path(), "mx.example.com");
        assert!(made.ensure(at("2030-01-01T00:00:00Z")).unwrap());
        let authority = std::fs::read(&made.authority).unwrap();
        assert!(!made.ensure(at("2030-02-28T00:00:00Z")).unwrap());
        assert!(made.ensure(at("2030-03-05T00:00:00Z")).unwrap());
        assert_eq!(std::fs::read(&made.authority).unwrap(), authority);
        assert!(made.ensure(at("2039-12-01T00:00:00Z")).unwrap());
        assert_ne!(std::fs::read(&made.authority).unwrap(), authority);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_gateway_without_a_certificate_takes_mail_over_tls_from_those_who_trust_its_authority() {
        crate::net::install_provider();
        let directory = tempfile::tempdir().unwrap();
        let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut config = Config::default();
        config.node.data_dir = directory.path().join("data");
        config.smtp.mx.listen = vec![anywhere];
        config.smtp.submission.listen = vec![anywhere];
        config.smtp.submissions.listen = vec![anywhere];
        config.http.listen = anywhere;
        let running = Running::start(&config, Arc::new(String::new)).await.unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(x509::certificates(&config.development_authority().unwrap()).remove(0)).unwrap();
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(running.addresses.submissions[0]).await.unwrap();
        let connecting = TlsConnector::from(Arc::new(tls)).connect("localhost".try_into().unwrap(), stream);
        tokio::time::timeout(Duration::from_secs(20), connecting).await.unwrap().unwrap();
        running.stop().await;
    }

    #[test]
    fn what_was_cut_off_or_spoilt_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let made = development(directory.path(), "mx.example.com");
        let now = Timestamp::now();
        let another = KeyPair::generate().unwrap().serialize_pem();
        for (file, content) in [
            (made.pair(), "half"),
            (made.authority_key(), "half"),
            (made.authority.clone(), "half"),
            (made.authority_key(), &another),
        ] {
            made.ensure(now).unwrap();
            std::fs::write(&file, content).unwrap();
            assert!(made.ensure(now).unwrap(), "{}", file.display());
            assert!(!made.ensure(now).unwrap(), "{}", file.display());
        }
    }
}
