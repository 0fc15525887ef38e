//! The functions that the fuzz targets call, with what proptest invents and with the corpus: on stable, in every test run.

#![allow(clippy::unwrap_used)] // test helpers outside #[test] functions

use std::path::Path;

use proptest::prelude::*;
use tidegate_fuzz::{TARGETS, codec, connect, envelope, mosquitto_conf, queue_recovery, rule_text, session};

#[test]
fn every_file_of_the_corpus_holds() {
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut files = 0;
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            target(&std::fs::read(&path).unwrap());
            files += 1;
        }
        assert!(files > 0, "{name} has no corpus");
    }
}

#[test]
fn every_function_has_its_fuzz_target() {
    for (name, _) in TARGETS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/fuzz_targets/{name}.rs"));
        let target = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(target.contains(&format!("tidegate_fuzz::{name}(")), "{}", path.display());
    }
}

/// A packet whose first byte, length and fields are nearly right.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let field =
        prop_oneof!["[a-z/+#]{0,6}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..6)]
            .prop_map(|bytes| [&[0, bytes.len() as u8][..], &bytes].concat());
    let piece = prop_oneof![
        field,
        Just(vec![0, 1]),
        Just(vec![0]),
        Just(vec![1]),
        Just([&[0, 4][..], b"MQTT", &[4]].concat()),
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    let first = prop_oneof![
        prop::sample::select(vec![
            0x10u8, 0x30, 0x31, 0x32, 0x34, 0x3d, 0x40, 0x50, 0x62, 0x70, 0x82, 0xa2, 0xc0, 0xe0
        ]),
        any::<u8>()
    ];
    (first, prop::collection::vec(piece, 0..5)).prop_map(|(first, pieces)| {
        let body = pieces.concat();
        [&[first, body.len() as u8][..], &body].concat()
    })
}

/// A line of a `mosquitto.conf` that is nearly right.
fn conf_line() -> impl Strategy<Value = String> {
    let option = prop::sample::select(vec![
        "connection",
        "address",
        "addresses",
        "topic",
        "remote_username",
        "remote_password",
        "remote_clientid",
        "keepalive_interval",
        "cleansession",
        "try_private",
        "bridge_cafile",
        "#",
        "listener",
        "bridge_outgoing_retain",
    ]);
    let value = prop_oneof![
        3 => prop::sample::select(vec![
            "a", "h:1883", "sensors/# out 1", "# both 2 a/ b/", "x in", "\"\" out", "true", "false", "60", "0", "+/b in 1 \"\" c/",
        ]).prop_map(str::to_owned),
        1 => "[ -~üé\\t]{0,20}",
    ];
    (option, value).prop_map(|(option, value)| format!("{option} {value}"))
}

proptest! {
    #[test]
    fn codec_holds_for_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        codec(&bytes);
    }

    #[test]
    fn codec_holds_for_packets_that_are_nearly_right(
        cut in any::<u8>(), packets in prop::collection::vec(packet(), 0..8),
    ) {
        codec(&[&[cut][..], &packets.concat()].concat());
    }

    #[test]
    fn connect_holds(
        flags in any::<u8>(), rest in prop::collection::vec(prop_oneof![3 => Just(0u8), 2 => Just(1), 1 => any::<u8>()], 0..40),
    ) {
        connect(&rest);
        connect(&[&[0, 4][..], b"MQTT", &[4, flags], &rest].concat());
    }

    #[test]
    fn session_holds(operations in prop::collection::vec(any::<u8>(), 0..400)) {
        session(&operations);
    }

    #[test]
    fn rule_text_holds(format in any::<u8>(), text in "(([a-z_\\[\\]{}:\"'#,.= \n-]|name|url|remote|topic|forwards|mqtt://h){0,30})") {
        rule_text(&[&[format][..], text.as_bytes()].concat());
    }

    #[test]
    fn mosquitto_conf_holds(lines in prop::collection::vec(conf_line(), 0..12)) {
        mosquitto_conf(lines.join("\n").as_bytes());
    }

    #[test]
    fn envelope_holds_for_changed_messages(
        golden in prop::sample::select(golden()), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut bytes = golden;
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        envelope(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn queue_recovery_holds(damage in prop::collection::vec(any::<u8>(), 0..40)) {
        queue_recovery(&damage);
    }
}

/// The corpus of `envelope`, which holds one message of each kind.
fn golden() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/envelope");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).filter(|bytes| !bytes.is_empty()).collect()
}
