//! Names and ids, each a type of its own with one fallible constructor.
//!
//! Owns the spelling rules of names that people choose ([`RuleName`], [`EdgeId`], [`AccountId`]) and of ids that
//! machines make ([`RuleId`], [`StoreId`], [`SessionId`]). Makes no ids itself: randomness belongs to the shells.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::MAX_NAME_BYTES;
use crate::text::as_text;

/// Names that topics and the API use for themselves, so that no edge, rule or account may bear them.
pub const RESERVED_NAMES: [&str; 5] = ["controller", "state", "ctl", "0", "1"];

/// Why a name was refused; the text is made for the person who typed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind} '{name}' {why}; use 1 to 63 characters of a-z, 0-9 and '-', beginning with a letter or digit"
)]
pub struct InvalidName {
    kind: &'static str,
    name: String,
    why: &'static str,
}

fn check_name(kind: &'static str, name: &str) -> Result<(), InvalidName> {
    let first_ok = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest_ok = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let why = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME_BYTES {
        "is longer than 63 characters"
    } else if !first_ok {
        "begins with a character that is not allowed there"
    } else if !rest_ok {
        "holds a character that is not allowed"
    } else if RESERVED_NAMES.contains(&name) {
        "is reserved"
    } else {
        return Ok(());
    };
    // What is shown of a bad name is bounded: it may be a whole file pasted into the wrong field.
    let shown: String = name.chars().take(MAX_NAME_BYTES + 1).filter(|c| !c.is_control()).collect();
    Err(InvalidName { kind, name: shown, why })
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String))]
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and keeps the name: 1 to 63 bytes of `[a-z0-9][a-z0-9-]*`, not one of [`RESERVED_NAMES`].
            ///
            /// # Errors
            /// [`InvalidName`], which says what is wrong and what is allowed.
            pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
                let name = name.as_ref();
                check_name($kind, name)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        as_text!($name);
    };
}

name_type!(
    /// The name an operator gives to a sync rule; unique within an account.
    RuleName,
    "rule name"
);
name_type!(
    /// The name of a gateway as the cloud knows it; unique within an account, part of its MQTT topics.
    EdgeId,
    "edge name"
);
name_type!(
    /// The account that owns rules and edges. There is one, `default`, until there are several.
    AccountId,
    "account name"
);

impl AccountId {
    /// The account that exists from the start.
    #[must_use]
    pub fn default_account() -> Self {
        Self("default".into())
    }
}

/// The identity of a rule: made once, never reused, used on the wire in place of the name.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String, format = Uuid))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(pub Uuid);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Correlates a request with its answer (UUIDv7). Never used to tell copies apart: that is the generation's work.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String, format = Uuid))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(pub Uuid);

/// Random 128-bit id of an agent's database, made with it: a wiped disk has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u128);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Why a session id of the wire could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a session id is 32 hexadecimal digits, ':' and a number")]
pub struct InvalidSessionId;

/// One connection of one agent: its store and the epoch that it persisted before it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// The agent's database.
    pub store: StoreId,
    /// Grows by at least 1 before each CONNECT.
    pub epoch: u64,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.store, self.epoch)
    }
}

impl FromStr for SessionId {
    type Err = InvalidSessionId;
    fn from_str(text: &str) -> Result<Self, InvalidSessionId> {
        let (store, epoch) = text.split_once(':').ok_or(InvalidSessionId)?;
        if store.len() != 32 || !store.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InvalidSessionId);
        }
        let store = u128::from_str_radix(store, 16).map_err(|_| InvalidSessionId)?;
        let epoch = epoch.parse().map_err(|_| InvalidSessionId)?;
        Ok(Self { store: StoreId(store), epoch })
    }
}

as_text!(SessionId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "gateway-1", "9lives", &"x".repeat(63)] {
            assert_eq!(RuleName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "A", "a_b", "a/b", "é", "controller", "state", "0", "1", "ctl", &"x".repeat(64)]
        {
            assert!(EdgeId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_name_says_why_and_what_is_allowed() {
        let error = EdgeId::new("Gateway 1").unwrap_err().to_string();
        assert!(error.contains("'Gateway 1'") && error.contains("a-z"), "{error}");
    }

    #[test]
    fn session_ids_round_trip() {
        let id = SessionId { store: StoreId(0xfeed), epoch: 42 };
        assert_eq!(id.to_string().parse::<SessionId>().unwrap(), id);
        for bad in
            ["", "feed:1", ":", "0000000000000000000000000000feed:", "+000000000000000000000000000feed:1"]
        {
            assert!(bad.parse::<SessionId>().is_err(), "{bad}");
        }
    }
}
