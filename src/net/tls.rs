//! TLS for both directions: our certificate, replaced while we run, and the roots by which we judge others'.
//!
//! Not here: where handshakes happen (`dial`, and each server's accept loop).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_platform_verifier::Verifier;
use tokio_util::sync::CancellationToken;

/// TLS that cannot be set up: a file, or what is in it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}")]
    File { path: PathBuf, source: pem::Error },
    #[error("{path} holds no certificate")]
    NoCertificate { path: PathBuf },
    /// Most often a key that belongs to another certificate.
    #[error("certificate and key cannot be used")]
    Unusable(#[from] rustls::Error),
}

/// Makes ring the process's only provider. Call it first in `main`; calling it again does nothing.
pub fn install_provider() {
    if CryptoProvider::get_default().is_none()
        && rustls::crypto::ring::default_provider().install_default().is_err()
    {
        // Another thread was faster, with the same provider.
        tracing::debug!("TLS provider was installed already");
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Our certificate and key, read from PEM files and read again when they change.
#[derive(Debug)]
pub struct Certificates {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl Certificates {
    /// Reads both files.
    ///
    /// # Errors
    /// When a file cannot be read, or the key is not the certificate's.
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee(read(certificate, key)?);
        Ok(Arc::new(Self { certificate: certificate.to_owned(), key: key.to_owned(), current }))
    }

    /// Reads both files again. What was in use stays in use when that fails.
    ///
    /// # Errors
    /// As [`Certificates::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(read(&self.certificate, &self.key)?));
        Ok(())
    }

    /// The certificate in use, without the rest of its chain.
    #[must_use]
    pub fn current_der(&self) -> Option<CertificateDer<'static>> {
        self.current.load().cert.first().map(|certificate| certificate.clone().into_owned())
    }

    /// A server configuration that always presents the current certificate. With `alpn` given, clients that offer only other
    /// protocols are refused: a browser talked into connecting to an SMTP port offers `h2`.
    ///
    /// # Errors
    /// [`TlsError::Unusable`] when the provider lacks the protocol versions, which ring does not.
    pub fn server_config(self: &Arc<Self>, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// Looks at the files every so often and reloads them when they changed, until `shutdown`.
    pub async fn watch(self: Arc<Self>, every: Duration, shutdown: CancellationToken) {
        let mut seen = self.stamps().await;
        loop {
            tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(every) => {} }
            let stamps = self.stamps().await;
            if stamps == seen {
                continue;
            }
            match self.reload() {
                Ok(()) => tracing::info!("certificate reloaded"),
                // A renewal writes two files, one after the other: the next look will find both.
                Err(error) => tracing::warn!(%error, "new certificate refused, keeping the old one"),
            }
            seen = stamps;
        }
    }

    async fn stamps(&self) -> [Option<(SystemTime, u64)>; 2] {
        [stamp(&self.certificate).await, stamp(&self.key).await]
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

async fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = read_certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|source| TlsError::File { path: key.to_owned(), source })?;
    Ok(CertifiedKey::from_der(chain, key, &provider())?)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let at = |source| TlsError::File { path: path.to_owned(), source };
    let chain =
        CertificateDer::pem_file_iter(path).map_err(at)?.collect::<Result<Vec<_>, _>>().map_err(at)?;
    if chain.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(chain) }
}

/// A client configuration that trusts the platform's roots and those of `[egress].ca_file`.
///
/// # Errors
/// When the file cannot be read or the platform has no usable roots.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let extra = ca_file.map(read_certificates).transpose()?.unwrap_or_default();
    let verifier = Verifier::new_with_extra_roots(extra, provider())?;
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    // The method's name warns of verifiers that verify nothing; this one is the platform's own.
    Ok(Arc::new(
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth(),
    ))
}

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use tokio::net::TcpStream;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::net::bind;

    /// Writes a fresh self-signed certificate for `localhost` and its key.
    fn write_pair(directory: &Path) -> (PathBuf, PathBuf) {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        fs::write(&certificate, pair.cert.pem()).unwrap();
        fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        (certificate, key)
    }

    /// One handshake; the client trusts `ca` and offers `alpn`. The certificate it was shown, if all went well.
    async fn handshake(server: Arc<ServerConfig>, ca: &Path, alpn: &[&[u8]]) -> io::Result<Vec<u8>> {
        let listener = bind("127.0.0.1:0".parse().unwrap())?;
        let address = listener.local_addr()?;
        let serve = async move {
            let (stream, _) = listener.accept().await?;
            TlsAcceptor::from(server).accept(stream).await.map(drop)
        };
        let mut config = ClientConfig::clone(&*client_config(Some(ca)).unwrap());
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            let secured =
                TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await?;
            Ok::<_, io::Error>(secured.get_ref().1.peer_certificates().unwrap()[0].to_vec())
        };
        let (served, shown) = tokio::join!(serve, connect);
        served.and(shown)
    }

    #[tokio::test]
    async fn a_new_certificate_is_shown_at_once_and_a_bad_one_never() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = write_pair(directory.path());
        let certificates = Certificates::load(&certificate, &key).unwrap();
        let config = certificates.server_config(&[]).unwrap();
        let first = handshake(Arc::clone(&config), &certificate, &[]).await.unwrap();
        fs::write(&key, "no key").unwrap();
        assert!(certificates.reload().is_err());
        assert_eq!(handshake(Arc::clone(&config), &certificate, &[]).await.unwrap(), first);
        write_pair(directory.path());
        certificates.reload().unwrap();
        let second = handshake(config, &certificate, &[]).await.unwrap();
        assert_ne!(second, first);
    }

    #[tokio::test]
    async fn a_changed_file_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = write_pair(directory.path());
        let certificates = Certificates::load(&certificate, &key).unwrap();
        let first = certificates.current.load_full();
        let shutdown = CancellationToken::new();
        let watching =
            tokio::spawn(Arc::clone(&certificates).watch(Duration::from_millis(5), shutdown.clone()));
        let changed = async {
            while Arc::ptr_eq(&certificates.current.load_full(), &first) {
                write_pair(directory.path());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), changed).await.unwrap();
        shutdown.cancel();
        watching.await.unwrap();
    }

    #[tokio::test]
    async fn a_key_of_another_certificate_is_refused() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ((certificate, _), (_, key)) = (write_pair(one.path()), write_pair(two.path()));
        assert!(matches!(Certificates::load(&certificate, &key), Err(TlsError::Unusable(_))));
        let missing = Certificates::load(Path::new("/nowhere.pem"), &key);
        assert!(matches!(missing, Err(TlsError::File { .. })), "{missing:?}");
    }

    #[tokio::test]
    async fn browsers_are_refused_and_strangers_not_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = write_pair(directory.path());
        let config = Certificates::load(&certificate, &key).unwrap().server_config(&[b"smtp"]).unwrap();
        assert!(handshake(Arc::clone(&config), &certificate, &[]).await.is_ok());
        assert!(handshake(Arc::clone(&config), &certificate, &[b"h2", b"http/1.1"]).await.is_err());
        let other = tempfile::tempdir().unwrap();
        let (stranger, _) = write_pair(other.path());
        assert!(handshake(config, &stranger, &[]).await.is_err());
    }
}
