//! The URL of a collector of traces, and which traces are sampled: workers use both, and the operator hands
//! them to workers.

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
        matches!(url.scheme_str(), Some("http" | "https"))
            && !host.is_empty()
            && (rest == Some("") || rest.is_some() && url.port().is_some())
            && url.query().is_none()
    };
    text.parse().ok().filter(is_plain).ok_or(
        "must look like http://collector:4318 or https://collector:4318: a password or token belongs in \
         OTEL_EXPORTER_OTLP_HEADERS",
    )
}

/// The samplers that exist, and whether they take a ratio.
const SAMPLERS: [(&str, bool); 6] = [
    ("always_on", false),
    ("always_off", false),
    ("traceidratio", true),
    ("parentbased_always_on", false),
    ("parentbased_always_off", false),
    ("parentbased_traceidratio", true),
];

/// Checks the values of `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`. `OpenTelemetry` would ignore a
/// mistyped one and sample everything.
///
/// # Errors
///
/// Says what to write instead.
pub fn check_sampler(sampler: Option<&str>, argument: Option<&str>) -> Result<(), String> {
    let Some(sampler) = sampler.filter(|sampler| !sampler.is_empty()) else { return Ok(()) };
    let Some((_, takes_ratio)) = SAMPLERS.iter().find(|(known, _)| *known == sampler) else {
        let known = SAMPLERS.map(|(known, _)| known).join(", ");
        return Err(format!("OTEL_TRACES_SAMPLER must be one of {known}, not {sampler:?}"));
    };
    let is_ratio = |text: &str| text.parse().is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio));
    if *takes_ratio && !argument.is_some_and(is_ratio) {
        return Err(format!(
            "OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1, such as 0.1, because OTEL_TRACES_SAMPLER \
             is {sampler}"
        ));
    }
    Ok(())
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
            "ftp://collector:4318",
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
        for url in
            ["http://collector:4318", "https://collector", "http://[::1]:4318/", "http://collector/prefix"]
        {
            assert!(parse_collector_url(url).is_ok(), "{url}");
        }
    }

    /// Before, a mistyped sampler sampled everything.
    #[test]
    fn a_mistyped_sampler_is_refused_with_what_to_write() {
        for (sampler, argument) in [
            (None, Some("x")),
            (Some(""), None),
            (Some("always_on"), Some("x")),
            (Some("parentbased_always_off"), None),
            (Some("traceidratio"), Some("0.25")),
            (Some("parentbased_traceidratio"), Some("1")),
        ] {
            assert_eq!(check_sampler(sampler, argument), Ok(()));
        }
        for (sampler, argument, expected) in [
            (
                "parentbased_traceidratoi",
                Some("0.1"),
                "parentbased_always_off, parentbased_traceidratio, not",
            ),
            ("Always_On", None, "must be one of always_on, "),
            ("jaeger_remote", None, "must be one of"),
            ("traceidratio", None, "must be a number from 0 to 1"),
            ("parentbased_traceidratio", Some("10%"), "must be a number from 0 to 1"),
            ("traceidratio", Some("1.5"), "must be a number from 0 to 1"),
            ("traceidratio", Some("NaN"), "must be a number from 0 to 1"),
        ] {
            let error = check_sampler(Some(sampler), argument).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
