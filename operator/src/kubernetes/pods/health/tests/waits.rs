//! Pods that wait for something, and how long they may wait until that is a problem.

use super::*;
use ConditionReason::{NotListening, NotStarting};

/// A pod that waits.
struct Scene {
    spec: Value,
    status: Value,
}

/// The time that many seconds before [`NOW`].
fn ago(seconds: i64) -> String {
    let now: Timestamp = NOW.parse().unwrap();
    Timestamp::from_second(now.as_second() - seconds).unwrap().to_string()
}

impl Scene {
    /// A pod with an init container, a proxy, the handler and the worker, none of which has started. It got
    /// its node `seconds` ago.
    fn new(seconds: i64) -> Self {
        let spec = json!({
            "nodeName": "n1",
            "initContainers": [
                { "name": "wait-for-kafka" },
                { "name": "proxy", "restartPolicy": "Always" },
                { "name": "handler", "restartPolicy": "Always" },
            ],
            "containers": [{ "name": "worker" }],
        });
        let waiting = json!({ "waiting": { "reason": "PodInitializing" } });
        let init = ["wait-for-kafka", "proxy", "handler"]
            .map(|name| container(name, false, 0, &waiting, &json!({})));
        let status = json!({
            "phase": "Pending",
            "startTime": ago(seconds),
            "conditions": [
                { "type": "PodScheduled", "status": "True", "lastTransitionTime": ago(seconds) },
                { "type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": ago(seconds) },
            ],
            "initContainerStatuses": init,
            "containerStatuses": [container("worker", false, 0, &waiting, &json!({}))],
        });
        Self { spec, status }
    }

    /// With that init container running for `seconds`. `started`: its startup probe has succeeded.
    fn runs(mut self, index: usize, seconds: i64, started: bool) -> Self {
        let one = &mut self.status["initContainerStatuses"][index];
        one["state"] = json!({ "running": { "startedAt": ago(seconds) } });
        (one["started"], one["ready"]) = (started.into(), started.into());
        self
    }

    /// With that init container completed `seconds` ago.
    fn ended(mut self, index: usize, seconds: i64) -> Self {
        let ended = json!({ "exitCode": 0, "reason": "Completed", "finishedAt": ago(seconds) });
        self.status["initContainerStatuses"][index]["state"] = json!({ "terminated": ended });
        self
    }

    /// With all containers running, the worker for `seconds`. `worker`: whether it is ready.
    fn all_run(self, seconds: i64, worker: bool) -> Self {
        let mut scene = self.ended(0, seconds + 20).runs(1, seconds + 10, true).runs(2, seconds + 5, true);
        let one = &mut scene.status["containerStatuses"][0];
        one["state"] = json!({ "running": { "startedAt": ago(seconds) } });
        one["ready"] = worker.into();
        scene
    }

    fn probe(mut self, index: usize, name: &str, probe: &Value) -> Self {
        self.spec["initContainers"][index][name] = probe.clone();
        self
    }

    fn pod(&self) -> Arc<Pod> {
        let metadata =
            json!({ "name": "p", "namespace": "shop", "uid": "u1", "creationTimestamp": ago(300) });
        Arc::new(
            serde_json::from_value(json!({ "metadata": metadata, "spec": self.spec, "status": self.status }))
                .unwrap(),
        )
    }

    fn health(&self) -> PodHealth {
        health_of_all(&[self.pod()], None)
    }

    /// Checks that nothing is reported yet.
    fn is_quiet(&self) {
        let found = self.health();
        assert_eq!((found.problem, found.slow), (None, None));
    }

    /// Checks that the health says what the pod waits for, without a problem.
    fn is_slow(&self, says: &str) {
        let found = self.health();
        assert_eq!(found.problem, None);
        assert!(found.slow.as_ref().is_some_and(|slow| slow.contains(says)), "{:?}", found.slow);
        self.blocks_scaling(false);
    }

    /// Checks that there is a problem with that reason and those texts.
    fn is_wrong(&self, reason: ConditionReason, says: &[&str]) -> PodHealth {
        let found = self.health();
        let problem = found.problem.clone().unwrap();
        assert_eq!(problem.reason, reason);
        for part in says {
            assert!(problem.message.contains(part), "{}", problem.message);
        }
        assert_eq!(found.pod, Some(PodRef { name: "p".into(), uid: "u1".into() }));
        found
    }

    fn blocks_scaling(&self, expected: bool) {
        assert_eq!(not_starting(&[self.pod()], false, NOW.parse().unwrap()), expected);
    }
}

/// Before, the status did not explain such pods, and the operator created more of them.
#[test]
fn a_pod_without_its_volumes_or_its_network_is_named_within_a_minute_and_blocks_scaling() {
    let scene = |seconds: i64| {
        let mut scene = Scene::new(seconds);
        scene.status["conditions"][1]["status"] = "False".into();
        scene
    };
    scene(20).is_quiet();
    scene(40).is_slow("its volumes or its network");
    let says = ["pod p waits for its volumes or its network", "kubectl describe pod p -n shop"];
    let mut found = scene(70).is_wrong(NotStarting, &says);
    scene(70).blocks_scaling(true);
    assert!(found.read_events, "the kubelet's events say which volume");
    found.add("FailedMount: configmap \"typo\" not found");
    assert!(found.problem.unwrap().message.contains("configmap \"typo\" not found"));
}

#[test]
fn an_init_container_that_never_ends_is_named_with_its_log() {
    let scene = |seconds: i64| Scene::new(120).runs(0, seconds, false);
    scene(20).is_quiet();
    scene(40).is_slow("wait-for-kafka");
    scene(70).is_wrong(
        NotStarting,
        &["init container wait-for-kafka of pod p", "kubectl logs p -c wait-for-kafka"],
    );
    scene(70).blocks_scaling(true);
    // After it has ended, the wait for the next container counts from then on.
    Scene::new(120).ended(0, 10).is_quiet();
    Scene::new(120).ended(0, 40).is_slow("container proxy of pod p is not created yet");
}

#[test]
fn a_large_image_takes_its_time() {
    Scene::new(20).is_quiet();
    Scene::new(250).is_slow("still be pulling its image `i:1`");
    let found = Scene::new(310).is_wrong(NotStarting, &["wait-for-kafka", "kubectl describe pod p -n shop"]);
    assert!(found.read_events);
    Scene::new(310).blocks_scaling(false);
}

#[test]
fn a_pod_that_no_scheduler_or_no_kubelet_handles_is_named() {
    let mut unseen = Scene::new(0);
    (unseen.spec["nodeName"], unseen.status) = (Value::Null, json!({ "phase": "Pending" }));
    unseen.is_wrong(NotStarting, &["no scheduler", "schedulerName"]);
    let mut held_back = Scene::new(0);
    held_back.status["conditions"][0] =
        json!({ "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "g" });
    held_back.is_wrong(NotStarting, &["scheduling gate"]);
    let not_begun = |seconds: i64| {
        let mut scene = Scene::new(seconds);
        scene.status["startTime"] = Value::Null;
        scene
    };
    not_begun(20).is_quiet();
    not_begun(70).is_wrong(NotStarting, &["kubelet of node n1", "kubectl describe node n1"]);
}

/// Before, a JVM that starts in 75 s, as its startup probe allows, was reported as a problem at each
/// scale-up.
#[test]
fn a_start_within_the_limits_of_the_templates_probes_is_no_problem() {
    let slow =
        json!({ "failureThreshold": 30, "periodSeconds": 5, "httpGet": { "path": "/up", "port": 8080 } });
    let starts = |seconds: i64| Scene::new(300).ended(0, 280).runs(1, 280, true).runs(2, seconds, false);
    let probed = |seconds: i64| starts(seconds).probe(2, "startupProbe", &slow);
    probed(20).is_quiet();
    let pending = "(httpGet /up on port 8080) of container handler of pod p has not succeeded yet; it may \
                   take 150 s";
    probed(100).is_slow(pending);
    probed(160).is_wrong(NotListening, &["startupProbe (httpGet /up on port 8080)", "native sidecar"]);
    starts(40).is_wrong(NotListening, &["startupProbe of container handler"]);
    // A proxy that starts before it is named too.
    let proxy = Scene::new(300).ended(0, 280).runs(1, 200, false).probe(1, "startupProbe", &slow);
    proxy.is_wrong(NotListening, &["container proxy"]);
    // The initial delay of a readiness probe tells how long the handler takes until it listens.
    let patient = json!({ "initialDelaySeconds": 60, "tcpSocket": { "port": 8080 } });
    let listens = |seconds: i64| Scene::new(300).all_run(seconds, false).probe(2, "readinessProbe", &patient);
    listens(80).is_slow("waits for its handler to listen on port 8080");
    listens(95).is_wrong(NotListening, &["does not listen on port 8080"]);
    assert_eq!(listens(80).health().start_longest, Duration::from_secs(90));
}

/// Before, all tasks were processed, but the queue was never ready, and the status did not say why.
#[test]
fn a_readiness_probe_that_cannot_reach_the_handler_is_explained() {
    let probe = json!({ "httpGet": { "port": 8080 } });
    let scene = |seconds: i64| {
        let mut scene = Scene::new(300).all_run(seconds, true).probe(2, "readinessProbe", &probe);
        scene.status["initContainerStatuses"][2]["ready"] = false.into();
        scene
    };
    scene(10).is_quiet();
    scene(40).is_wrong(
        NotListening,
        &["readinessProbe (httpGet / on port 8080) of container handler", "127.0.0.1"],
    );
    scene(40).blocks_scaling(false);
}

#[test]
fn all_pods_with_a_problem_are_counted() {
    let mut waits = Scene::new(100);
    waits.status["conditions"][1]["status"] = "False".into();
    let ready = pod(&json!({ "conditions": [{ "type": "Ready", "status": "True" }] }));
    let found = health_of_all(&[waits.pod(), ready, waits.pod()], None);
    assert_eq!((found.pods, found.ready, found.failing), (3, 1, 2));
}
