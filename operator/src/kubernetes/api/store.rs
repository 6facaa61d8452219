//! The objects of one kind as a watch shows them, by name and by `TaskQueue`: pure. A pass over thousands of
//! queues does not look through all objects for each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use kube::Resource;
use kube::runtime::watcher::Event;

/// By namespace and name.
type Objects<V> = BTreeMap<String, BTreeMap<String, Arc<V>>>;

/// Namespace, `TaskQueue` and name.
type Entry = (Box<str>, Box<str>, Box<str>);

/// What is kept of each object.
#[derive(Debug)]
pub(crate) struct Store<V> {
    task_queue: Option<fn(&V) -> Option<&str>>,
    objects: Objects<V>,
    entries: BTreeSet<Entry>,
    /// The objects of a list that is not complete yet.
    listed: Objects<V>,
}

impl<V> Store<V> {
    /// `task_queue`: the `TaskQueue` of an object. Without it, none is found by it.
    pub(crate) fn new(task_queue: Option<fn(&V) -> Option<&str>>) -> Self {
        Self { task_queue, objects: Objects::new(), entries: BTreeSet::new(), listed: Objects::new() }
    }

    /// `keep`: takes from an object what is kept, also from one that is deleted.
    pub(crate) fn apply<K: Resource>(&mut self, event: Event<K>, keep: impl Fn(K) -> V) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                let (namespace, name) = key(&object);
                self.listed.entry(namespace).or_default().insert(name, Arc::new(keep(object)));
            }
            Event::InitDone => {
                self.objects = std::mem::take(&mut self.listed);
                self.entries = self.all_entries();
            }
            Event::Apply(object) => {
                let (namespace, name) = key(&object);
                self.remove(&namespace, &name);
                let kept = keep(object);
                self.entries.extend(self.entry(&namespace, &name, &kept));
                self.objects.entry(namespace).or_default().insert(name, Arc::new(kept));
            }
            Event::Delete(object) => {
                let (namespace, name) = key(&object);
                keep(object);
                self.remove(&namespace, &name);
            }
        }
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        self.objects.get(namespace)?.get(name).cloned()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<V>> {
        self.objects.values().flat_map(BTreeMap::values)
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.values().map(BTreeMap::len).sum()
    }

    /// The objects of a `TaskQueue`.
    pub(crate) fn of(&self, namespace: &str, task_queue: &str) -> impl Iterator<Item = Arc<V>> {
        let first: Entry = (namespace.into(), task_queue.into(), Box::default());
        let those = self.entries.range(first.clone()..);
        let those = those
            .take_while(move |(namespace, task_queue, _)| (namespace, task_queue) == (&first.0, &first.1));
        those.filter_map(|(namespace, _, name)| self.get(namespace, name))
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        let Some(names) = self.objects.get_mut(namespace) else { return };
        let removed = names.remove(name);
        if names.is_empty() {
            self.objects.remove(namespace);
        }
        // Its label may have changed.
        if let Some(entry) = removed.and_then(|removed| self.entry(namespace, name, &removed)) {
            self.entries.remove(&entry);
        }
    }

    fn all_entries(&self) -> BTreeSet<Entry> {
        let all = self.objects.iter().flat_map(|(namespace, names)| {
            names.iter().filter_map(move |(name, kept)| self.entry(namespace, name, kept))
        });
        all.collect()
    }

    fn entry(&self, namespace: &str, name: &str, kept: &V) -> Option<Entry> {
        let task_queue = self.task_queue?(kept)?;
        Some((namespace.into(), task_queue.into(), name.into()))
    }
}

fn key<K: Resource>(object: &K) -> (String, String) {
    let metadata = object.meta();
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod as ApiPod;
    use serde_json::json;

    use super::*;
    use crate::kubernetes::api::kept::Pod;

    fn pod(namespace: &str, name: &str, of: &str) -> ApiPod {
        let labels = json!({ "rowlock.dev/task-queue": of });
        let metadata = json!({ "namespace": namespace, "name": name, "labels": labels });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    fn kept(pod: ApiPod) -> Pod {
        pod.into()
    }

    fn store() -> Store<Pod> {
        Store::new(Some(|pod| pod.metadata.labels.get("rowlock.dev/task-queue")))
    }

    fn names(store: &Store<Pod>, namespace: &str, of: &str) -> Vec<String> {
        store.of(namespace, of).map(|pod| pod.metadata.name.clone().unwrap()).collect()
    }

    #[test]
    fn the_objects_of_a_task_queue_are_those_of_its_label_and_namespace() {
        let mut store = store();
        for (namespace, name, of) in
            [("a", "p", "mail"), ("a", "o", "mail"), ("a", "q", "mail2"), ("b", "p", "mail")]
        {
            store.apply(Event::Apply(pod(namespace, name, of)), kept);
        }
        assert_eq!(names(&store, "a", "mail"), ["o", "p"]);
        assert_eq!(names(&store, "b", "mail"), ["p"]);
        assert!(names(&store, "b", "mail2").is_empty());
        store.apply(Event::Delete(pod("a", "p", "mail")), kept);
        assert_eq!(names(&store, "a", "mail"), ["o"]);
        // Before, each change of a label left an entry behind.
        store.apply(Event::Apply(pod("a", "o", "mail2")), kept);
        assert_eq!(names(&store, "a", "mail2"), ["o", "q"]);
        store.apply(Event::Delete(pod("b", "p", "mail")), kept);
        assert_eq!((store.entries.len(), store.len(), store.objects.len()), (2, 2, 1));
        assert!(store.get("a", "q").is_some() && store.get("b", "p").is_none());
    }

    #[test]
    fn a_new_list_replaces_all_when_it_is_complete() {
        let mut store = store();
        store.apply(Event::Apply(pod("a", "old", "mail")), kept);
        store.apply(Event::Init, kept);
        store.apply(Event::InitApply(pod("a", "new", "mail")), kept);
        assert_eq!(names(&store, "a", "mail"), ["old"]);
        store.apply(Event::InitDone, kept);
        assert_eq!(names(&store, "a", "mail"), ["new"]);
        assert!(store.get("a", "old").is_none() && store.all().count() == 1);
    }
}
