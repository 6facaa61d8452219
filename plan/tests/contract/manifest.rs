//! What a manifest becomes: the queue that is decided about, and its instances.

use rowlock_crds::{AutoscalingSpec, Dur, Manifest, ScalingMode, TaskQueueSpec, env};
use rowlock_plan::{Memory, ObservedQueue, Ports, Reason, Scaling, decide, fleet};

use crate::{auto, first, seconds};

#[test]
fn a_spec_becomes_what_is_decided_about() {
    let mut spec = TaskQueueSpec::with_workers(40);
    assert_eq!(ObservedQueue::of(&spec).scaling, Scaling::Fixed);
    let scaled_by = |scaling, replicas| {
        let mut spec = spec.clone();
        (spec.workers.scaling, spec.workers.replicas) = (Some(scaling), replicas);
        ObservedQueue::of(&spec).scaling
    };
    assert_eq!(scaled_by(ScalingMode::Auto, None), auto(0));
    assert_eq!(scaled_by(ScalingMode::Fixed, None), Scaling::Fixed);
    assert_eq!(scaled_by(ScalingMode::External, Some(7)), Scaling::External { replicas: Some(7) });
    spec.workers.autoscaling = Some(AutoscalingSpec { min: 2, ..AutoscalingSpec::default() });
    spec.paused = true;
    let observed = ObservedQueue::of(&spec);
    assert_eq!((observed.total, observed.per_pod, observed.paused), (40, 10, true));
    assert_eq!(observed.scaling, auto(2));
    assert_eq!(first(&observed).reason, Reason::MinWorkers);
}

#[test]
fn a_fleet_is_instances_with_their_environment() {
    let mut spec = TaskQueueSpec::with_workers(40);
    spec.queue_name = Some("mails".to_owned());
    spec.timeout = Dur::from_secs(90);
    let manifest = Manifest::new("emails", spec);
    let ports = |index| Ports { handler_port: 9000 + index, worker_port: 9464 + index };
    let three = fleet(&manifest, 3, ports);
    assert_eq!((three.queue.as_str(), three.instances.len()), ("mails", 3));
    let env: Vec<(&str, &str)> =
        three.instances[2].worker_env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let expected = [
        (env::DRAIN_GRACE, "1m30s"),
        (env::HANDLER_URL, "http://127.0.0.1:9002/tasks"),
        (env::INSTANCE_NAME, "emails-2"),
        (env::LISTEN, "127.0.0.1:9466"),
        (env::QUEUE, "mails"),
        (env::SLOTS, "10"),
    ];
    assert_eq!(env, expected);
    assert_eq!(three.instances[2].grace, seconds(95));
    // A smaller fleet is the front of a larger one, so that scaling touches nobody else.
    assert_eq!(fleet(&manifest, 2, ports).instances, three.instances[..2]);
    assert_eq!(decide(&ObservedQueue::of(&manifest.spec), Memory::default(), seconds(0)).pods_desired, 4);
}
