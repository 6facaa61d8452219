//! What a URL may say, and what is answered to one that may not be used.

use std::sync::Arc;

use super::{
    Access, Connect, UrlTrust,
    dial::is_trusted,
    target::{Roots, Target},
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
fn places_are_read_as_libpq_reads_them() {
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
    for (url, place) in table {
        assert_eq!(target(url).place(), place, "{url}");
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
        ("postgres://u@h/d?nonsense=1", "`nonsense` that is not known"),
        ("postgres://u@h/d?sslmode=verify_full", "verify-ca, verify-full"),
        ("postgres://u@h/d?sslmode=require&sslmode=disable", "sslmode twice"),
        (
            "postgres://u@h/d?channel_binding=require",
            "channel_binding=require, and channel binding is not done",
        ),
        ("postgres://u@h/d?gssencmode=require", "gssencmode=require"),
        ("postgres://u@h/d?sslcrl=/x", "sslcrl, which cannot be honoured"),
        ("postgres://u@h/d?passfile=/x", "passfile, which cannot be honoured"),
        ("postgres://u@h/d?service=x", "service, which cannot be honoured"),
        ("postgres://u@h/d?require_auth=scram", "scram-sha-256"),
        ("postgres://u@h/d?require_auth=md5,!none", "one kind"),
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
        ("postgres://u@h/d?hostaddr=h", "no IP address"),
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
fn no_message_quotes_the_password() {
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
fn a_tenants_url_names_no_file() {
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
        assert!(refusal(&tenant(url)).contains("cannot be honoured"), "{url}");
    }
    tenant("postgres://u@h/d?sslmode=verify-full&sslrootcert=system").target().expect("no file");
}

#[test]
fn the_mode_of_tls_is_what_libpq_makes_of_it_and_never_less_than_a_ca_asks_for() {
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
    assert!(matches!(roots, Roots::Pem(_)), "the caller's CA comes before a file");
    let unusable = Connect { ca_pem: Some(Arc::from("nothing")), ..own("postgres://u@h/d") }.check();
    assert!(
        matches!(&unusable, Err(Error::Tls(why)) if why.contains("holds no certificate")),
        "{unusable:?}"
    );
}

#[test]
fn a_password_goes_to_nobody_who_did_not_prove_to_be_the_server() {
    let takes = |query: &str, asked, safe| {
        target(&format!("postgres://u:p@h/d{query}")).refuse_auth(asked, safe).is_none()
    };
    for (asked, unproved) in
        [(Auth::Nothing, true), (Auth::Scram, true), (Auth::Password, false), (Auth::Md5, false)]
    {
        assert_eq!(takes("", asked, false), unproved, "{asked:?}");
        assert!(takes("", asked, true), "{asked:?}");
        assert_eq!(takes("?require_auth=scram-sha-256", asked, true), asked == Auth::Scram, "{asked:?}");
        assert_eq!(takes("?require_auth=!none", asked, true), asked != Auth::Nothing, "{asked:?}");
        assert_eq!(takes("?require_auth=!md5", asked, false), unproved, "{asked:?}");
    }
    assert!(takes("?require_auth=password", Auth::Password, false), "somebody said so");
    assert!(takes("?require_auth=md5,scram-sha-256", Auth::Md5, false), "somebody said so");
}

#[test]
fn who_writes_needs_a_server_that_takes_writes() {
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
fn a_name_that_is_allowed_is_no_leave_for_every_address() {
    let policy = Arc::new(crate::HostPolicy::new(
        &["db.node.local".to_owned(), "169.254.20.10".to_owned()],
        &[],
        None,
    ));
    let to = |query: &str| Connect {
        host_policy: Some(Arc::clone(&policy)),
        ..tenant(&format!("postgres://u:p@db.node.local/d{query}"))
    };
    // Before this was mended, every address could be asked under the name.
    for address in ["169.254.169.254", "127.0.0.1", "::1", "64:ff9b::169.254.169.254", "::127.0.0.1"] {
        let message = refusal(&to(&format!("?hostaddr={address}")));
        assert!(message.contains(address) || address.contains("::"), "{message}");
    }
    for query in ["", "?hostaddr=10.0.0.1", "?hostaddr=169.254.20.10"] {
        to(query).target().unwrap();
    }
}

#[test]
fn a_unix_socket_is_safe_where_nobody_else_can_have_put_it() {
    let own = nix::unistd::Uid::effective().as_raw();
    let somebody = 54_321;
    // Before this was mended, every one was, and whoever came first to `/tmp` was told the password in clear.
    for (peer, name, safe) in [
        (somebody, "/tmp/.s.PGSQL.5432", false),
        (somebody, "@rowlock", false),
        (somebody, "/nowhere/.s.PGSQL.5432", false),
        (somebody, "/.s.PGSQL.5432", true),
        (own, "/tmp/.s.PGSQL.5432", true),
        (own, "@rowlock", true),
        (0, "/tmp/.s.PGSQL.5432", true),
    ] {
        assert_eq!(is_trusted(peer, name), safe, "{peer}: {name}");
    }
}
