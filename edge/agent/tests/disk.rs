//! A queue that cannot be opened: the rule says so, devices are not told that their messages are safe, and it goes on by
//! itself once the disk does.

#[allow(dead_code)] // each test file uses a part of it
mod site;

use site::{Controller, RULE, Side, Site, set};
use tidegate_model::code::FaultCode;
use tidegate_model::placement::RunState;
use tidegate_model::wire::{DesiredRun, Down};

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_whose_queue_cannot_be_opened_is_paused_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let queue = dir.path().join("queues").join(RULE.to_string());
    std::fs::create_dir_all(queue.parent().expect("it has one")).unwrap();
    // A file stands where the rule's directory should be.
    std::fs::write(&queue, b"in the way").unwrap();
    let (mut controller, remote) = (Controller::start().await, Side::start().await);
    let site = Site::start(dir.path(), controller.side.addr()).await;
    controller.welcome().await;
    controller.send(&Down::Set(Box::new(set(1, remote.addr(), DesiredRun::Running))), None).await;
    let paused = site.until("the fault", |rule| rule.run.state == RunState::PausedFault).await;
    assert_eq!(paused.run.fault.expect("a fault says why").code, FaultCode::Disk);
    std::fs::remove_file(&queue).unwrap();
    site.until("recovery", |rule| rule.run.state == RunState::Running).await;
    site.stop().await;
}
