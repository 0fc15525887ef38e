//! The subscription tree: which keys hold a filter that matches a topic. Pure; frees what is removed.

use crate::filter;
use crate::message::Qos;
use std::collections::{BTreeMap, HashMap};

/// Filters of many keys. Depth is bounded by the caller through the number of levels of a filter.
#[derive(Debug)]
pub(crate) struct Tree<K> {
    root: Node<K>,
    len: usize,
}

#[derive(Debug)]
struct Node<K> {
    /// Keys whose filter ends here.
    here: BTreeMap<K, Qos>,
    /// Keys whose filter ends with `#` below this node.
    below: BTreeMap<K, Qos>,
    plus: Option<Box<Node<K>>>,
    children: HashMap<Box<str>, Node<K>>,
}

impl<K> Default for Node<K> {
    fn default() -> Self {
        Self { here: BTreeMap::new(), below: BTreeMap::new(), plus: None, children: HashMap::new() }
    }
}

impl<K> Node<K> {
    fn is_empty(&self) -> bool {
        self.here.is_empty() && self.below.is_empty() && self.plus.is_none() && self.children.is_empty()
    }
}

impl<K: Ord + Copy> Tree<K> {
    pub fn new() -> Self {
        Self { root: Node::default(), len: 0 }
    }

    /// How many (key, filter) pairs it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds or replaces the valid `filter` of `key`.
    pub fn insert(&mut self, filter: &str, key: K, qos: Qos) {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            match level {
                "#" => {
                    self.len += usize::from(node.below.insert(key, qos).is_none());
                    return;
                }
                "+" => node = node.plus.get_or_insert_default(),
                _ => node = node.children.entry(level.into()).or_default(),
            }
        }
        self.len += usize::from(node.here.insert(key, qos).is_none());
    }

    /// Removes the `filter` of `key`; false when it was not there.
    pub fn remove(&mut self, filter: &str, key: K) -> bool {
        let removed = remove(&mut self.root, filter.split('/'), key);
        self.len -= usize::from(removed);
        removed
    }

    /// Calls `found` for each subscription that matches the valid `topic`; a key comes once per matching filter.
    pub fn visit(&self, topic: &str, found: &mut impl FnMut(K, Qos)) {
        visit(&self.root, topic.split('/'), !topic.starts_with('$'), found);
    }

    /// Each key that holds a matching filter, once, with the highest level among its matching filters.
    pub fn matches(&self, topic: &str) -> BTreeMap<K, Qos> {
        let mut found: BTreeMap<K, Qos> = BTreeMap::new();
        self.visit(topic, &mut |key, qos| {
            found.entry(key).and_modify(|highest| *highest = qos.max(*highest)).or_insert(qos);
        });
        found
    }

    #[cfg(test)]
    fn is_pruned(&self) -> bool {
        self.root.is_empty()
    }
}

fn remove<K: Ord + Copy>(node: &mut Node<K>, mut levels: std::str::Split<'_, char>, key: K) -> bool {
    let Some(level) = levels.next() else { return node.here.remove(&key).is_some() };
    match level {
        "#" => node.below.remove(&key).is_some(),
        "+" => {
            let Some(child) = node.plus.as_deref_mut() else { return false };
            let removed = remove(child, levels, key);
            if child.is_empty() {
                node.plus = None;
            }
            removed
        }
        _ => {
            let Some(child) = node.children.get_mut(level) else { return false };
            let removed = remove(child, levels, key);
            if child.is_empty() {
                node.children.remove(level);
            }
            removed
        }
    }
}

/// `wild` is false at the root for `$` topics, which leading wildcards do not match.
fn visit<K: Ord + Copy>(
    node: &Node<K>,
    mut levels: std::str::Split<'_, char>,
    wild: bool,
    found: &mut impl FnMut(K, Qos),
) {
    if wild {
        node.below.iter().for_each(|(key, qos)| found(*key, *qos));
    }
    let Some(level) = levels.next() else {
        node.here.iter().for_each(|(key, qos)| found(*key, *qos));
        return;
    };
    if let Some(child) = node.children.get(level) {
        visit(child, levels.clone(), true, found);
    }
    if let (true, Some(child)) = (wild, &node.plus) {
        visit(child, levels, true, found);
    }
}

/// A few filters of one client, matched one topic at a time.
#[derive(Debug)]
pub(crate) struct FilterSet {
    tree: Tree<u8>,
    prefix: String,
}

impl FilterSet {
    /// The set of these valid filters; `None` when there are none.
    pub fn new<'a>(filters: impl IntoIterator<Item = (&'a str, Qos)>) -> Option<Self> {
        let mut tree = Tree::new();
        let mut prefix: Option<&str> = None;
        for (text, qos) in filters {
            // One key stands for the client; equal filters of one packet: the last one counts, as in the session.
            tree.insert(text, 0, qos);
            let literal = filter::literal_prefix(text);
            prefix = Some(prefix.map_or(literal, |p| common_prefix(p, literal)));
        }
        prefix.map(|prefix| Self { prefix: prefix.to_owned(), tree })
    }

    /// Every matching topic begins with this.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The highest level among the filters that match.
    pub fn level(&self, topic: &str) -> Option<Qos> {
        self.tree.matches(topic).into_values().next()
    }
}

fn common_prefix<'a>(a: &'a str, b: &str) -> &'a str {
    let end = a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y).map(|((at, _), _)| at);
    &a[..end.unwrap_or(a.len().min(b.len()))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![Just(""), Just("a"), Just("b"), Just("ü"), Just("$x")].prop_map(str::to_owned)
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..5)
            .prop_map(|l| l.join("/"))
            .prop_filter("not empty", |t| !t.is_empty())
    }

    fn any_filter() -> impl Strategy<Value = String> {
        let part = prop_oneof![3 => level(), 2 => Just("+".to_owned())];
        (prop::collection::vec(part, 0..4), any::<bool>())
            .prop_map(|(mut levels, hash)| {
                if hash || levels.is_empty() {
                    levels.push("#".to_owned());
                }
                levels.join("/")
            })
            .prop_filter("not empty", |f| !f.is_empty())
    }

    proptest! {
        #[test]
        fn it_finds_what_the_naive_matcher_finds(
            filters in prop::collection::vec((any_filter(), 0u8..4, 0u8..3), 0..20),
            gone in prop::collection::vec(any::<bool>(), 20),
            topic in name(),
        ) {
            let mut tree = Tree::new();
            let mut model: BTreeMap<(String, u8), Qos> = BTreeMap::new();
            for (text, key, qos) in &filters {
                let qos = Qos::from_number(*qos).unwrap();
                tree.insert(text, *key, qos);
                model.insert((text.clone(), *key), qos);
            }
            for ((text, key, _), gone) in filters.iter().zip(&gone) {
                if *gone {
                    prop_assert_eq!(tree.remove(text, *key), model.remove(&(text.clone(), *key)).is_some());
                }
            }
            let mut expected: BTreeMap<u8, Qos> = BTreeMap::new();
            for ((text, key), qos) in &model {
                if filter::matches(text, &topic) {
                    expected.entry(*key).and_modify(|q| *q = (*q).max(*qos)).or_insert(*qos);
                }
            }
            prop_assert_eq!(tree.matches(&topic), expected);
            prop_assert_eq!(tree.len(), model.len());
            for (text, key) in model.keys() {
                prop_assert!(tree.remove(text, *key));
            }
            prop_assert!(tree.is_pruned());
        }

        #[test]
        fn a_filter_set_never_misses_a_topic_by_its_prefix(
            filters in prop::collection::vec(any_filter(), 1..4),
            topic in name(),
        ) {
            let set = FilterSet::new(filters.iter().map(|f| (f.as_str(), Qos::AtLeastOnce))).unwrap();
            let expected = filters.iter().any(|f| filter::matches(f, &topic));
            prop_assert_eq!(set.level(&topic).is_some(), expected);
            if expected {
                prop_assert!(topic.starts_with(set.prefix()));
            }
        }
    }
}
