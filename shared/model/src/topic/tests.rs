use proptest::prelude::*;

use super::*;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

fn name(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

#[test]
fn filters_match_as_mqtt_3_1_1_section_4_7_says() {
    for (pattern, topic, expected) in [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("sport/tennis/player1/#", "sport/tennis/player2", false),
        ("sport/#", "sport", true),
        ("#", "sport", true),
        ("#", "/", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("#", "$SYS/load", false),
        ("+/load", "$SYS/load", false),
        ("$SYS/#", "$SYS/load", true),
        ("$SYS/#", "$SYS", true),
        ("a/#", "ab", false),
        ("A", "a", false),
        ("a//b", "a//b", true),
        ("a/+/b", "a//b", true),
    ] {
        assert_eq!(filter(pattern).matches(&name(topic)), expected, "{pattern} {topic}");
    }
}

#[test]
fn bad_filters_say_what_is_wrong_and_where() {
    for (text, part) in [
        ("", "empty"),
        ("a/#/b", "'#' must be the last level, here it is level 2 of 3"),
        ("a/b#", "'#' must fill its whole level, level 2 is 'b#'"),
        ("+a/b", "'+' must fill its whole level, level 1 is '+a'"),
        ("a/\0", "level 2 has a control character (U+0000)"),
        (&"a".repeat(1025), "1025 bytes"),
        (&"a/".repeat(32), "33 levels"),
    ] {
        let error = TopicFilter::new(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!(TopicName::new("a/+/b").unwrap_err().to_string().contains("level 2 has the wildcard '+'"));
    assert!(TopicName::new("a".repeat(1024)).is_ok());
}

#[test]
fn only_tidegate_itself_is_reserved() {
    for (topic, expected) in [
        ("tidegate", true),
        ("tidegate/1/x", true),
        ("tidegates/x", false),
        ("a/tidegate", false),
        ("#", false),
    ] {
        assert_eq!(reserved(topic), expected, "{topic}");
    }
}

#[test]
fn mappings_strip_then_prefix_and_keep_the_parent_of_a_hash() {
    for (strip, prefix, topic, expected) in [
        ("", "", "a/b", Some("a/b")),
        ("a/", "", "a/b", Some("b")),
        ("", "x/", "a/b", Some("x/a/b")),
        ("a/", "x/", "a/b", Some("x/b")),
        ("a/", "x/", "a", Some("x")),
        ("a/", "x", "a", Some("x")),
        ("a/", "", "a", None),
        ("a/", "x/", "b", None),
        ("a", "", "a", None),
    ] {
        let mapping = TopicMapping { strip: strip.into(), prefix: prefix.into() };
        assert_eq!(mapping.apply(&name(topic)), expected.map(name), "{strip} {prefix} {topic}");
    }
    let glued = TopicMapping { strip: String::new(), prefix: "plant".into() };
    assert!(matches!(glued.map_filter(&filter("#")), Err(UnmappableFilter::Invalid(_))));
    assert_eq!(glued.map_filter(&filter("a/#")), Ok(filter("planta/#")));
}

#[test]
fn a_hash_below_an_empty_level_needs_a_level_more() {
    for (wide, narrow, covers) in [
        ("+/+/#", "/#", true),
        ("/+/#", "/#", true),
        ("/#", "/+/#", true),
        ("+/#", "#", true),
        ("+/+/#", "#", false),
        ("+/+", "/#", false),
        ("a/+/#", "a/#", false),
    ] {
        assert_eq!(filter(wide).covers(&filter(narrow)), covers, "{wide} covers {narrow}");
    }
}

#[test]
fn serde_checks_what_it_reads() {
    assert!(serde_json::from_str::<TopicFilter>("\"a/#/b\"").is_err());
    assert!(serde_json::from_str::<TopicName>("\"a/#\"").is_err());
    assert_eq!(serde_json::from_str::<TopicFilter>("\"a/#\"").unwrap(), filter("a/#"));
}

/// The definition, written as a recursion over levels, to compare the real thing with.
fn naive_matches(pattern: &[&str], topic: &[&str]) -> bool {
    match (pattern, topic) {
        (["#"], _) | ([], []) => true,
        ([], _) | (_, []) => false,
        ([want, pattern @ ..], [have, topic @ ..]) => {
            (*want == "+" || want == have) && naive_matches(pattern, topic)
        }
    }
}

fn naive(pattern: &str, topic: &str) -> bool {
    let wild = pattern.starts_with(['+', '#']);
    let (p, t): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), topic.split('/').collect());
    !(wild && topic.starts_with('$')) && naive_matches(&p, &t)
}

/// Every topic of up to four levels over a small alphabet: enough to tell any two filters of up to three levels apart.
fn world() -> Vec<TopicName> {
    let alphabet = ["a", "b", "", "$s"];
    let mut all: Vec<String> = alphabet.iter().map(|s| (*s).to_string()).collect();
    let mut last = all.clone();
    for _ in 0..3 {
        last = last.iter().flat_map(|t| alphabet.iter().map(move |l| format!("{t}/{l}"))).collect();
        all.extend(last.iter().cloned());
    }
    all.into_iter().filter_map(|t| TopicName::new(t).ok()).collect()
}

fn any_filter() -> impl Strategy<Value = TopicFilter> {
    let level = prop::sample::select(vec!["a", "b", "+", "", "$s"]);
    (prop::collection::vec(level, 0..3), any::<bool>()).prop_filter_map("empty", |(mut levels, hash)| {
        if hash {
            levels.push("#");
        }
        TopicFilter::new(levels.join("/")).ok()
    })
}

proptest! {
    #[test]
    fn matching_agrees_with_the_naive_model(f in any_filter()) {
        for topic in world() {
            prop_assert_eq!(f.matches(&topic), naive(f.as_str(), topic.as_str()), "{} {}", f, topic);
        }
    }

    #[test]
    fn overlaps_covers_and_intersection_say_what_matching_says(a in any_filter(), b in any_filter()) {
        let world = world();
        let both = |t: &&TopicName| a.matches(t) && b.matches(t);
        prop_assert_eq!(a.overlaps(&b), world.iter().any(|t| both(&t)), "{} overlaps {}", a, b);
        prop_assert_eq!(
            a.covers(&b), world.iter().all(|t| !b.matches(t) || a.matches(t)), "{} covers {}", a, b
        );
        if let Some(i) = a.intersection(&b) {
            for t in &world {
                prop_assert_eq!(i.matches(t), both(&t), "{} and {} make {}, {}", a, b, i, t);
            }
        }
    }

    #[test]
    fn what_a_filter_matches_is_mapped_into_the_mapped_filter(f in any_filter(), cut in 0usize..4, prefix in "[a-z/]{0,4}") {
        let strip: String = f.literal_prefix().chars().take(cut).collect();
        let mapping = TopicMapping { strip, prefix };
        if let Ok(image) = mapping.map_filter(&f) {
            for topic in world().iter().filter(|t| f.matches(t)) {
                if let Some(mapped) = mapping.apply(topic) && !mapped.is_dollar() {
                    prop_assert!(image.matches(&mapped), "{} to {}: {} to {}", f, image, topic, mapped);
                }
            }
        }
    }

    #[test]
    fn no_text_makes_the_constructors_panic(text in ".{0,80}") {
        if let Ok(name) = TopicName::new(text.clone()) {
            prop_assert!(filter(name.as_str()).matches(&name));
        }
        let _ = TopicFilter::new(text);
    }
}
