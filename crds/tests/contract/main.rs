//! What the crate promises to those who write manifests and to the crates beside it.

mod duration;
mod manifest;
mod retry;
