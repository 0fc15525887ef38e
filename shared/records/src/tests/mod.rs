use std::collections::BTreeMap;
use std::path::Path;

use super::*;

mod behaviour;
mod damage;
mod migration;
#[cfg(target_os = "linux")]
mod power;

const DATA: Tree = Tree(1);
const MORE: Tree = Tree(2);
const OPTIONS: Options = Options { cache_bytes: 8 << 20, reserve_bytes: 1 << 20 };

static LAYOUT: Layout =
    Layout { trees: &["meta", "data", "more"], schema: 1, steps: &[], early_schema: |_| None };

/// What a store of these tests holds: tree and key to text.
type Model = BTreeMap<(usize, String), String>;

fn opened(dir: &Path) -> Records {
    open(dir, &LAYOUT, OPTIONS).unwrap().records
}

/// A record carries its key, so that a record under the key of another shows.
fn put(model: &mut Model, tree: Tree, key: &str, text: String) -> Change {
    model.insert((tree.0, key.to_owned()), text.clone());
    Change::put(tree, key.as_bytes().to_vec(), &(key, text)).unwrap()
}

fn remove(model: &mut Model, tree: Tree, key: &str) -> Change {
    model.remove(&(tree.0, key.to_owned()));
    Change::remove(tree, key.as_bytes().to_vec())
}

fn contents(reader: &Reader) -> Result<Model, Error> {
    let mut found = Model::new();
    for tree in [DATA, MORE] {
        let key_of = |(key, _): &(String, String)| key.as_bytes().to_vec();
        for (key, text) in reader.all::<(String, String)>(tree, key_of)? {
            found.insert((tree.0, key), text);
        }
    }
    Ok(found)
}

/// Small deterministic randomness.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }
}

/// Commits of all sizes over both trees: records are made, grow, shrink and go.
fn fill(records: &mut Records, model: &mut Model, commits: usize, dice: &mut Dice) {
    for _ in 0..commits {
        let mut changes = Vec::new();
        for _ in 0..=dice.below(4) {
            let tree = if dice.below(2) == 0 { DATA } else { MORE };
            let key = format!("key-{:02}", dice.below(30));
            if dice.below(5) == 0 {
                changes.push(remove(model, tree, &key));
            } else {
                let size = [10, 300, 3_000, 20_000][dice.below(4)];
                let text = format!("{:08}", dice.below(1 << 30)).repeat(size / 8);
                changes.push(put(model, tree, &key, text));
            }
        }
        records.commit(&changes).unwrap();
    }
}
