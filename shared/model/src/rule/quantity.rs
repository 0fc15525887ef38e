//! Durations and sizes as people write them: `90s`, `7d`, `64MiB`.

use std::fmt;
use std::str::FromStr;

/// Why a text is not a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuantity {
    /// Not a whole number followed by a unit.
    #[error("'{text}' is not a whole number with a unit")]
    Shape {
        /// What was written.
        text: String,
    },
    /// A unit that is not known.
    #[error("'{unit}' is not a unit here")]
    Unit {
        /// What was written.
        unit: String,
    },
    /// The number does not fit.
    #[error("'{text}' is too large")]
    TooLarge {
        /// What was written.
        text: String,
    },
}

/// Splits `64MiB` and multiplies.
fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, InvalidQuantity> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start());
    let shown = || text.chars().take(64).collect::<String>();
    if number.is_empty() || unit.is_empty() {
        return Err(InvalidQuantity::Shape { text: shown() });
    }
    let (_, factor) = units
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| InvalidQuantity::Unit { unit: unit.chars().take(64).collect() })?;
    let number: u64 = number.parse().map_err(|_| InvalidQuantity::TooLarge { text: shown() })?;
    number.checked_mul(*factor).ok_or_else(|| InvalidQuantity::TooLarge { text: shown() })
}

/// The largest of `units` that divides the number; the units are sorted, the smallest first.
fn print(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let (name, factor) = units
        .iter()
        .rev()
        .find(|(_, factor)| value > 0 && value.is_multiple_of(*factor))
        .unwrap_or(&units[0]);
    write!(f, "{}{name}", value / factor)
}

macro_rules! quantity {
    ($(#[$doc:meta])* $type:ident, read: $read:expr, written: $written:expr) => {
        $(#[$doc])*
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String))]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(pub u64);

        impl FromStr for $type {
            type Err = InvalidQuantity;

            fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
                parse(text, &$read).map(Self)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                print(f, self.0, &$written)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidQuantity;

            fn try_from(text: String) -> Result<Self, InvalidQuantity> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

quantity!(
    /// A duration in whole seconds. Read from `s`, `m`, `h`, `d`, `w`; printed with the largest of `s`, `m`, `h`, `d` that
    /// leaves a whole number.
    Seconds,
    read: [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)],
    written: [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)]
);

quantity!(
    /// A size in bytes. Read from `B`, `kB`, `MB`, `GB` (powers of 1,000) and `KiB`, `MiB`, `GiB` (powers of 1,024); printed
    /// with the largest binary unit that leaves a whole number.
    Bytes,
    read: [
        ("B", 1), ("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000),
        ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)
    ],
    written: [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]
);
