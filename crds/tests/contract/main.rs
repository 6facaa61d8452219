//! The contract of this crate with authors of manifests and with the other crates.

mod bounds;
#[cfg(feature = "kube")]
mod crd;
mod duration;
mod manifest;
mod retry;
