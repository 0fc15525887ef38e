//! Moments as tables show them: how long ago.

use jiff::Timestamp;

/// "12 s ago"; a text that is no moment is shown as it is.
pub fn ago(now: Timestamp, at: &str) -> String {
    let Ok(at) = at.parse::<Timestamp>() else { return at.to_owned() };
    let seconds = now.as_second() - at.as_second();
    if seconds < 0 {
        // Another clock, a little ahead; far ahead is worth seeing.
        return if seconds > -60 { "now".into() } else { format!("in {}", span(-seconds)) };
    }
    if seconds == 0 { "now".into() } else { format!("{} ago", span(seconds)) }
}

fn span(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// [`ago`] of a moment that may be missing.
pub fn ago_or_dash(now: Timestamp, at: Option<&str>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| ago(now, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_unit_that_fits() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let table = [
            ("2026-01-02T00:00:00Z", "now"),
            ("2026-01-01T23:59:01.500Z", "59 s ago"),
            ("2026-01-01T23:59:00Z", "1 min ago"),
            ("2026-01-01T22:30:00Z", "1 h ago"),
            ("2025-12-30T23:00:00Z", "2 d ago"),
            ("2026-01-02T00:00:30Z", "now"),
            ("2026-01-02T02:00:00Z", "in 2 h"),
            ("yesterday", "yesterday"),
        ];
        for (at, shown) in table {
            assert_eq!(ago(now, at), shown, "{at}");
        }
        assert_eq!(ago_or_dash(now, None), "-");
    }
}
