//! The queries of the chart's dashboards use metrics and labels that docs/observability.md lists. Tests of
//! worker and operator compare that page with what they export.

use rowlock_tests::dashboards::{Documented, Query, queries};
use rowlock_tests::promql::selectors;

const PAGE: &str = "docs/observability.md";

fn documented() -> Documented {
    Documented::of(&std::fs::read_to_string(rowlock_tests::checkout().join(PAGE)).unwrap())
}

/// What the page lacks, with where it is used.
fn unknown_names(documented: &Documented, queries: &[Query]) -> Vec<String> {
    let of = |query: &Query| {
        let names = documented.unknown_names(&query.expression);
        names.into_iter().map(|name| format!("{}: {name}", query.place)).collect::<Vec<_>>()
    };
    queries.iter().flat_map(of).collect()
}

#[test]
fn every_metric_and_label_of_a_dashboard_is_documented() {
    let unknown = unknown_names(&documented(), &queries());
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

/// Renames or drops each metric that dashboards use, and each label, one at a time.
#[test]
fn a_metric_or_label_that_is_renamed_is_missed_by_its_dashboard() {
    let (documented, queries) = (documented(), queries());
    let used: Vec<_> = queries.iter().flat_map(|query| selectors(&query.expression)).collect();
    for selector in &used {
        let metric = &selector.metric;
        let unknown = unknown_names(&documented.without(metric), &queries);
        assert!(
            unknown.iter().any(|one| one.contains(&format!("metric {metric} "))),
            "{metric}: {unknown:?}"
        );
        for label in selector.matchers.iter().map(|one| &one.label) {
            let unknown = unknown_names(&documented.without_label(metric, label), &queries);
            let expected = format!("{metric} has no label {label} ");
            assert!(unknown.iter().any(|one| one.contains(&expected)), "{metric} {label}: {unknown:?}");
        }
    }
    // Labels by which a legend tells lines apart.
    let documented = documented.without_label("rowlock_queue_pods", "kind");
    let unknown = documented.unknown_names("max by (kind) (rowlock_queue_pods)");
    assert_eq!(unknown, ["none of its metrics has the label kind"]);
}
