//! The URL of a collector of traces: workers use it, and the operator hands it to them.

use axum::http::Uri;

/// Parses the URL of a collector.
///
/// # Errors
///
/// Says what the URL must look like. It does not quote the URL, which may contain a secret.
pub fn parse_collector_url(text: &str) -> Result<Uri, &'static str> {
    let is_plain = |url: &Uri| {
        let host = url.host().unwrap_or_default();
        // Any authority with more than a host and a valid port, such as a password, is refused.
        let rest = url.authority().and_then(|authority| authority.as_str().strip_prefix(host));
        url.scheme_str() == Some("http")
            && !host.is_empty()
            && (rest == Some("") || rest.is_some() && url.port().is_some())
            && url.query().is_none()
    };
    text.parse().ok().filter(is_plain).ok_or(
        "must look like http://collector:4318, without TLS: for a collector elsewhere, run one near the \
         workers that forwards to it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_url_of_a_collector_is_accepted() {
        for url in [
            "https://u:secret@collector:4318",
            "http://u:secret@collector:4318",
            "http://a/?token=secret",
            "collector:4318",
            "http://",
            "http://:4318",
            "http://collector:99999",
            "http://a b",
            "",
        ] {
            let error = parse_collector_url(url).unwrap_err();
            assert!(error.contains("http://collector:4318") && !error.contains("secret"), "{url}");
        }
        for url in ["http://collector:4318", "http://[::1]:4318/", "http://collector/prefix"] {
            assert!(parse_collector_url(url).is_ok(), "{url}");
        }
    }
}
