//! The manifests of a folder, read again after each edit.

use crate::failure::Failure;
use crate::output::warn;
use rowlock_crds::{Manifest, check_set, parse_manifests};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often the folder is checked for edits.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A file as it was when it was read: path, last change, length.
type Stamp = (PathBuf, Option<SystemTime>, u64);

pub(super) struct ManifestWatcher {
    place: PathBuf,
    manifests: Vec<Manifest>,
    stamps: Vec<Stamp>,
    generation: i64,
    checked_at: Instant,
}

impl ManifestWatcher {
    pub(super) fn load(place: &Path) -> Result<Self, Failure> {
        let stamps =
            stamps(place).map_err(|error| Failure::usage(format!("-f {}: {error}", place.display())))?;
        let manifests = read(place, &stamps).map_err(|errors| Failure::usage(errors.join("\n")))?;
        Ok(Self {
            place: place.to_owned(),
            manifests,
            stamps,
            generation: next_generation(0),
            checked_at: Instant::now(),
        })
    }

    pub(super) fn manifests(&self) -> Vec<Manifest> {
        self.manifests.clone()
    }

    pub(super) fn generation(&self) -> i64 {
        self.generation
    }

    pub(super) fn first_queue(&self) -> String {
        self.manifests.first().map(|manifest| manifest.queue_name().to_owned()).unwrap_or_default()
    }

    /// Whether the manifests have changed. An error is printed once, and the old manifests are kept.
    pub(super) fn changed(&mut self) -> bool {
        if self.checked_at.elapsed() < CHECK_INTERVAL {
            return false;
        }
        self.checked_at = Instant::now();
        let Ok(now) = stamps(&self.place) else { return false };
        if now == self.stamps {
            return false;
        }
        let read = read(&self.place, &now);
        self.stamps = now;
        match read {
            Ok(manifests) if manifests == self.manifests => false,
            Ok(manifests) => {
                tracing::info!("applying the edited manifests");
                self.manifests = manifests;
                self.generation = next_generation(self.generation);
                true
            }
            Err(errors) => {
                for error in errors {
                    warn(&error);
                }
                warn("rowlock: keeping the manifests from before the edit");
                false
            }
        }
    }
}

fn stamps(place: &Path) -> std::io::Result<Vec<Stamp>> {
    let mut paths = Vec::new();
    if fs::metadata(place)?.is_dir() {
        for entry in fs::read_dir(place)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
                paths.push(path);
            }
        }
    } else {
        paths.push(place.to_owned());
    }
    paths.sort();
    // A file that vanished in between is noticed at the next check.
    let stamp = |path: PathBuf| {
        let metadata = fs::metadata(&path).ok()?;
        Some((path, metadata.modified().ok(), metadata.len()))
    };
    Ok(paths.into_iter().filter_map(stamp).collect())
}

fn read(place: &Path, stamps: &[Stamp]) -> Result<Vec<Manifest>, Vec<String>> {
    let mut manifests = Vec::new();
    let mut errors = Vec::new();
    for (path, _, _) in stamps {
        match fs::read_to_string(path) {
            Ok(text) => match parse_manifests(path, &text) {
                Ok(parsed) => manifests.extend(parsed),
                Err(wrong) => errors.extend(wrong.iter().map(ToString::to_string)),
            },
            Err(error) => errors.push(format!("{}: {error}", path.display())),
        }
    }
    if errors.is_empty() {
        errors.extend(check_set(&manifests).iter().map(ToString::to_string));
    }
    if errors.is_empty() && manifests.is_empty() {
        errors.push(format!("{}: no TaskQueue found; write one into a .yaml file", place.display()));
    }
    if errors.is_empty() { Ok(manifests) } else { Err(errors) }
}

/// The generation of the manifests, in place of a cluster's `metadata.generation`. From the clock, because it
/// has to grow from one run of `rowlock dev` to the next.
fn next_generation(before: i64) -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX).max(before.saturating_add(1))
}
