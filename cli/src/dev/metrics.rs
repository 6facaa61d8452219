//! The metrics of `rowlock dev`: those of the operator, without labels of a cluster.

use std::sync::Arc;

use prometheus::TextEncoder;
use rowlock_daemon::program_metrics;
use rowlock_operator::{Page, Place, View};

/// In Prometheus' text format.
pub(super) fn text(view: &View) -> prometheus::Result<String> {
    let mut page = Page::default();
    page.add_views(vec![(Place::default(), Arc::new(view.clone()))]);
    page.add_text(TextEncoder::new().encode_to_string(&program_metrics("dev", &[])?.gather())?);
    Ok(page.text())
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
