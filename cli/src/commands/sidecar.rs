//! `rowlock sidecar`: prints what a Deployment needs to carry the worker.

use crate::args::Sidecar;
use crate::dev::load_manifest;
use crate::failure::Failure;
use crate::output::Output;
use rowlock_crds::{Manifest, containers};
use rowlock_operator::worker_sidecar;

pub(crate) fn run(args: &Sidecar, output: Output) -> Result<(), Failure> {
    let manifest = load_manifest(&args.file, args.queue.as_deref())?;
    let Some(patch) = worker_sidecar(&manifest, &args.image) else { return Err(incomplete(&manifest)) };
    let yaml = serde_yaml::to_string(&patch).map_err(|error| Failure::new(error.to_string()))?;
    let text = || format!("{}{}", head(&manifest), yaml.trim_end());
    output.result(text, &patch)
}

/// How to use the patch, and what it leaves to the user.
fn head(manifest: &Manifest) -> String {
    let (task_queue, http) = (&manifest.name, &manifest.spec.handler.http);
    let deployment = manifest.spec.deployment_name(task_queue);
    let namespace = manifest.namespace.as_ref().map(|name| format!(" -n {name}")).unwrap_or_default();
    format!(
        "# Adds the container `{}` to the Deployment {deployment}, for the TaskQueue {task_queue}.\n\
         # A patch for kustomize, or kubectl patch deployment {deployment}{namespace} --patch-file FILE\n\
         # Your container has to answer on port {} of the pod, path {}, and on SIGTERM finish its open\n\
         # requests before it ends. Remove `replicas` from the manifest of the Deployment.\n",
        containers::WORKER,
        http.port,
        http.path,
    )
}

fn incomplete(manifest: &Manifest) -> Failure {
    let (place, spec) = (manifest.path.display(), &manifest.spec);
    if spec.target_ref.is_none() {
        return Failure::usage(format!("{place}: spec.targetRef is missing"))
            .hint("add `targetRef: { name: NAME }`; with `template`, the operator adds the worker itself");
    }
    Failure::usage(format!("{place}: spec.database is missing"))
        .hint("add `database: { secretRef: { name: NAME, key: KEY } }`, the Secret with the database's URL")
}
