//! TLS to a real server whose certificate the test makes: each `sslmode`, a wrong root, a wrong name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tasker_adaptor::StorageError;
use tasker_adaptor_postgres::PostgresStorage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::kit::{Served, TestSchema, connect};

/// The only name that the server's certificate is for; its address 127.0.0.1 is not.
const NAME: &str = "localhost";

/// A server that speaks TLS, the root that signed its certificate, and another root.
struct Tls {
    server: Served,
    folder: tempfile::TempDir,
}

impl Tls {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let root = root();
        file("root.pem", root.pem());
        file("other.pem", self::root().pem());
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![NAME.to_owned()])
            .unwrap()
            .signed_by(&key, &root)
            .unwrap();
        let certificate = file("server.pem", certificate.pem());
        let key = file("server.key", key.serialize_pem());
        let server = Served::start_with("serve", &[&certificate, &key]).await;
        Self { server, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The server's URL by this host and with this query; `{root}` and `{other}` are the files of the roots.
    fn url(&self, host: &str, query: &str) -> String {
        let (base, _) = self.server.url.split_once('?').unwrap();
        let text = |name: &str| self.path(name).display().to_string();
        let query = query
            .replace("{root}", &text("root.pem"))
            .replace("{other}", &text("other.pem"));
        format!("{}?{query}", base.replace("127.0.0.1", host))
    }

    /// Whether the connections of the adaptor are encrypted.
    async fn is_encrypted(&self) -> bool {
        let client = connect(&self.server.url).await;
        let sql = "SELECT DISTINCT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'tasker'";
        let rows = client.query(sql, &[]).await.unwrap();
        assert_eq!(rows.len(), 1, "all connections or none");
        rows[0].get(0)
    }
}

fn root() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(
        rcgen::DnType::CommonName,
        format!("root {}", crate::kit::id()),
    );
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn own_config(root: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(root).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[tokio::test]
async fn each_sslmode_means_what_it_means_in_libpq() {
    let tls = Tls::start().await;
    let schema = TestSchema::at(tls.server.url.clone());
    let encrypted = [
        (NAME, "sslmode=disable", false),
        (NAME, "sslmode=allow", true),
        (NAME, "sslmode=prefer", true),
        (NAME, "application_name=tasker", true),
        ("127.0.0.1", "sslmode=require", true),
        (NAME, "sslmode=require&sslrootcert={root}", true),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert={root}", true),
        (NAME, "sslmode=verify-full&sslrootcert={root}", true),
    ];
    for (host, query, is_encrypted) in encrypted {
        let storage = schema.options_at(&tls.url(host, query)).connect().await;
        let storage = storage.unwrap_or_else(|error| panic!("{host} {query}: {error}"));
        assert_eq!(tls.is_encrypted().await, is_encrypted, "{host} {query}");
        storage.close();
        drop(storage);
        let client = connect(&schema.url).await;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tasker'";
        crate::kit::until("its connections are closed", async || {
            client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
    }
    drop(schema);
    tls.server.stop().await;
}

#[tokio::test]
async fn a_server_that_is_not_who_it_should_be_is_refused_with_what_to_do() {
    let tls = Tls::start().await;
    let refused = [
        (
            NAME,
            "sslmode=require&sslrootcert={other}",
            "sslrootcert=FILE",
        ),
        (
            NAME,
            "sslmode=verify-ca&sslrootcert={other}",
            "sslrootcert=FILE",
        ),
        (
            NAME,
            "sslmode=verify-full&sslrootcert={other}",
            "sslrootcert=FILE",
        ),
        // The system's roots did not sign it.
        (NAME, "sslmode=verify-full", "sslrootcert=FILE"),
        (NAME, "sslrootcert=system", "sslrootcert=FILE"),
        (
            "127.0.0.1",
            "sslmode=verify-full&sslrootcert={root}",
            "by a name",
        ),
    ];
    for (host, query, advice) in refused {
        let error = PostgresStorage::connect(&tls.url(host, query))
            .await
            .expect_err(query);
        assert!(!error.is_retryable(), "{host} {query}: {error}");
        assert!(
            error.to_string().contains(advice),
            "{host} {query}: {error}"
        );
    }
    let error = PostgresStorage::connect(&tls.url(NAME, "sslmode=strict"))
        .await
        .unwrap_err();
    assert!(matches!(error, StorageError::Misuse { .. }), "{error}");
    tls.server.stop().await;
}

#[tokio::test]
async fn a_tls_configuration_of_the_callers_own_goes_before_the_urls() {
    let tls = Tls::start().await;
    let schema = TestSchema::at(tls.server.url.clone());
    let connect = async |root: &str| {
        let options = schema.options_at(&tls.url(NAME, "sslmode=require"));
        options.tls(own_config(&tls.path(root))).connect().await
    };
    connect("other.pem").await.unwrap_err();
    let storage = connect("root.pem").await.unwrap();
    assert!(tls.is_encrypted().await);
    drop((storage, schema));
    tls.server.stop().await;
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_required() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            // The answer of a server without TLS to the question for it.
            let _ = client.read_exact(&mut [0; 8]).await;
            let _ = client.write_all(b"N").await;
        }
    });
    let url = format!("postgres://me@{address}/db?sslmode=require");
    let error = PostgresStorage::connect(&url).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert!(error.to_string().contains("turn TLS on"), "{error}");
}
