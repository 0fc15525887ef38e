//! Tests of the session: tables for each rule, and a model that random traffic may not break.

use super::*;
use crate::message::Message;
use proptest::prelude::*;

const BOUNDS: Bounds = Bounds { queued_messages: 4, queued_bytes: 10_000, inflight: 2, unreleased: 2 };

fn online() -> Session {
    let mut session = Session::new(BOUNDS);
    session.connect();
    session
}

fn parcel(payload: impl Into<Vec<u8>>) -> Arc<Parcel> {
    Parcel::of_retained(Arc::new(Message::new("t", payload.into(), Qos::ExactlyOnce)))
}

fn message(text: &str) -> Arc<Parcel> {
    parcel(text)
}

/// What is sent until nothing more can be: `id:text`, `id:text!` with DUP, `id:release`.
fn sent(session: &mut Session) -> Vec<String> {
    let show = |send| match send {
        Send::Release(id) => format!("{id}:release"),
        Send::Publish(p) => {
            let dup = if p.dup { "!" } else { "" };
            format!("{}:{}{dup}", p.packet_id, std::str::from_utf8(&p.message.payload).unwrap())
        }
    };
    std::iter::from_fn(|| session.next()).map(show).collect()
}

#[test]
fn the_window_bounds_what_is_in_flight_and_keeps_order() {
    let mut session = online();
    for text in ["a", "b", "c"] {
        session.enqueue(message(text), Qos::AtLeastOnce);
    }
    session.enqueue(message("d"), Qos::AtMostOnce);
    assert_eq!(sent(&mut session), ["1:a", "2:b"]);
    session.puback(2);
    assert_eq!(sent(&mut session), ["3:c", "0:d"]);
    session.puback(99);
    assert_eq!(session.waiting(), 2);
}

#[test]
fn a_reconnect_sends_again_with_dup_in_order_and_releases_again() {
    let mut session = online();
    session.enqueue(message("a"), Qos::ExactlyOnce);
    session.enqueue(message("b"), Qos::AtLeastOnce);
    session.enqueue(message("c"), Qos::AtLeastOnce);
    assert_eq!(sent(&mut session), ["1:a", "2:b"]);
    session.pubrec(1);
    session.disconnect();
    session.connect();
    assert_eq!(sent(&mut session), ["1:release", "2:b!"]);
    session.pubcomp(1);
    assert_eq!(sent(&mut session), ["3:c"]);
}

#[test]
fn an_ack_before_the_second_sending_is_counted() {
    let mut session = online();
    session.enqueue(message("a"), Qos::AtLeastOnce);
    session.enqueue(message("b"), Qos::AtLeastOnce);
    assert_eq!(sent(&mut session), ["1:a", "2:b"]);
    session.disconnect();
    session.connect();
    session.puback(1);
    assert_eq!(sent(&mut session), ["2:b!"]);
}

#[test]
fn an_ack_of_the_wrong_kind_changes_nothing() {
    let mut session = online();
    session.enqueue(message("a"), Qos::ExactlyOnce);
    session.enqueue(message("b"), Qos::AtLeastOnce);
    sent(&mut session);
    session.puback(1);
    session.pubcomp(1);
    session.pubrec(2);
    session.pubcomp(2);
    assert_eq!(session.waiting(), 2);
}

#[test]
fn when_full_qos_0_gives_way_first_and_every_loss_is_counted() {
    let mut session = online();
    for (text, qos) in [("a", 1), ("b", 0), ("c", 1), ("d", 1)] {
        assert!(session.enqueue(message(text), Qos::from_number(qos).unwrap()).queued);
    }
    let outcome = session.enqueue(message("e"), Qos::AtLeastOnce);
    assert_eq!(outcome, Enqueued { queued: true, dropped_qos0: 1, dropped: 0, first_loss: false });
    let outcome = session.enqueue(message("f"), Qos::AtMostOnce);
    assert_eq!(outcome, Enqueued { queued: false, dropped_qos0: 1, dropped: 0, first_loss: false });
    let outcome = session.enqueue(message("g"), Qos::AtLeastOnce);
    assert_eq!(outcome, Enqueued { queued: true, dropped_qos0: 0, dropped: 1, first_loss: true });
    assert!(!session.enqueue(message("h"), Qos::AtLeastOnce).first_loss);
    assert_eq!(sent(&mut session), ["1:d", "2:e"]);
    let outcome = session.enqueue(parcel(vec![0; 10_000]), Qos::AtLeastOnce);
    assert_eq!((outcome.queued, outcome.dropped), (false, 1));
    assert_eq!(session.waiting(), 4);
}

#[test]
fn a_queue_that_shrinks_loses_qos_0_first_and_then_the_oldest() {
    let mut session = Session::new(Bounds { queued_messages: 100, queued_bytes: 1 << 20, ..BOUNDS });
    session.connect();
    for (text, qos) in [("a", 1), ("b", 0), ("c", 1), ("d", 0), ("e", 1)] {
        session.enqueue(message(text), Qos::from_number(qos).unwrap());
    }
    let cost = message("a").cost();
    assert_eq!(session.queued_bytes(), 5 * cost);
    let outcome = session.shrink(4 * cost);
    assert_eq!((outcome.dropped_qos0, outcome.dropped, outcome.first_loss), (1, 0, false));
    let outcome = session.shrink(2 * cost);
    assert_eq!((outcome.dropped_qos0, outcome.dropped, outcome.first_loss), (1, 1, true));
    assert_eq!(sent(&mut session), ["1:c", "2:e"]);
    assert_eq!(session.weight(), Weight { entries: 2, inflight_bytes: 2 * cost });
}

#[test]
fn a_narrow_window_is_one_message() {
    let mut session = online();
    for text in ["a", "b", "c"] {
        session.enqueue(message(text), Qos::AtLeastOnce);
    }
    session.set_narrow(true);
    assert_eq!(sent(&mut session), ["1:a"]);
    session.puback(1);
    assert_eq!(sent(&mut session), ["2:b"]);
    session.set_narrow(false);
    assert_eq!(sent(&mut session), ["3:c"]);
}

#[test]
fn qos_0_is_found_wherever_it_is_in_the_queue() {
    let mut session = Session::new(Bounds { queued_messages: 5, queued_bytes: 1 << 20, ..BOUNDS });
    session.connect();
    let put = |session: &mut Session, text: &str, qos| {
        session.enqueue(message(text), Qos::from_number(qos).unwrap())
    };
    for (text, qos) in [("x", 0), ("a", 1), ("b", 0), ("c", 1), ("d", 0)] {
        assert!(put(&mut session, text, qos).queued);
    }
    assert!(matches!(session.next(), Some(Send::Publish(p)) if &p.message.payload[..] == b"x"));
    assert!(put(&mut session, "e", 0).queued);
    for (text, dropped_qos0) in [("f", 1), ("g", 1), ("h", 1), ("i", 0)] {
        assert_eq!(put(&mut session, text, 1).dropped_qos0, dropped_qos0, "{text}");
    }
    assert_eq!(put(&mut session, "j", 0).dropped_qos0, 1);
    assert_eq!(sent(&mut session), ["1:c", "2:f"]);
}

#[test]
fn bytes_in_flight_are_bounded_too() {
    let mut session = Session::new(Bounds { inflight: 100, queued_messages: 100, ..BOUNDS });
    session.connect();
    for _ in 0..3 {
        session.enqueue(parcel(vec![b'x'; 3_000]), Qos::AtLeastOnce);
        assert!(session.next().is_some());
    }
    session.enqueue(parcel(vec![b'x'; 3_000]), Qos::AtLeastOnce);
    assert!(session.next().is_some(), "one may pass the bound");
    session.enqueue(message("small"), Qos::AtLeastOnce);
    assert_eq!(session.next(), None);
    session.puback(1);
    assert!(session.next().is_some());
}

#[test]
fn offline_keeps_no_qos_0() {
    let mut session = online();
    session.enqueue(message("a"), Qos::AtMostOnce);
    session.enqueue(message("b"), Qos::AtLeastOnce);
    assert_eq!(session.disconnect(), 1);
    assert_eq!(session.enqueue(message("c"), Qos::AtMostOnce), Enqueued::default());
    session.connect();
    assert_eq!(sent(&mut session), ["1:b"]);
}

#[test]
fn a_qos_2_publish_is_new_once_until_it_is_released() {
    let mut session = online();
    assert_eq!(session.receive(7), Received::New);
    assert_eq!(session.receive(7), Received::Pending);
    session.release(7);
    assert_eq!(session.receive(7), Received::Pending);
    session.processed(7);
    assert_eq!(session.receive(7), Received::Done);
    assert_eq!(session.receive(8), Received::New);
    assert_eq!(session.receive(9), Received::TooMany);
    session.disconnect();
    session.connect();
    assert_eq!(session.receive(7), Received::Done);
    assert_eq!(session.receive(8), Received::New);
    session.release(7);
    assert_eq!(session.receive(7), Received::New);
}

#[test]
fn a_client_that_subscribes_without_reading_gets_one_pass_over_everything() {
    let mut session = online();
    let all: BTreeMap<Arc<str>, Qos> =
        (0..100).map(|n| (Arc::from(format!("f{n}/#")), Qos::AtMostOnce)).collect();
    for (filter, qos) in &all {
        session.look_up(&[(filter, *qos)], &all);
        assert!(session.replays.len() <= MAX_REPLAYS);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Enqueue(u8),
    Next,
    Ack(usize),
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..3).prop_map(Step::Enqueue),
        4 => Just(Step::Next),
        3 => (0usize..4).prop_map(Step::Ack),
        1 => Just(Step::Reconnect),
    ]
}

proptest! {
    #[test]
    fn nothing_acknowledged_is_sent_again_and_nothing_else_is_lost(steps in prop::collection::vec(step(), 0..200)) {
        let bounds = Bounds { queued_messages: 1_000, queued_bytes: 1 << 20, inflight: 3, unreleased: 1 };
        let mut session = Session::new(bounds);
        session.connect();
        let (mut expected, mut first_sent) = (Vec::new(), Vec::new());
        // Packet id, level, and whether it is released.
        let mut open: Vec<(u16, Qos, bool)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Enqueue(qos) => {
                    let qos = Qos::from_number(qos).unwrap();
                    prop_assert!(session.enqueue(message(&number.to_string()), qos).queued);
                    if qos != Qos::AtMostOnce {
                        expected.push(number);
                    }
                }
                Step::Next => match session.next() {
                    Some(Send::Publish(p)) if p.qos != Qos::AtMostOnce => {
                        let number: usize = std::str::from_utf8(&p.message.payload).unwrap().parse().unwrap();
                        if p.dup {
                            prop_assert!(open.iter().any(|(id, qos, _)| *id == p.packet_id && *qos == p.qos));
                        } else {
                            prop_assert!(open.iter().all(|(id, ..)| *id != p.packet_id));
                            open.push((p.packet_id, p.qos, false));
                            first_sent.push(number);
                        }
                    }
                    Some(Send::Release(id)) => prop_assert!(open.contains(&(id, Qos::ExactlyOnce, true))),
                    Some(Send::Publish(_)) | None => {}
                },
                Step::Ack(at) if at < open.len() => match open[at] {
                    (id, Qos::ExactlyOnce, false) => {
                        session.pubrec(id);
                        open[at].2 = true;
                    }
                    (id, Qos::ExactlyOnce, true) => {
                        session.pubcomp(id);
                        open.remove(at);
                    }
                    (id, ..) => {
                        session.puback(id);
                        open.remove(at);
                    }
                },
                Step::Ack(_) => {}
                Step::Reconnect => {
                    session.disconnect();
                    session.connect();
                }
            }
            prop_assert!(open.len() <= bounds.inflight);
            prop_assert_eq!(session.inflight.len(), open.len());
            prop_assert_eq!(session.inflight_bytes == 0, open.iter().all(|(_, _, released)| *released));
        }
        prop_assert_eq!(&first_sent[..], &expected[..first_sent.len()]);
        // With acknowledgements coming, everything drains.
        for _ in 0..10_000 {
            match session.next() {
                Some(Send::Publish(p)) if p.qos == Qos::AtLeastOnce => session.puback(p.packet_id),
                Some(Send::Publish(p)) if p.qos == Qos::ExactlyOnce => {
                    session.pubrec(p.packet_id);
                    session.pubcomp(p.packet_id);
                }
                Some(Send::Release(id)) => session.pubcomp(id),
                Some(Send::Publish(_)) => {}
                None => {
                    session.disconnect();
                    session.connect();
                    if session.waiting() == 0 {
                        break;
                    }
                }
            }
        }
        prop_assert_eq!(session.waiting(), 0);
    }
}
