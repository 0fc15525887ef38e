//! What must hold for any bytes that come in from outside, one function per boundary; each panics when it does not hold.
//!
//! The fuzz targets in `fuzz/` call these functions with what libFuzzer invents, the tests in `tests/` call the same with
//! what proptest invents and with each file of `corpus/`: inputs that found something, or that reach deep. Those of the broker
//! are in `tidegate_broker::fuzzing`, since they need its insides.

mod queue;

pub use queue::queue_recovery;
pub use tidegate_broker::fuzzing::{codec, connect, session};

use tidegate_model::limits::MAX_ENVELOPE_BYTES;
use tidegate_model::rule::mosquitto::{MAX_CONNECTIONS, export, import};
use tidegate_model::rule::{Format, Limits, ValidRule, parse};
use tidegate_model::wire::Envelope;

/// A function of this crate.
pub type Target = fn(&[u8]);

/// Every function by its name, which is also that of its fuzz target and of its folder in `corpus/`.
pub const TARGETS: [(&str, Target); 7] = [
    ("codec", codec),
    ("connect", connect),
    ("session", session),
    ("rule_text", rule_text),
    ("mosquitto_conf", mosquitto_conf),
    ("envelope", envelope),
    ("queue_recovery", queue_recovery),
];

/// The text of a rule, behind a byte that says in which format: it is read or gives problems with words; a valid rule, written
/// as TOML and as JSON, is read as the same rule.
///
/// # Panics
/// When that does not hold.
pub fn rule_text(input: &[u8]) {
    let Some((format, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let format = [Format::Toml, Format::Yaml, Format::Json][usize::from(format % 3)];
    match read_rule(text, format) {
        Err(problems) => assert!(!problems.is_empty()),
        Ok(rule) => {
            assert_eq!(read_rule(&rule.canonical_toml(), Format::Toml).as_ref(), Ok(&rule));
            assert_eq!(
                read_rule(&rule.to_json_telling(&Default::default()).to_string(), Format::Json).as_ref(),
                Ok(&rule)
            );
        }
    }
}

fn read_rule(text: &str, format: Format) -> Result<ValidRule, String> {
    let draft = parse(text, format).map_err(|problems| problems.to_string())?;
    let (rule, _) = draft.validate(&Limits::default()).map_err(|problems| problems.to_string())?;
    Ok(rule)
}

/// A `mosquitto.conf`: it is read within its bounds, and a rule that comes out of it and can be written as a connection is read
/// again as a rule.
///
/// # Panics
/// When that does not hold.
pub fn mosquitto_conf(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(found) = import(text) else { return };
    assert!(found.bridges.len() <= MAX_CONNECTIONS);
    assert!(found.lines.len() <= text.lines().count());
    for rule in found.bridges.iter().filter_map(|bridge| bridge.rule.as_ref()) {
        if let Ok(written) = export(rule, None) {
            let again = import(&written.text).map(|again| again.bridges);
            let is_rule = again.is_ok_and(|bridges| bridges.len() == 1 && bridges[0].rule.is_some());
            assert!(is_rule, "written and not read again:\n{}", written.text);
        }
    }
}

/// A payload between controller and edge: it is read or gives an error with words; what was read, written again, is read as the
/// same.
///
/// # Panics
/// When that does not hold.
pub fn envelope(input: &[u8]) {
    match Envelope::read_up(input) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok((header, message)) => {
            let again = Envelope::up(header, &message).to_bytes();
            if again.len() <= MAX_ENVELOPE_BYTES {
                assert_eq!(Envelope::read_up(&again), Ok((header, message)));
            }
        }
    }
    match Envelope::read_down(input) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok((header, message)) => {
            let again = Envelope::down(header, &message).to_bytes();
            if again.len() <= MAX_ENVELOPE_BYTES {
                assert_eq!(Envelope::read_down(&again), Ok((header, message)));
            }
        }
    }
}
