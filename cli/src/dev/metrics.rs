//! The metrics of `rowlock dev`: those of the operator, without labels of a cluster.

use prometheus::{Registry, TextEncoder};
use rowlock_daemon::program_metrics;
use rowlock_operator::{View, ViewMetrics};

/// In Prometheus' text format.
pub(super) fn text(view: &View) -> prometheus::Result<String> {
    let registry = Registry::new();
    ViewMetrics::new(&registry, false)?.set(None, view);
    let mut text = TextEncoder::new().encode_to_string(&registry.gather())?;
    TextEncoder::new().encode_utf8(&program_metrics("dev", &[])?.gather(), &mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_is_exported_before_a_queue_is_seen() {
        let text = text(&View::default()).unwrap();
        assert!(text.contains("rowlock_build_info{component=\"dev\","), "{text}");
        assert!(!text.contains("rowlock_queue_"), "{text}");
    }
}
