//! Reads the settings file: every key with its line and column, unknown ones refused.

use std::ffi::OsStr;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::keys::{Draft, Key, Place};

pub(super) fn read(path: &Path, text: &str, draft: &mut Draft) {
    let place = |offset: usize| {
        let before = &text[..text.floor_char_boundary(offset)];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Place::File(format!("{}:{line}:{column}", path.display()))
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        draft.problem(&place(error.span().map_or(0, |s| s.start)), error.message().replace('\n', ", "));
    }
    for (name, value) in table.get_ref() {
        let at = place(name.span().start);
        let Some(key) = Key::ALL.into_iter().find(|k| k.name() == name.get_ref().as_ref()) else {
            let known = Key::ALL.map(Key::name).join(", ");
            draft.problem(&at, format!("'{}' is not a setting; there are {known}", name.get_ref()));
            continue;
        };
        let at = place(value.span().start);
        match (key, value.get_ref()) {
            (Key::CacheMib | Key::HttpRate, DeValue::Integer(number)) => {
                draft.set_text(key, OsStr::new(number.as_str()), at)
            }
            (Key::AllowRemote | Key::MetricsPublic, DeValue::Boolean(flag)) => {
                draft.set_text(key, OsStr::new(if *flag { "true" } else { "false" }), at);
            }
            (
                Key::Http
                | Key::Mqtt
                | Key::Broker
                | Key::BrokerPasswordFile
                | Key::DataDir
                | Key::Store
                | Key::LogFormat,
                DeValue::String(text),
            ) => {
                draft.set_text(key, OsStr::new(text.as_ref()), at);
            }
            (Key::CacheMib | Key::HttpRate, _) => {
                draft.problem(&at, format!("{} is a whole number", key.name()));
            }
            (Key::AllowRemote | Key::MetricsPublic, _) => {
                draft.problem(&at, format!("{} is true or false, without quotes", key.name()));
            }
            (
                Key::Http
                | Key::Mqtt
                | Key::Broker
                | Key::BrokerPasswordFile
                | Key::DataDir
                | Key::Store
                | Key::LogFormat,
                _,
            ) => {
                draft.problem(&at, format!("{} is a text in quotes", key.name()));
            }
        }
    }
}
