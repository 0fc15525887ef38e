//! What every store promises, run over each of them.

use std::sync::Arc;

use tidegate_cloud_core::{
    Actor, EdgeRecord, Facts, KeptAnswer, Meta, OnceRecord, PlacementRecord, RuleRecord, StoredSecrets,
    Target, VersionRecord, Write,
};
use tidegate_model::digest::Digest;
use tidegate_model::ids::{EdgeId, RuleId};
use tidegate_model::placement::VersionDigest;
use tidegate_model::rule::{Format, Limits, Secret, Secrets, ValidRule, parse};
use tidegate_model::time::Wall;
use tidegate_model::version::{Generation, RuleVersion};
use tidegate_model::wire::DesiredRun;

use super::export::FORMAT;
use super::{Check, Counts, Memory, Sled, Store, StoreError, check_file, export, fill, frozen, nothing_new};

/// Cache of a test's store, in MiB.
const CACHE_MIB: u64 = 8;

pub(super) fn content(name: &str) -> ValidRule {
    let text = format!(
        "name = \"{name}\"\n[remote]\nurl = \"mqtt://broker.example\"\n[[forwards]]\ntopic = \"sensors/#\"\n"
    );
    parse(&text, Format::Toml).unwrap().validate(&Limits::default()).unwrap().0
}

fn actor() -> Actor {
    Actor { name: "ada".to_owned(), via: "api".to_owned() }
}

pub(super) fn rule(number: u128, version: u64) -> RuleRecord {
    RuleRecord {
        id: RuleId(uuid::Uuid::from_u128(number)),
        version: RuleVersion(version),
        content: content(&format!("rule-{number}")),
        secret: Some(StoredSecrets {
            version: 1,
            secrets: Secrets { password: Some(Secret::new("pässword")), key: Some(Secret::new("kéy")) },
        }),
        secret_versions: 1,
        created: Wall(1),
        changed: Wall(2),
        changed_by: actor(),
    }
}

pub(super) fn put_rule(number: u128, version: u64, expect: Option<u64>) -> Write {
    Write::PutRule { record: Box::new(rule(number, version)), expect: expect.map(RuleVersion) }
}

pub(super) fn version(number: u128, version: u64) -> VersionRecord {
    VersionRecord {
        rule: RuleId(uuid::Uuid::from_u128(number)),
        version: RuleVersion(version),
        content: content(&format!("rule-{number}")),
        secret: None,
        at: Wall(3),
        by: actor(),
        note: format!("change {version}"),
        restored_from: None,
    }
}

pub(super) fn edge(name: &str) -> EdgeRecord {
    let facts = Facts { epoch: 5, ..Facts::default() };
    EdgeRecord {
        id: EdgeId::new(name).unwrap(),
        created: Wall(4),
        credential: "$argon2id$x".to_owned(),
        facts,
    }
}

/// A placement whose rendered rule has this many bytes.
pub(super) fn placement(number: u128, edge: &str, bytes: usize) -> PlacementRecord {
    let rule = rule(number, 1);
    let at = VersionDigest { version: rule.version, digest: Digest::of(b"x") };
    PlacementRecord {
        rule: rule.id,
        name: rule.name().clone(),
        edge: EdgeId::new(edge).unwrap(),
        vars: [("site".to_owned(), "lyon".to_owned())].into(),
        present: true,
        generation: Generation(7),
        desired: Arc::new(Target { at, bytes: "x".repeat(bytes), secret: None }),
        target: None,
        committed: None,
        run: DesiredRun::Running,
        restart: 0,
        operation: None,
        last_issue: None,
        last_run: None,
        reported: None,
    }
}

async fn what_is_written_is_loaded(store: &dyn Store) {
    assert!(store.load().await.unwrap().rules.is_empty());
    let (a, b) = (edge("gw-1"), edge("gw-10"));
    let big = placement(1, "gw-1", 60_000);
    store
        .apply(vec![
            Write::PutMeta(Meta { epoch: 42 }),
            put_rule(1, 1, None),
            put_rule(2, 1, None),
            Write::PutEdge(Arc::new(a.clone())),
            Write::PutEdge(Arc::new(b.clone())),
            Write::PutPlacement(Arc::new(big.clone())),
        ])
        .await
        .unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.meta.epoch, 42);
    assert_eq!(loaded.rules, [rule(1, 1), rule(2, 1)]);
    assert_eq!(loaded.edges, [a, b.clone()]);
    assert_eq!(loaded.placements, [big]);

    // Smaller in place of larger, and removals.
    let small = placement(1, "gw-1", 10);
    store
        .apply(vec![
            Write::PutPlacement(Arc::new(small.clone())),
            Write::RemoveRule(rule(2, 1).id),
            Write::RemoveEdge(edge("gw-1").id),
            Write::RemoveEdge(EdgeId::new("never-there").unwrap()),
        ])
        .await
        .unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.rules.len(), loaded.edges, loaded.placements), (1, vec![b], vec![small.clone()]));
    store.apply(vec![Write::RemovePlacement { rule: small.rule, edge: small.edge }]).await.unwrap();
    assert!(store.load().await.unwrap().placements.is_empty());
    store.health().await.unwrap();
}

fn answer(number: u8, bytes: usize) -> OnceRecord {
    OnceRecord {
        id: Digest::of(&[number]),
        request: Digest::of(b"request"),
        at: Wall(7),
        answer: KeptAnswer {
            status: 201,
            headers: vec![("etag".to_owned(), "\"1-aa\"".to_owned())],
            body: "ä".repeat(bytes),
        },
    }
}

async fn an_answer_is_kept_with_what_it_answers(store: &dyn Store) {
    let (a, b) = (answer(1, 40_000), answer(2, 0));
    let put = |record: &OnceRecord| Write::PutAnswer(Box::new(record.clone()));
    store.apply(vec![put_rule(1, 1, None), put(&a), put(&b)]).await.unwrap();
    let mut expected = vec![a.clone(), b.clone()];
    expected.sort_by_key(|record| record.id);
    assert_eq!(store.load().await.unwrap().answers, expected);
    // With a change that is refused its answer is not there either.
    let refused = store.apply(vec![put(&answer(3, 1)), put_rule(1, 1, None)]).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })));
    store
        .apply(vec![Write::RemoveAnswer(a.id), Write::RemoveAnswer(Digest::of(b"never there"))])
        .await
        .unwrap();
    assert_eq!(store.load().await.unwrap().answers, [b]);
}

async fn a_conflict_applies_nothing(store: &dyn Store) {
    store.apply(vec![put_rule(1, 1, None)]).await.unwrap();
    for (expect, found) in [(None, 1), (Some(2), 1)] {
        let edge = Write::PutEdge(Arc::new(edge("gw-1")));
        let error = store.apply(vec![edge, put_rule(1, 2, expect)]).await.unwrap_err();
        match error {
            StoreError::Conflict { expected, found: is, .. } => {
                assert_eq!((expected, is), (expect.map(RuleVersion), Some(RuleVersion(found))));
            }
            other => panic!("{other}"),
        }
    }
    assert!(store.load().await.unwrap().edges.is_empty());
    // Within a batch each write sees those before it.
    let id = rule(1, 1).id;
    store
        .apply(vec![
            put_rule(1, 2, Some(1)),
            put_rule(1, 3, Some(2)),
            Write::RemoveRule(id),
            put_rule(1, 9, None),
        ])
        .await
        .unwrap();
    assert_eq!(store.load().await.unwrap().rules[0].version, RuleVersion(9));
    assert!(matches!(
        store.apply(vec![put_rule(3, 2, Some(1))]).await,
        Err(StoreError::Conflict { found: None, .. })
    ));
}

async fn versions_are_paged_newest_first(store: &dyn Store) {
    let writes = (1..=300).map(|v| Write::PutVersion(Box::new(version(1, v))));
    let others = [version(0, 1), version(2, 1)].map(|v| Write::PutVersion(Box::new(v)));
    store.apply(writes.chain(others).collect()).await.unwrap();
    let id = rule(1, 1).id;
    let numbers = |page: Vec<VersionRecord>| page.iter().map(|v| v.version.0).collect::<Vec<_>>();
    assert_eq!(numbers(store.versions(id, None, 3).await.unwrap()), [300, 299, 298]);
    assert_eq!(numbers(store.versions(id, Some(RuleVersion(3)), 10).await.unwrap()), [2, 1]);
    assert!(store.versions(id, Some(RuleVersion(1)), 10).await.unwrap().is_empty());
    assert!(store.versions(rule(9, 1).id, None, 10).await.unwrap().is_empty());
    assert_eq!(store.version(id, RuleVersion(17)).await.unwrap().unwrap(), version(1, 17));
    assert_eq!(store.version(id, RuleVersion(301)).await.unwrap(), None);
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.all_versions(after, 100).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.rule, last.version));
        seen.extend(page.iter().map(|v| (v.rule, v.version.0)));
    }
    assert_eq!(seen.len(), 302);
    assert!(seen.is_sorted());
}

async fn concurrent_writers_all_are_served(store: Arc<dyn Store>) {
    let tasks: Vec<_> = (0..64_u128)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.apply(vec![put_rule(number % 32, 1, None)]).await })
        })
        .collect();
    let mut refused = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => {}
            Err(StoreError::Conflict { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((refused, store.load().await.unwrap().rules.len()), (32, 32));
}

/// The export of a store that nobody writes to.
pub(super) async fn exported(store: &dyn Store) -> Vec<u8> {
    let (chunks, mut coming) = tokio::sync::mpsc::channel(1);
    let frozen = frozen(store.load().await.unwrap());
    let gather = async {
        let mut all = Vec::new();
        while let Some(chunk) = coming.recv().await {
            all.extend(chunk);
        }
        all
    };
    let (exported, all) = tokio::join!(export(frozen, store, nothing_new(), chunks), gather);
    exported.unwrap();
    all
}

async fn an_export_fills_another_store(store: &dyn Store, empty: &dyn Store) {
    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("export.jsonl");
    let mut writes: Vec<Write> = (1..=250).map(|v| Write::PutVersion(Box::new(version(1, v)))).collect();
    // Of a rule that was deleted.
    writes.push(Write::PutVersion(Box::new(version(2, 1))));
    writes.extend([
        Write::PutMeta(Meta { epoch: 9 }),
        put_rule(1, 250, None),
        Write::PutEdge(Arc::new(edge("gw-1"))),
        Write::PutPlacement(Arc::new(placement(1, "gw-1", 20_000))),
        Write::PutAnswer(Box::new(answer(1, 10))),
    ]);
    store.apply(writes).await.unwrap();
    let whole = exported(store).await;
    assert_eq!(exported(store).await, whole, "the same contents give the same file");
    std::fs::write(&file, &whole).unwrap();
    let checked = check_file(&file).await.unwrap();
    let counts = Counts { rules: 1, versions: 251, edges: 1, placements: 1 };
    assert_eq!(checked.counts, counts);
    // However the network cuts it.
    for size in [1, 7, 1_000, whole.len()] {
        let mut check = Check::default();
        whole.chunks(size).for_each(|piece| check.feed(piece).unwrap());
        assert_eq!(check.finish().unwrap(), checked);
    }

    assert_eq!(fill(empty, &file).await.unwrap(), checked);
    let (there, here) = (store.load().await.unwrap(), empty.load().await.unwrap());
    assert_eq!(
        (there.meta, there.rules, there.edges, there.placements),
        (here.meta, here.rules, here.edges, here.placements)
    );
    // An export is a backup or a move: what was answered in the last hours stays behind (docs/adr/0010).
    assert_eq!((there.answers.len(), here.answers.len()), (1, 0));
    assert_eq!(empty.version(rule(1, 1).id, RuleVersion(77)).await.unwrap().unwrap(), version(1, 77));
    assert_eq!(exported(empty).await, whole);
}

#[tokio::test]
async fn a_file_that_is_not_whole_is_refused_with_a_sentence_that_quotes_nothing() {
    let store = Memory::default();
    let writes = vec![put_rule(1, 1, None), Write::PutVersion(Box::new(version(1, 1)))];
    store.apply(writes).await.unwrap();
    let whole = String::from_utf8(exported(&store).await).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let without = |n: usize| {
        lines.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, l)| format!("{l}\n")).collect::<String>()
    };
    let table = [
        (whole.replacen("change 1\"", "change 2\"", 1), "its SHA-256 does not fit"),
        (without(2), "not as many as its last line says"),
        (without(lines.len() - 1), "it ends after 4 lines"),
        (whole[..whole.len() / 2].to_owned(), "it was cut"),
        (whole.trim_end().to_owned(), "it was cut"),
        (format!("{whole}{whole}"), "something stands after its last line"),
        (format!("{whole}x"), "something stands after its last line"),
        (
            whole.replacen(&format!("\"format\":{FORMAT}"), &format!("\"format\":{}", FORMAT + 1), 1),
            "reads up to 2; import it with the version of tidegate",
        ),
        (without(0), "no export of tidegate"),
        ("{}\n".to_owned(), "no export of tidegate"),
        ("PK\u{3}\u{4}\n".to_owned(), "no export of tidegate"),
        (String::new(), "it is empty"),
        (whole.replacen("\"kind\":\"rule\"", "\"kind\":\"ruler\"", 1), "line 3: it is not a record"),
        (format!("{0}\n{0}\n", lines[0]), "line 2: a header may only be the first line"),
    ];
    let tmp = tempfile::tempdir().unwrap();
    let spoilt = tmp.path().join("spoilt.jsonl");
    for (text, why) in table {
        std::fs::write(&spoilt, &text).unwrap();
        let error = check_file(&spoilt).await.unwrap_err();
        assert!(matches!(error, StoreError::Transfer { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(why) && error.contains("spoilt.jsonl"), "{why}: {error}");
        assert!(!error.contains("pässword"), "{error}");
    }
}

macro_rules! suite {
    ($name:ident, $store:expr) => {
        mod $name {
            use super::*;

            #[tokio::test]
            async fn what_is_written_is_loaded() {
                let (_dir, store) = $store.await;
                super::what_is_written_is_loaded(&store).await;
            }

            #[tokio::test]
            async fn an_answer_is_kept_with_what_it_answers() {
                let (_dir, store) = $store.await;
                super::an_answer_is_kept_with_what_it_answers(&store).await;
            }

            #[tokio::test]
            async fn a_conflict_applies_nothing() {
                let (_dir, store) = $store.await;
                super::a_conflict_applies_nothing(&store).await;
            }

            #[tokio::test]
            async fn versions_are_paged_newest_first() {
                let (_dir, store) = $store.await;
                super::versions_are_paged_newest_first(&store).await;
            }

            #[tokio::test]
            async fn concurrent_writers_all_are_served() {
                let (_dir, store) = $store.await;
                super::concurrent_writers_all_are_served(Arc::new(store)).await;
            }

            #[tokio::test]
            async fn an_export_fills_another_store() {
                let (_dir, store) = $store.await;
                let (_other, empty) = $store.await;
                super::an_export_fills_another_store(&store, &empty).await;
            }
        }
    };
}

async fn memory() -> ((), Memory) {
    ((), Memory::default())
}

async fn on_disk() -> (tempfile::TempDir, Sled) {
    let dir = tempfile::tempdir().unwrap();
    let store = Sled::open(dir.path().join("store"), CACHE_MIB).await.unwrap();
    (dir, store)
}

suite!(in_memory, memory());
suite!(in_sled, on_disk());
