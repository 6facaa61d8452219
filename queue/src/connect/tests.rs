//! Which URLs are accepted, and the errors for the others.

use std::sync::Arc;

use super::{
    dial::is_trusted,
    options::{Access, Connect, UrlTrust},
    target::Target,
    tls::Roots,
    values::{Auth, Servers, SslMode},
};
use crate::Error;

fn own(url: &str) -> Connect {
    Connect::new(url, "test", 1)
}

fn tenant(url: &str) -> Connect {
    Connect { trust: UrlTrust::Tenant, ..own(url) }
}

fn target(url: &str) -> Target {
    own(url).target().unwrap_or_else(|error| panic!("{url}: {error}"))
}

fn refusal(connect: &Connect) -> String {
    match connect.target() {
        Err(Error::Url(message)) => message,
        other => panic!("{}: {other:?}", connect.url),
    }
}

#[test]
fn hosts_are_parsed_like_in_libpq() {
    let table = [
        ("postgres://u:p@h/d", "h:5432/d"),
        ("postgresql://u@h:6/d", "h:6/d"),
        ("postgres://u@h", "h:5432/u"),
        ("postgres://u@h1:1,h2,h3:3/d", "h1:1,h2:5432,h3:3/d"),
        ("postgres://u@/d?host=h1,h2&port=7", "h1:7,h2:7/d"),
        ("postgres://u@/d?host=h1,h2&port=7,8", "h1:7,h2:8/d"),
        ("postgres://u@[::1]:6/d", "[::1]:6/d"),
        ("postgres://u@[fe80::1]/d", "[fe80::1]:5432/d"),
        ("postgres://u@%2Frun%2Fpostgresql/d", "/run/postgresql:5432/d"),
        ("postgres://u@:6/d?host=/run/pg", "/run/pg:6/d"),
        ("postgres://h/d?user=u", "h:5432/d"),
        ("postgres://u@h/?dbname=d", "h:5432/d"),
        ("  postgres://u:p%40%3A%2F@h/d%20e\n", "h:5432/d e"),
    ];
    for (url, location) in table {
        assert_eq!(target(url).location(), location, "{url}");
    }
    let target = target("postgres://us%40er:p%40+%25@h/d?options=-c%20a%3Db");
    assert_eq!((target.user.as_str(), target.password.as_deref()), ("us@er", Some("p@+%")));
    assert_eq!(target.options.as_deref(), Some("-c a=b"));
}

#[test]
fn a_url_that_cannot_be_used_says_what_to_change() {
    let table = [
        ("host=db dbname=shop", "write postgres://user:password@host:5432/database"),
        ("mysql://u@h/d", "write postgres://"),
        ("postgres://u@h:x/d", "port"),
        ("postgres://u@h:0/d", "port"),
        ("postgres://u@[::1/d", "[::1]:5432"),
        ("postgres://u@h/d?sslmode", "?name=value"),
        ("postgres://u@h/d?ssl_mode=verify-full", "did you mean `sslmode`?"),
        ("postgres://u@h/d?sslmod=require", "did you mean `sslmode`?"),
        ("postgres://u@h/d?connection_timeout=3", "did you mean `connect_timeout`?"),
        ("postgres://u@h/d?nonsense=1", "unknown parameter `nonsense`"),
        ("postgres://u@h/d?sslmode=verify_full", "verify-ca, verify-full"),
        ("postgres://u@h/d?sslmode=require&sslmode=disable", "sslmode twice"),
        (
            "postgres://u@h/d?channel_binding=require",
            "channel_binding=require, and channel binding is not supported",
        ),
        ("postgres://u@h/d?gssencmode=require", "gssencmode=require"),
        ("postgres://u@h/d?sslcrl=/x", "sslcrl, which is not supported"),
        ("postgres://u@h/d?passfile=/x", "passfile, which is not supported"),
        ("postgres://u@h/d?service=x", "service, which is not supported"),
        ("postgres://u@h/d?require_auth=scram", "scram-sha-256"),
        ("postgres://u@h/d?require_auth=md5,!none", "one form"),
        ("postgres://u@h/d?require_auth=gss", "require_auth=gss"),
        ("postgres://u@h/d?target_session_attrs=readwrite", "read-write"),
        ("postgres://u@h/d?target_session_attrs=standby", "this program writes"),
        ("postgres://u@h/d?connect_timeout=soon", "whole number"),
        ("postgres://u@h/d?client_encoding=LATIN1", "UTF8"),
        ("postgres://u@h/d?sslcert=/x", "give both"),
        ("postgres://u@h/d?sslnegotiation=direct", "sslmode=require"),
        ("postgres://u@h/d?sslrootcert=system&sslmode=require", "verify-full"),
        ("postgres://u@h1,h2/d?port=1,2,3", "one for each host"),
        ("postgres://u@h/d?host=i", "twice"),
        ("postgres://u@h/d?hostaddr=h", "not an IP address"),
        ("postgres://u@a,b,c,d,e,f,g,h,i/d", "at most 8"),
        ("postgres://u@h/d?options=%zz", "%25"),
        ("postgres://u@h/d?options=%00", "UTF-8"),
    ];
    for (url, expected) in table {
        let message = refusal(&own(url));
        assert!(message.starts_with("the database URL ") && message.contains(expected), "{url}: {message}");
    }
}

#[test]
fn no_error_quotes_the_password() {
    let secrets = [
        "postgres://u:SECRET",
        "postgres://u:SECRET/h@h/d",
        "postgres://u:x@SECRET/w@h/d",
        "postgres://u:a?SECRET@h/d",
        "postgres://u:a?SECRET=1@h/d",
        "postgres://u:a#SECRET@h/d",
        "postgres://u:SECRET %@h/d",
        "postgres://u:SECRET%zz@h/d",
        "postgres://u:p@h:SECRET/d",
        "postgres://u@h/d?password=SECRET&nonsense=SECRET",
        "postgres://u@h/d?sslmode=SECRET",
        "postgres://u@h/d?require_auth=SECRET",
        "postgres:/u:SECRET@h/d",
        "host=h password=SECRET",
    ];
    for url in secrets {
        for connect in [own(url), tenant(url)] {
            let message = refusal(&connect);
            assert!(!message.contains("SECRET"), "{url}: {message}");
        }
    }
    let shown = format!("{:?} {:?}", own("postgres://u:SECRET@h/d"), target("postgres://u:SECRET@h/d"));
    assert!(!shown.contains("SECRET"), "{shown}");
}

#[test]
fn the_url_of_a_tenant_may_not_name_a_file() {
    let table = [
        "postgres://u@h/d?sslmode=verify-full&sslrootcert=/dev/zero",
        "postgres://u@h/d?sslcert=/x&sslkey=/y",
        "postgres://u@h/d?sslkey=/y",
        "postgres://u@/d?host=/run/postgresql",
        "postgres://u@/d?host=h,/run/postgresql",
        "postgres://u@%2Frun%2Fpostgresql/d",
        "postgres://u@%40abstract/d",
        "postgres://u@/d",
        "postgres://h/d",
    ];
    for url in table {
        refusal(&tenant(url));
    }
    for url in
        ["postgres://u@h/d?passfile=/x", "postgres://u@h/d?service=x", "postgres://u@h/d?servicefile=/x"]
    {
        assert!(refusal(&tenant(url)).contains("is not supported"), "{url}");
    }
    tenant("postgres://u@h/d?sslmode=verify-full&sslrootcert=system").target().expect("no file");
}

#[test]
fn the_tls_mode_is_that_of_libpq_and_a_ca_raises_it_to_verify_full() {
    let with_ca = |url: &str| Connect { ca_pem: Some(Arc::from("PEM")), ..own(url) };
    let mode = |connect: &Connect| connect.target().map(|target| target.tls.mode).ok();
    let table = [
        ("", Some(SslMode::Prefer), Some(SslMode::VerifyFull)),
        ("?sslmode=disable", Some(SslMode::Disable), None),
        ("?sslmode=allow", Some(SslMode::Allow), None),
        ("?sslmode=prefer", Some(SslMode::Prefer), None),
        ("?sslmode=require", Some(SslMode::Require), Some(SslMode::VerifyFull)),
        ("?ssl=true", Some(SslMode::Require), Some(SslMode::VerifyFull)),
        ("?sslmode=verify-ca", Some(SslMode::VerifyCa), Some(SslMode::VerifyCa)),
        ("?sslmode=verify-full", Some(SslMode::VerifyFull), Some(SslMode::VerifyFull)),
        ("?sslmode=require&sslrootcert=/x", Some(SslMode::VerifyCa), Some(SslMode::VerifyFull)),
        ("?sslrootcert=system", Some(SslMode::VerifyFull), Some(SslMode::VerifyFull)),
    ];
    for (query, without, with) in table {
        let url = format!("postgres://u@h/d{query}");
        assert_eq!((mode(&own(&url)), mode(&with_ca(&url))), (without, with), "{query}");
    }
    let roots = with_ca("postgres://u@h/d?sslmode=verify-ca&sslrootcert=/x").target().unwrap().tls.roots;
    assert!(matches!(roots, Roots::Pem(_)), "the caller's CA takes precedence over a file");
    let unusable = Connect { ca_pem: Some(Arc::from("nothing")), ..own("postgres://u@h/d") }.check();
    assert!(
        matches!(&unusable, Err(Error::Tls(why)) if why.contains("holds no certificate")),
        "{unusable:?}"
    );
}

#[test]
fn a_password_is_sent_in_clear_only_to_a_verified_server() {
    let accepts = |query: &str, method, verified| {
        target(&format!("postgres://u:p@h/d{query}")).refuse_auth(method, verified).is_none()
    };
    for (method, if_unverified) in
        [(Auth::Nothing, true), (Auth::Scram, true), (Auth::Password, false), (Auth::Md5, false)]
    {
        assert_eq!(accepts("", method, false), if_unverified, "{method:?}");
        assert!(accepts("", method, true), "{method:?}");
        assert_eq!(accepts("?require_auth=scram-sha-256", method, true), method == Auth::Scram, "{method:?}");
        assert_eq!(accepts("?require_auth=!none", method, true), method != Auth::Nothing, "{method:?}");
        assert_eq!(accepts("?require_auth=!md5", method, false), if_unverified, "{method:?}");
    }
    assert!(accepts("?require_auth=password", Auth::Password, false), "require_auth allows it");
    assert!(accepts("?require_auth=md5,scram-sha-256", Auth::Md5, false), "require_auth allows it");
}

#[test]
fn a_program_that_writes_needs_a_writable_server() {
    let servers =
        |url: &str, access| Connect { access, ..own(url) }.target().map(|target| target.servers).ok();
    let table = [
        ("", Some(Servers::ReadWrite), Some(Servers::Any)),
        ("?target_session_attrs=any", Some(Servers::ReadWrite), Some(Servers::Any)),
        ("?target_session_attrs=read-write", Some(Servers::ReadWrite), Some(Servers::ReadWrite)),
        ("?target_session_attrs=primary", Some(Servers::ReadWrite), Some(Servers::Primary)),
        ("?target_session_attrs=prefer-standby", None, Some(Servers::PreferStandby)),
        ("?target_session_attrs=read-only", None, Some(Servers::ReadOnly)),
    ];
    for (query, writes, reads) in table {
        let url = format!("postgres://u@h/d{query}");
        assert_eq!(
            (servers(&url, Access::ReadWrite), servers(&url, Access::ReadOnly)),
            (writes, reads),
            "{query}"
        );
    }
}

#[test]
fn an_allowed_name_does_not_allow_every_address() {
    let policy = Arc::new(crate::HostPolicy::new(
        &["db.node.local".to_owned(), "169.254.20.10".to_owned()],
        &[],
        None,
    ));
    let to = |query: &str| Connect {
        host_policy: Some(Arc::clone(&policy)),
        ..tenant(&format!("postgres://u:p@db.node.local/d{query}"))
    };
    // The name is allowed, the address is not.
    for address in ["169.254.169.254", "127.0.0.1", "::1", "64:ff9b::169.254.169.254", "::127.0.0.1"] {
        let message = refusal(&to(&format!("?hostaddr={address}")));
        assert!(message.contains(address) || address.contains("::"), "{message}");
    }
    for query in ["", "?hostaddr=10.0.0.1", "?hostaddr=169.254.20.10"] {
        to(query).target().unwrap();
    }
}

#[test]
fn a_unix_socket_is_verified_if_no_other_user_can_have_created_it() {
    let own = nix::unistd::Uid::effective().as_raw();
    let other_user = 54_321;
    // Otherwise a user who listens in `/tmp` first would get the password in clear.
    for (peer, name, verified) in [
        (other_user, "/tmp/.s.PGSQL.5432", false),
        (other_user, "@rowlock", false),
        (other_user, "/nowhere/.s.PGSQL.5432", false),
        (other_user, "/.s.PGSQL.5432", true),
        (own, "/tmp/.s.PGSQL.5432", true),
        (own, "@rowlock", true),
        (0, "/tmp/.s.PGSQL.5432", true),
    ] {
        assert_eq!(is_trusted(peer, name), verified, "{peer}: {name}");
    }
}
