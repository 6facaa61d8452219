//! Metrics that every program exports: its build and its process.

use std::collections::HashMap;

use prometheus::{Gauge, Opts, Registry};

/// A registry with `rowlock_build_info` and, on Linux, `process_*`. Every series has `labels`.
///
/// # Errors
/// A label's name is invalid.
pub fn program_metrics(component: &str, labels: &[(&str, &str)]) -> prometheus::Result<Registry> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let labels: HashMap<_, _> = labels.iter().map(owned).collect();
    let registry = Registry::new_custom(None, (!labels.is_empty()).then_some(labels))?;
    let options = Opts::new("rowlock_build_info", "1 for the component and its version")
        .const_label("component", component)
        .const_label("version", env!("CARGO_PKG_VERSION"));
    let build = Gauge::with_opts(options)?;
    build.set(1.0);
    registry.register(Box::new(build))?;
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(registry)
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn a_program_exports_its_version_and_its_process_with_the_given_labels() {
        let metrics = program_metrics("worker", &[("queue", "mail")]).unwrap();
        let text = TextEncoder::new().encode_to_string(&metrics.gather()).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let build =
            format!("rowlock_build_info{{component=\"worker\",version=\"{version}\",queue=\"mail\"}} 1");
        assert!(text.contains(&build), "{text}");
        if cfg!(target_os = "linux") {
            assert!(text.contains("process_resident_memory_bytes{queue=\"mail\"} "), "{text}");
            assert!(text.contains("process_cpu_seconds_total{queue=\"mail\"} "), "{text}");
        }
    }
}
