use super::*;

fn producer(batch: bool) -> ProducerTrace {
    ProducerTrace { traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".into(), batch }
}

fn attempt() -> Attempt<'static> {
    Attempt { task: TaskId(7), task_type: "send", number: 1, max_attempts: 3, waited: None }
}

#[test]
fn without_a_collector_a_task_of_a_batch_has_a_trace_of_its_own() {
    let traces = Traces { queue: "mail".into(), tracing: None };
    let (single, batch) = (Some(producer(false)), Some(producer(true)));
    assert_eq!(traces.begin(&attempt(), single.as_ref()).traceparent(), producer(false).traceparent);
    let own: Vec<_> = (0..2).map(|_| traces.begin(&attempt(), batch.as_ref()).trace_id()).collect();
    assert_ne!(own[0], own[1]);
    assert!(!own.contains(&traces.begin(&attempt(), single.as_ref()).trace_id()));
}

/// The producer does not sample, so the worker and the handler do not.
#[tokio::test]
async fn an_attempt_is_sampled_if_its_producer_is() {
    let metrics = Arc::new(Metrics::new("mail").unwrap());
    let endpoint = "http://127.0.0.1:1".parse().unwrap();
    let traces = Traces::new(Some(&endpoint), &"mail".into(), "a", &metrics).unwrap();
    let trace = traces.begin(&attempt(), Some(&producer(false)));
    let handed = trace.traceparent();
    assert!(
        handed.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && handed.ends_with("-00"),
        "{handed}"
    );
    assert!(traces.begin_settlement(&trace).is_none());
    assert!(traces.begin(&attempt(), None).traceparent().ends_with("-01"));
    drop(trace);
    traces.finish().await;
}

#[test]
fn a_collector_that_cannot_be_used_is_refused_without_quoting_its_url() {
    for url in
        ["https://u:secret@collector:4318", "collector:4318", "http://", "http://a/?token=secret", "a b"]
    {
        let error = parse_endpoint(url).unwrap_err().to_string();
        assert!(error.contains("--otlp-endpoint") && !error.contains("secret"), "{error}");
    }
    for url in ["http://collector:4318", "http://[::1]:4318/", "http://collector/prefix"] {
        assert!(parse_endpoint(url).is_ok(), "{url}");
    }
}
