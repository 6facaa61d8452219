//! The objects of each `TaskQueue`, so that a pass over thousands of queues does not look through all objects
//! for each of them: pure.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use kube::Resource;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;

type Entries = BTreeSet<(String, String, String)>;

/// Namespace, `TaskQueue` and name of each object of one kind, as the events of a watch report them.
#[derive(Debug)]
pub(crate) struct Index<K> {
    task_queue: Option<fn(&K) -> Option<&str>>,
    entries: Entries,
    /// The objects of a list that is not complete yet.
    listed: Entries,
}

impl<K: Resource<DynamicType = ()> + Clone> Index<K> {
    /// `task_queue`: the `TaskQueue` of an object. Without it, nothing is indexed.
    pub(crate) fn new(task_queue: Option<fn(&K) -> Option<&str>>) -> Self {
        Self { task_queue, entries: Entries::new(), listed: Entries::new() }
    }

    /// `before`: an object as it was before the event.
    pub(crate) fn note(&mut self, event: &Event<K>, before: impl Fn(&ObjectRef<K>) -> Option<Arc<K>>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => self.listed.extend(self.entry(object)),
            Event::InitDone => self.entries = std::mem::take(&mut self.listed),
            Event::Apply(object) | Event::Delete(object) => {
                // Its label may have changed.
                let before = before(&ObjectRef::from_obj(object));
                if let Some(entry) = before.and_then(|before| self.entry(&before)) {
                    self.entries.remove(&entry);
                }
                if matches!(event, Event::Apply(_)) {
                    self.entries.extend(self.entry(object));
                }
            }
        }
    }

    /// The objects of a `TaskQueue`.
    pub(crate) fn of(&self, namespace: &str, task_queue: &str) -> impl Iterator<Item = ObjectRef<K>> {
        let first = (namespace.to_owned(), task_queue.to_owned(), String::new());
        let those = self.entries.range(first.clone()..);
        let those = those
            .take_while(move |(namespace, task_queue, _)| (namespace, task_queue) == (&first.0, &first.1));
        those.map(|(namespace, _, name)| ObjectRef::new(name).within(namespace))
    }

    fn entry(&self, object: &K) -> Option<(String, String, String)> {
        let task_queue = self.task_queue?(object)?;
        let metadata = object.meta();
        Some((metadata.namespace.clone()?, task_queue.to_owned(), metadata.name.clone()?))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, name: &str, of: &str) -> Pod {
        let metadata = json!({ "namespace": namespace, "name": name, "labels": { "of": of } });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    fn index() -> Index<Pod> {
        Index::new(Some(|pod| pod.metadata.labels.as_ref()?.get("of").map(String::as_str)))
    }

    fn names(index: &Index<Pod>, namespace: &str, of: &str) -> Vec<String> {
        index.of(namespace, of).map(|object| object.name).collect()
    }

    /// Nothing was there before.
    fn none(_: &ObjectRef<Pod>) -> Option<Arc<Pod>> {
        None
    }

    #[test]
    fn the_objects_of_a_task_queue_are_those_of_its_label_and_namespace() {
        let mut index = index();
        for (namespace, name, of) in
            [("a", "p", "mail"), ("a", "o", "mail"), ("a", "q", "mail2"), ("b", "p", "mail")]
        {
            index.note(&Event::Apply(pod(namespace, name, of)), none);
        }
        assert_eq!(names(&index, "a", "mail"), ["o", "p"]);
        assert_eq!(names(&index, "b", "mail"), ["p"]);
        assert!(names(&index, "b", "mail2").is_empty());
        let before = |name| move |_: &ObjectRef<Pod>| Some(Arc::new(pod("a", name, "mail")));
        index.note(&Event::Delete(pod("a", "p", "mail")), before("p"));
        assert_eq!(names(&index, "a", "mail"), ["o"]);
        // Before, each change of a label left an entry behind.
        index.note(&Event::Apply(pod("a", "o", "mail2")), before("o"));
        assert_eq!(names(&index, "a", "mail2"), ["o", "q"]);
        assert_eq!(index.entries.len(), 3);
    }

    #[test]
    fn a_new_list_replaces_all_when_it_is_complete() {
        let mut index = index();
        index.note(&Event::Apply(pod("a", "old", "mail")), none);
        index.note(&Event::Init, none);
        index.note(&Event::InitApply(pod("a", "new", "mail")), none);
        assert_eq!(names(&index, "a", "mail"), ["old"]);
        index.note(&Event::InitDone, none);
        assert_eq!(names(&index, "a", "mail"), ["new"]);
    }
}
