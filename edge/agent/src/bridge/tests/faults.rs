//! Remote brokers that are not there, refuse, or fall silent.

use std::time::Duration;

use rumqttc::mqttbytes::{
    QoS,
    v4::{ConnectReturnCode, Packet, SubscribeReasonCode},
};
use tidegate_model::code::FaultCode;

use super::{Rig, Timing, peer::Peer};

#[tokio::test]
async fn every_connack_code_has_its_fault() {
    for (code, fault) in [
        (ConnectReturnCode::RefusedProtocolVersion, FaultCode::Config),
        (ConnectReturnCode::BadClientId, FaultCode::NotAuthorized),
        (ConnectReturnCode::ServiceUnavailable, FaultCode::Tcp),
        (ConnectReturnCode::BadUserNamePassword, FaultCode::Auth),
        (ConnectReturnCode::NotAuthorized, FaultCode::NotAuthorized),
    ] {
        let peer = Peer::new().await;
        let mut rig = Rig::start(&peer, &[]);
        let mut conn = peer.accept().await;
        let connect = conn.connect().await;
        assert_eq!((connect.client_id.as_str(), connect.keep_alive, connect.clean_session), ("c", 60, false));
        let login = connect.login.unwrap();
        assert_eq!((login.username.as_str(), login.password.as_str()), ("u", "p"));
        conn.connack(code).await;
        rig.fault(fault).await;
        // It tries again by itself, and runs when it may.
        let _conn = peer.log_in().await;
        rig.running(1).await;
    }
}

#[tokio::test]
async fn a_broker_that_is_not_there_runs_the_rule_when_it_comes() {
    let peer = Peer::new().await;
    let port = peer.port();
    let mut rig = Rig::start(&peer, &[]);
    drop(peer.accept().await); // closed before CONNACK
    assert!(rig.fault(FaultCode::Tcp).await.contains(&port.to_string()));
    drop(peer.accept().await); // the same once more is no news
    let _conn = peer.log_in().await;
    rig.running(1).await;
}

#[tokio::test]
async fn nobody_listens() {
    let peer = Peer::new().await;
    let rule_made_for_it = Rig::start(&peer, &[]);
    drop(peer);
    let mut rig = rule_made_for_it;
    rig.fault(FaultCode::Tcp).await;
}

#[tokio::test]
async fn connect_without_an_answer() {
    let peer = Peer::new().await;
    let timing = Timing { connect: Duration::from_millis(200), ..Timing::default() };
    let mut rig = Rig::start_with(&peer, &[], timing, false);
    let _conn = peer.accept().await;
    assert!(rig.fault(FaultCode::KeepAlive).await.contains("did not answer CONNECT"));
}

#[tokio::test]
async fn a_refused_subscription_names_its_filter() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, &["a/#", "b/#"]);
    rig.put(1..=1, 1);
    let mut conn = peer.log_in().await;
    let subscribe = conn.subscribe().await;
    let codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::Failure];
    conn.suback(&subscribe, codes).await;
    let detail = rig.fault(FaultCode::SubscribeRefused).await;
    assert!(detail.contains("'b/#'") && !detail.contains("'a/#'"), "{detail}");
    assert_eq!(conn.next().await, None, "nothing is sent before everything is granted");
}

#[tokio::test]
async fn subscribe_without_an_answer() {
    let peer = Peer::new().await;
    let timing = Timing { subscribe: Duration::from_millis(200), ..Timing::default() };
    let mut rig = Rig::start_with(&peer, &["a/#"], timing, false);
    let mut conn = peer.log_in().await;
    conn.subscribe().await;
    rig.fault(FaultCode::KeepAlive).await;
}

#[tokio::test]
async fn a_silent_link_is_noticed() {
    let peer = Peer::new().await;
    let (silence, ping) = (Duration::from_millis(50), Duration::from_secs(1));
    let mut rig = Rig::start_with(&peer, &[], Timing { silence, ping, ..Timing::default() }, false);
    let mut conn = peer.log_in().await;
    rig.running(1).await;
    for _ in 0..3 {
        assert_eq!(conn.next().await, Some(Packet::PingReq));
        conn.pingresp().await;
    }
    assert_eq!(conn.next().await, Some(Packet::PingReq));
    assert!(rig.fault(FaultCode::KeepAlive).await.contains("no sign of life"));
}

#[tokio::test]
async fn a_broker_that_answers_pings_and_acknowledges_nothing_is_noticed() {
    let peer = Peer::new().await;
    let (silence, acknowledge) = (Duration::from_secs(1), Duration::from_secs(4));
    let timing = Timing { silence, acknowledge, ..Timing::default() };
    let mut rig = Rig::start_with(&peer, &[], timing, false);
    rig.put(1..=1, 1);
    let mut conn = peer.log_in().await;
    rig.running(1).await;
    let mut publishes = 0;
    while let Some(packet) = conn.next().await {
        // On a slow machine the first ping may come before the message.
        if let Packet::Publish(_) = packet {
            publishes += 1;
        } else {
            assert!(matches!(packet, Packet::PingReq), "neither a ping nor the message but {packet:?}");
            conn.pingresp().await;
        }
    }
    assert_eq!(publishes, 1);
    assert!(rig.fault(FaultCode::KeepAlive).await.contains("acknowledged no message"));
    let mut conn = peer.log_in().await;
    assert_eq!(conn.publishes(1).await[0].0, 1);
}
