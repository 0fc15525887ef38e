use std::time::Duration;

use bytes::Bytes;
use tidegate_edge_queue::{QueueConfig, WhenFull};
use tidegate_model::digest::Digest;
use tidegate_model::ids::{AccountId, EdgeId};
use tidegate_model::rule::{Format, Limits, RenderContext, parse, render};

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

fn rule(number: u128) -> RuleId {
    RuleId(uuid::Uuid::from_u128(number))
}

fn config(forwards: &str) -> Arc<EdgeRule> {
    let text = format!("name = \"a\"\nmountpoint = \"m/\"\n[remote]\nurl = \"mqtt://b.example\"\n{forwards}");
    let (rule, _) = parse(&text, Format::Toml).unwrap().validate(&Limits::default()).unwrap();
    let context = RenderContext {
        account: AccountId::default_account(),
        edge: EdgeId::new("gw-7").unwrap(),
        vars: BTreeMap::new(),
        secrets: tidegate_model::rule::SecretRefs::default(),
    };
    let rendered = render(&rule, &context).unwrap();
    assert_eq!(rendered.digest, Digest::of(rendered.bytes.as_bytes()));
    Arc::new(rendered.rule)
}

fn forward(filter: &str) -> Arc<EdgeRule> {
    config(&format!("[[forwards]]\ntopic = \"{filter}\"\n"))
}

fn open(dir: &std::path::Path, name: &str, config: QueueConfig) -> Queue {
    std::fs::create_dir_all(dir.join(name)).unwrap();
    Queue::open(&dir.join(name), config, clock::wall().0).unwrap().0
}

fn message(topic: &str, payload: &[u8], qos: Qos) -> Arc<Message> {
    Arc::new(Message::new(topic, Bytes::copy_from_slice(payload), qos))
}

fn device() -> Source {
    Source::Client { client_id: "d".into(), connection: 1 }
}

fn held(offer: Offer) -> oneshot::Receiver<TapResult> {
    match offer {
        Offer::Hold { then, fan_out: true } => then,
        other @ (Offer::Pass | Offer::Hold { .. }) => panic!("{other:?}"),
    }
}

async fn answer(then: oneshot::Receiver<TapResult>) -> TapResult {
    tokio::time::timeout(DEADLINE, then).await.expect("an answer in time").expect("an answer")
}

fn topics(queue: &Queue) -> Vec<String> {
    queue.read_from(1, 100, 1 << 20).unwrap().into_iter().map(|stored| stored.record.topic).collect()
}

#[tokio::test]
async fn a_message_is_in_the_queue_of_every_rule_that_forwards_it_before_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) =
        (open(dir.path(), "1", QueueConfig::default()), open(dir.path(), "2", QueueConfig::default()));
    let intake = Arc::new(Intake::default());
    intake.set(rule(1), 1, forward("sensors/#"), one.clone());
    intake.set(rule(2), 2, forward("sensors/t1"), two.clone());
    let then = held(intake.offer(&message("sensors/t1", b"x", Qos::AtLeastOnce), &device()));
    assert_eq!(answer(then).await, TapResult::Taken);
    assert_eq!(
        (topics(&one), topics(&two)),
        (vec!["m/sensors/t1".to_owned()], vec!["m/sensors/t1".to_owned()])
    );
    // What no rule forwards passes, and so does everything of our own.
    for topic in ["other", "tidegate/1/default/gw-7/up"] {
        assert!(matches!(intake.offer(&message(topic, b"x", Qos::AtLeastOnce), &device()), Offer::Pass));
    }
    intake.remove(rule(1));
    intake.remove(rule(2));
    assert!(matches!(intake.offer(&message("sensors/t1", b"x", Qos::AtLeastOnce), &device()), Offer::Pass));
}

#[tokio::test]
async fn what_a_rule_republishes_goes_to_the_other_rules_only() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) =
        (open(dir.path(), "1", QueueConfig::default()), open(dir.path(), "2", QueueConfig::default()));
    let intake = Arc::new(Intake::default());
    intake.set(rule(1), 1, forward("#"), one.clone());
    intake.set(rule(2), 2, forward("#"), two.clone());
    let then = held(intake.offer(&message("a", b"x", Qos::AtLeastOnce), &Source::Local { origin: 1 }));
    assert_eq!(answer(then).await, TapResult::Taken);
    assert_eq!((topics(&one).len(), topics(&two).len()), (0, 1));
}

#[tokio::test]
async fn qos_0_goes_to_the_queue_without_holding_anything_up() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(dir.path(), "1", QueueConfig::default());
    let intake = Arc::new(Intake::default());
    intake.set(rule(1), 1, forward("#"), one.clone());
    assert!(matches!(intake.offer(&message("a", b"x", Qos::AtMostOnce), &device()), Offer::Pass));
    // The next one is durable behind it.
    let then = held(intake.offer(&message("b", b"x", Qos::AtLeastOnce), &device()));
    assert_eq!(answer(then).await, TapResult::Taken);
    assert_eq!(topics(&one), ["m/a", "m/b"]);
    assert_eq!(one.read_from(1, 1, 1_000).unwrap()[0].record.qos, 0);
}

/// Room for a few records on disk and for one in memory.
fn small() -> QueueConfig {
    QueueConfig {
        max_bytes: 64 * 1024,
        when_full: WhenFull::Block,
        segment_bytes: 16 * 1024,
        max_waiting_bytes: 6_000,
        ..QueueConfig::default()
    }
}

#[tokio::test]
async fn a_message_without_room_in_one_queue_waits_for_all_and_keeps_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (full, free) = (open(dir.path(), "1", small()), open(dir.path(), "2", QueueConfig::default()));
    let intake = Arc::new(Intake::default());
    intake.set(rule(1), 1, forward("#"), full.clone());
    intake.set(rule(2), 2, forward("both/#"), free.clone());
    // Fill the first queue until messages wait.
    let mut pending = VecDeque::new();
    let mut number = 0;
    while intake.waiting().messages.is_empty() {
        pending.push_back(held(
            intake.offer(&message(&format!("only/{number}"), &[7; 5_000], Qos::AtLeastOnce), &device()),
        ));
        number += 1;
        assert!(number < 100, "the queue is bounded");
        // The writer takes what fits, so that only a full disk is left to wait for.
        while full.stats().waiting > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut both = held(intake.offer(&message("both/x", b"x", Qos::AtLeastOnce), &device()));
    assert!(both.try_recv().is_err());
    assert_eq!(topics(&free), Vec::<String>::new(), "to all of them or to none");
    // The remote broker takes what is there: everything follows, in order.
    let mut expected = 1;
    let drained = async {
        loop {
            for stored in full.read_from(expected, 100, 1 << 20).unwrap() {
                expected = stored.offset + 1;
                full.release(stored.offset);
                if stored.record.topic == "m/both/x" {
                    return;
                }
                assert_eq!(pending.pop_front().map(answer).expect("one is pending").await, TapResult::Taken);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, drained).await.expect("the queue drains");
    assert!(pending.is_empty(), "what came earlier came first");
    assert_eq!(answer(both).await, TapResult::Taken);
    assert_eq!(topics(&free), ["m/both/x"]);
}

#[tokio::test]
async fn a_rule_that_is_stopped_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let full = open(dir.path(), "1", small());
    let intake = Arc::new(Intake::default());
    intake.set(rule(1), 1, forward("#"), full.clone());
    let mut last = None;
    for _ in 0..100 {
        if !intake.waiting().messages.is_empty() {
            break;
        }
        last = Some(held(intake.offer(&message("a", &[7; 5_000], Qos::AtLeastOnce), &device())));
    }
    intake.remove(rule(1));
    assert_eq!(answer(last.expect("one waits")).await, TapResult::Taken);
    assert!(intake.waiting().messages.is_empty() && intake.waiting().bytes == 0);
}

#[tokio::test]
async fn a_rule_without_a_queue_has_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(dir.path(), "1", QueueConfig::default());
    let intake = Arc::new(Intake::default());
    intake.set(rule(1), 1, forward("#"), one.clone());
    intake.set_without_queue(rule(2), forward("both/#"));
    let then = held(intake.offer(&message("both/x", b"x", Qos::AtLeastOnce), &device()));
    assert_eq!(answer(then).await, TapResult::Refused);
    let next = Source::Client { client_id: "d".into(), connection: 2 };
    let then = held(intake.offer(&message("only", b"x", Qos::AtLeastOnce), &next));
    assert_eq!(answer(then).await, TapResult::Taken);
    assert_eq!(topics(&one), ["m/only"]);
}

#[tokio::test]
async fn what_a_rule_forwards_and_cannot_name_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(dir.path(), "1", QueueConfig::default());
    let intake = Arc::new(Intake::default());
    intake.set(rule(1), 1, forward("deep/#"), one.clone());
    let deep = |levels: usize| format!("deep{}", "/x".repeat(levels - 1));
    // The mountpoint is one level more; of 33 levels the topic itself is none.
    for topic in [deep(32), deep(33), format!("deep/{}", "x".repeat(2_000)), "deep/\u{1}".to_owned()] {
        let offer = intake.offer(&message(&topic, b"x", Qos::AtLeastOnce), &device());
        assert!(matches!(offer, Offer::Pass), "{topic}");
    }
    assert_eq!(intake.unmapped(rule(1)), 4);
    // What the rule does not ask for is nobody's loss.
    for topic in [format!("other{}", "/x".repeat(40)), "tidegate/x".to_owned(), "$SYS/x".to_owned()] {
        assert!(matches!(intake.offer(&message(&topic, b"x", Qos::AtLeastOnce), &device()), Offer::Pass));
    }
    let then = held(intake.offer(&message(&deep(31), b"x", Qos::AtLeastOnce), &device()));
    assert_eq!(answer(then).await, TapResult::Taken);
    assert_eq!((intake.unmapped(rule(1)), topics(&one).len()), (4, 1));
    // A stop keeps the count, the end of the rule does not.
    intake.remove(rule(1));
    assert_eq!(intake.unmapped(rule(1)), 4);
    intake.forget(rule(1));
    assert_eq!(intake.unmapped(rule(1)), 0);
}

#[tokio::test]
async fn behind_a_refused_message_nothing_of_its_connection_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let intake = Arc::new(Intake::default());
    // There is no queue yet: the first message is refused.
    intake.set_without_queue(rule(1), forward("a/#"));
    let first = held(intake.offer(&message("a/1", b"1", Qos::AtLeastOnce), &device()));
    assert_eq!(answer(first).await, TapResult::Refused);
    let queue = open(dir.path(), "q", QueueConfig::default());
    intake.set(rule(1), 1, forward("a/#"), queue.clone());
    // The second was on its way before the device noticed; on its next connection the device begins with the first.
    let second = held(intake.offer(&message("a/2", b"2", Qos::AtLeastOnce), &device()));
    assert_eq!(answer(second).await, TapResult::Refused);
    let next = Source::Client { client_id: "d".into(), connection: 2 };
    for topic in ["a/1", "a/2"] {
        let then = held(intake.offer(&message(topic, b"x", Qos::AtLeastOnce), &next));
        assert_eq!(answer(then).await, TapResult::Taken);
    }
    assert_eq!(topics(&queue), ["m/a/1", "m/a/2"]);
}
