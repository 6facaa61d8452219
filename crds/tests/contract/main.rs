//! What the crate promises to those who write manifests and to the crates beside it.

mod bounds;
#[cfg(feature = "kube")]
mod crd;
mod duration;
mod manifest;
mod retry;
