//! Runs that failed once, as the shrinker printed them. Each says in its name what must hold.

use tidegate_sim::play;
use tidegate_sim::words::*;

const GOOD: Shape = Shape { topic: 1, remote: 0, login: 0, manual: false, other_policy: false };

fn holds(script: &Script) {
    if let Err(failure) = play(script, true) {
        panic!("{failure}");
    }
}

fn calm(seed: u64, edges: usize, calm_at: i64, steps: Vec<At>) -> Script {
    Script { calm_at, steps, heartbeat_s: 300, ..Script::calm(seed, edges) }
}

/// One rule, issued to `gw-0`.
fn issued(shape: Shape) -> Vec<At> {
    issued_as(0, shape)
}

fn issued_as(rule: usize, shape: Shape) -> Vec<At> {
    vec![
        At(5_000, Save { rule, shape, password: Keep }),
        At(5_000, Place { rule, edge: 0, line: 0 }),
        At(5_000, Act { action: Issue, rule, edge: 0, queue: true }),
    ]
}

fn then(mut before: Vec<At>, steps: impl IntoIterator<Item = At>) -> Vec<At> {
    before.extend(steps);
    before
}

#[test]
fn messages_of_kinds_that_nobody_knows_count_and_make_no_gap() {
    let steps = vec![At(25_469, Install { edge: 0, software: Newer })];
    for seed in 1..6 {
        holds(&calm(seed, 1, 44_862, steps.clone()));
        holds(&Script { newer_cloud: true, ..calm(seed, 1, 44_862, steps.clone()) });
    }
}

#[test]
fn nothing_is_sent_to_an_agent_of_another_protocol_version() {
    let steps = [
        At(50_000, Install { edge: 0, software: Foreign }),
        At(60_000, Save { rule: 0, shape: Shape { topic: 0, ..GOOD }, password: Keep }),
        At(61_000, Act { action: Sync, rule: 0, edge: 0, queue: false }),
    ];
    holds(&calm(2, 1, 90_000, then(issued(GOOD), steps)));
}

#[test]
fn a_rule_can_be_stopped_on_an_agent_that_is_too_old_for_it() {
    let steps = [
        At(50_000, Install { edge: 0, software: Older }),
        At(60_000, Act { action: Stop, rule: 0, edge: 0, queue: false }),
        At(70_000, Save { rule: 0, shape: Shape { topic: 0, ..GOOD }, password: Keep }),
        At(71_000, Act { action: Sync, rule: 0, edge: 0, queue: false }),
        At(72_000, Act { action: Start, rule: 0, edge: 0, queue: false }),
    ];
    holds(&calm(3, 1, 90_000, then(issued(GOOD), steps)));
}

#[test]
fn an_unfinished_issue_is_not_stopped_into_an_agent_that_cannot_run_it() {
    // The issue waits for the edge, which comes back with older software: the stop carried that issue and panicked.
    for ms in 0..30 {
        let steps = vec![
            At(5_000, Save { rule: 0, shape: GOOD, password: Keep }),
            At(5_000, Place { rule: 0, edge: 0, line: 0 }),
            At(6_000, Install { edge: 0, software: Older }),
            At(6_500, Act { action: Issue, rule: 0, edge: 0, queue: true }),
            At(7_000 + 200 * ms, Act { action: Stop, rule: 0, edge: 0, queue: true }),
        ];
        holds(&calm(4, 1, 90_000, steps));
    }
}

#[test]
fn a_rule_is_not_taken_off_an_edge_whose_actions_are_held() {
    let steps = [
        At(117_970, Clone { edge: 0 }),
        At(120_837, Delete { rule: 0 }),
        At(121_000, CloneEnds { edge: 0, original: false }),
    ];
    for seed in 1..10 {
        holds(&calm(seed, 1, 125_000, then(issued(GOOD), steps)));
    }
}

#[test]
fn a_controller_that_lost_its_newest_epochs_goes_on_above_them_when_an_operator_confirms() {
    // Restored from a backup and with a clock that is behind, no edge obeyed it for ever.
    let steps = [
        At(20_000, BackUpCloud),
        At(30_000, KillCloud { down_ms: 1_000 }),
        At(60_000, CloudClock { ahead_ms: -41_809_025 }),
        At(61_000, RestoreCloud),
        At(70_000, Unplace { rule: 0, edge: 0 }),
    ];
    holds(&calm(6, 2, 80_000, then(issued(GOOD), steps)));
}

#[test]
fn what_runs_as_desired_is_no_drift_after_the_controller_was_restored() {
    let steps = [
        At(50_632, Save { rule: 0, shape: Shape { remote: 1, manual: true, ..GOOD }, password: Keep }),
        At(79_687, BackUpCloud),
        At(136_409, Act { action: Sync, rule: 0, edge: 0, queue: false }),
        At(251_973, RestoreCloud),
    ];
    holds(&calm(7, 1, 251_974, then(issued(GOOD), steps)));
}

#[test]
fn a_stop_that_the_restored_controller_does_not_know_stands() {
    let steps = [
        At(138_247, BackUpCloud),
        At(197_099, Act { action: Stop, rule: 0, edge: 0, queue: false }),
        At(231_665, RestoreCloud),
        At(277_570, CrashEdge { edge: 0, after: 0, moment: BeforeCommit }),
        At(308_040, Confirm { edge: 0 }),
    ];
    holds(&calm(8, 1, 365_000, then(issued(GOOD), steps)));
}

#[test]
fn drift_is_shown_although_an_earlier_issue_had_failed() {
    let steps = [
        At(6_000, KillEdge { edge: 0, down_ms: 80_000 }),
        At(90_000, BackUpCloud),
        At(91_000, Save { rule: 0, shape: Shape { remote: 2, ..GOOD }, password: Set(1) }),
        At(142_178, Act { action: IssueAgain, rule: 0, edge: 0, queue: true }),
        At(160_491, RestoreCloud),
    ];
    for seed in 1..10 {
        holds(&calm(seed, 1, 160_492, then(issued(GOOD), steps)));
    }
}

#[test]
fn an_edge_of_a_past_session_that_obeyed_a_newer_controller_is_heard_again() {
    // The welcome that would have told it the epoch to jump above came from a controller that it does not obey.
    holds(&Script {
        heartbeat_s: 60,
        ..calm(
            7_137_270_140_410_016_048,
            1,
            425_000,
            vec![
                At(6_000, Clone { edge: 0 }),
                At(11_167, KillCloud { down_ms: 4_354 }),
                At(13_118, BackUpCloud),
                At(15_105, Cut { edge: 0, ms: 4_744 }),
                At(18_944, Cut { edge: 0, ms: 6_769 }),
                At(21_344, CloudClock { ahead_ms: -5_438_796 }),
                At(23_926, StopEdge { edge: 0, down_ms: 31_917 }),
                At(43_714, RestoreCloud),
            ],
        )
    });
}

#[test]
fn an_action_in_flight_is_not_sent_anew_while_the_edge_is_held_again() {
    // The confirmation raised the generation of what was in flight; the inventory after it held the edge once more.
    let mut steps = issued(GOOD);
    steps.extend([
        At(5_000, Save { rule: 1, shape: Shape { remote: 1, ..GOOD }, password: Keep }),
        At(5_000, Place { rule: 1, edge: 0, line: 0 }),
        At(164_970, BackUpCloud),
        At(240_017, Act { action: IssueAgain, rule: 1, edge: 0, queue: false }),
        At(287_124, Delete { rule: 0 }),
        At(308_800, RestoreCloud),
        At(345_223, Act { action: IssueAgain, rule: 0, edge: 0, queue: false }),
    ]);
    for seed in 1..40 {
        let weather = Weather { loss: 30, copies: 0, delay_ms: 50 };
        holds(&Script { weather, ..calm(seed, 1, 345_224, steps.clone()) });
    }
}

#[test]
fn a_restored_controller_whose_clock_is_behind_does_not_speak_under_an_epoch_that_was_used() {
    // Both processes that were started from one store counted to the same epoch: edges took what the second said for copies.
    let again = |at| At(at, Act { action: IssueAgain, rule: 0, edge: 0, queue: false });
    let mut steps = then(
        issued(GOOD),
        [
            At(20_000, CloudClock { ahead_ms: -41_919_572 }),
            At(30_000, BackUpCloud),
            At(40_000, KillCloud { down_ms: 1_000 }),
        ],
    );
    steps.extend((50..60).map(|second| again(second * 1_000)));
    steps.extend([At(90_000, RestoreCloud), At(100_000, Unplace { rule: 0, edge: 0 })]);
    for seed in 1..10 {
        holds(&calm(seed, 1, 101_000, steps.clone()));
    }
}

#[test]
fn what_runs_as_desired_is_not_healed_although_the_restored_controller_had_issued_less() {
    let shape = Shape { other_policy: true, ..GOOD };
    let steps = [
        At(27_908, Save { rule: 0, shape: Shape { remote: 1, ..shape }, password: Keep }),
        At(165_892, BackUpCloud),
        At(176_042, Act { action: IssueAgain, rule: 0, edge: 0, queue: false }),
        At(210_150, Local { edge: 0, nth: 0, start: false }),
        At(232_329, RestoreCloud),
    ];
    for seed in 1..10 {
        holds(&calm(seed, 1, 232_330, then(issued(shape), steps)));
    }
}

#[test]
fn what_is_due_when_a_request_is_sent_again_is_not_taken_for_the_request() {
    // The set of an issue is sent again after 10 s, at the very moment at which another request is repeated.
    let mut steps = then(issued(GOOD), issued_as(1, Shape { remote: 1, ..GOOD }));
    steps.extend([
        At(20_000, Cut { edge: 0, ms: 30_000 }),
        At(30_000, Act { action: IssueAgain, rule: 0, edge: 0, queue: false }),
        At(38_000, Unplace { rule: 1, edge: 0 }),
        At(40_000, AskAgain),
    ]);
    for seed in 1..10 {
        holds(&calm(seed, 1, 41_000, steps.clone()));
    }
}

#[test]
fn drift_that_only_an_update_of_the_agent_can_mend_is_shown_as_drift() {
    // Wiped and issued again by a controller that does not remember it, the rule could not run; now the agent is too old.
    let manual = Shape { manual: true, ..GOOD };
    let steps = [
        At(40_000, BackUpCloud),
        At(90_000, Wipe { edge: 0 }),
        At(110_000, Remote { remote: 0, is: Refusing(Auth) }),
        At(120_000, Act { action: IssueAgain, rule: 0, edge: 0, queue: false }),
        At(130_000, Wipe { edge: 0 }),
        At(300_000, RestoreCloud),
        At(370_000, Install { edge: 0, software: Older }),
    ];
    for seed in 1..10 {
        holds(&calm(seed, 1, 370_001, then(issued(manual), steps)));
    }
}

#[test]
fn a_gateway_that_was_replaced_for_a_while_and_obeyed_a_higher_epoch_is_heard_again() {
    // The pings of the restored controller bore an epoch that it refuses, and nobody said CLOUD_BEHIND of it.
    let steps = [
        At(20_000, BackUpCloud),
        At(100_000, KillCloud { down_ms: 1_000 }),
        // Of two gateways with one disk the copy is off; the other one is wiped when the controller is restored.
        At(180_000, Clone { edge: 0 }),
        At(180_001, KillEdge { edge: 0, down_ms: 600_000 }),
        At(190_000, KillEdge { edge: 0, down_ms: 30_000 }),
        At(200_000, CloudClock { ahead_ms: -41_809_025 }),
        At(200_001, RestoreCloud),
        At(205_000, Wipe { edge: 0 }),
        At(260_000, CloneEnds { edge: 0, original: true }),
    ];
    for seed in 1..10 {
        holds(&calm(seed, 1, 270_000, then(issued(GOOD), steps)));
    }
}

#[test]
fn what_waits_for_a_confirmation_goes_on_although_the_question_after_it_was_lost() {
    // The next question came with the routine hello, a quarter of an hour later.
    let steps = [
        At(20_000, BackUpCloud),
        At(30_000, Act { action: IssueAgain, rule: 0, edge: 0, queue: false }),
        At(40_000, RestoreCloud),
        At(120_000, Unplace { rule: 0, edge: 0 }),
        At(121_000, Cut { edge: 0, ms: 500 }),
        At(121_100, Confirm { edge: 0 }),
    ];
    for seed in 1..10 {
        holds(&calm(seed, 1, 122_000, then(issued(GOOD), steps)));
    }
}

#[test]
fn an_action_is_shown_as_the_gateway_that_is_left_says_that_it_ended() {
    // Both probe the same set. Here it is refused; in the copy, which goes again, it runs later: it was shown as done for ever.
    let mut steps = vec![At(4_000, Remote { remote: 0, is: Silent })];
    steps.extend(issued(GOOD));
    steps.extend([
        At(8_000, Clone { edge: 0 }),
        At(8_001, KillEdge { edge: 0, down_ms: 40_000 }),
        At(10_000, Remote { remote: 0, is: Refusing(Auth) }),
        At(30_000, Remote { remote: 0, is: Up }),
        At(80_000, CloneEnds { edge: 0, original: false }),
    ]);
    for seed in 1..10 {
        holds(&calm(seed, 1, 81_000, steps.clone()));
    }
}

#[test]
fn an_action_that_the_edge_refused_for_its_number_does_not_take_the_fate_of_the_one_that_has_it() {
    // The sync that the restored controller does not know had failed, under the number that it gave to an issue again.
    let bad = Shape { login: 2, ..GOOD };
    let steps = [
        At(20_000, BackUpCloud),
        At(30_000, Save { rule: 0, shape: bad, password: Keep }),
        At(31_000, Act { action: Sync, rule: 0, edge: 0, queue: false }),
        At(40_000, KillEdge { edge: 0, down_ms: 1_000 }),
        At(60_000, RestoreCloud),
        // Its new session is known by the retained birth; what it holds is not yet.
        At(61_100, Act { action: IssueAgain, rule: 0, edge: 0, queue: false }),
    ];
    for seed in 1..10 {
        holds(&calm(seed, 1, 120_000, then(issued(GOOD), steps)));
    }
}

#[test]
fn a_start_that_the_restored_controller_does_not_know_stands_when_an_operator_confirms() {
    // The edge comes back in the very state that it had told before: nobody looked at it again.
    let steps = [
        At(20_000, Act { action: Stop, rule: 0, edge: 0, queue: false }),
        At(30_000, BackUpCloud),
        At(40_000, Act { action: Start, rule: 0, edge: 0, queue: false }),
        At(50_000, RestoreCloud),
        At(130_000, KillEdge { edge: 0, down_ms: 5_000 }),
        At(131_000, Confirm { edge: 0 }),
    ];
    for seed in 1..10 {
        holds(&calm(seed, 1, 150_000, then(issued(GOOD), steps)));
    }
}

#[test]
fn an_issue_that_the_edge_accepted_is_no_failure_because_its_agent_is_replaced_before_it_answers() {
    // The first set is lost, so that the next one carries bytes; then the answer is. Nothing else changes on the edge.
    let steps = [
        At(19_000, Remote { remote: 0, is: Silent }),
        At(19_900, Cut { edge: 0, ms: 5_000 }),
        At(20_000, Act { action: IssueAgain, rule: 0, edge: 0, queue: false }),
        At(36_000, Cut { edge: 0, ms: 20_000 }),
        At(46_000, Install { edge: 0, software: Foreign }),
    ];
    for seed in 1..10 {
        holds(&calm(seed, 1, 60_000, then(issued(GOOD), steps)));
    }
}
