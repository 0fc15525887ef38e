//! The shrinker, proved on failures whose cause is known.

use tidegate_sim::shrink::shrink_by;
use tidegate_sim::words::*;

/// A wild script of a seed that is long enough to have much to cut.
fn wild() -> Script {
    (1..).map(Script::of).find(|s| s.steps.len() > 150 && s.weather != Weather::CALM).expect("there are many")
}

fn is_cut(step: &At) -> bool {
    matches!(step.1, Cut { .. })
}

fn is_sync(step: &At) -> bool {
    matches!(step.1, Act { action: Sync, .. })
}

#[test]
fn what_is_left_is_the_shortest_that_fails_and_nothing_else() {
    let script = wild();
    // It "fails" where a sync comes after two cuts, whatever else happens.
    let mut tries = 0;
    let shortest = shrink_by(&script, &mut |candidate| {
        tries += 1;
        let mut cuts = 0;
        candidate.steps.iter().any(|step| {
            cuts += u32::from(is_cut(step));
            cuts >= 2 && is_sync(step)
        })
    });
    let kinds: Vec<bool> = shortest.steps.iter().map(is_cut).collect();
    assert_eq!(kinds, [true, true, false], "{shortest}");
    assert!(is_sync(&shortest.steps[2]));
    // The shortest prefix: its sync is the first one that comes after two cuts in the whole script.
    let mut cuts = 0;
    let first = script.steps.iter().position(|step| {
        cuts += u32::from(is_cut(step));
        cuts >= 2 && is_sync(step)
    });
    assert_eq!(Some(shortest.steps[2]), first.map(|nth| script.steps[nth]));
    assert_eq!(shortest.weather, Weather::CALM);
    assert_eq!(shortest.calm_at, shortest.steps[2].0 + 1);
    assert!(tries < 4_000, "{tries} runs");
}

#[test]
fn what_needs_the_weather_keeps_it() {
    let script = wild();
    let shortest = shrink_by(&script, &mut |candidate| candidate.weather == script.weather);
    assert_eq!(shortest.steps, []);
    assert_eq!(shortest.weather, script.weather);
}

#[test]
fn it_is_told_in_words_and_as_rust() {
    let steps = vec![
        At(1_250, Cut { edge: 0, ms: 3_000 }),
        At(2_000, Remote { remote: 1, is: Gone(Tcp) }),
        At(3_000, Act { action: Sync, rule: 0, edge: 0, queue: true }),
    ];
    let text = Script { steps, calm_at: 4_000, ..Script::calm(7, 1) }.to_string();
    for part in [
        "1.250 s  nothing passes between gw-0 and the broker for 3.000 s",
        "3.000 s  the operator wants sync of rule-0 on gw-0, queued if it is offline",
        "4.000 s  all faults stop",
        "At(1250, Cut { edge: 0, ms: 3000 }),",
        "At(2000, Remote { remote: 1, is: Gone(Tcp) }),",
        "At(3000, Act { action: Sync, rule: 0, edge: 0, queue: true }),",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}
