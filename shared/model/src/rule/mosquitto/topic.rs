//! `topic PATTERN [DIRECTION [QOS [LOCAL-PREFIX [REMOTE-PREFIX]]]]`.

use super::line::Line;
use super::{Bridge, Said};
use crate::rule::spec::{Qos, RouteSpec};

enum Direction {
    Out,
    In,
    Both,
}

impl Bridge {
    pub(super) fn topic(&mut self, line: &Line<'_>, at: usize) -> Said {
        let words = line.words();
        let Some(pattern) = words.first() else { return Said::refused("the topic has no pattern") };
        let (direction, rest) = match words.get(1).map(|word| word.to_ascii_lowercase()).as_deref() {
            None => (Direction::Out, &words[1..]),
            Some("out") => (Direction::Out, &words[2..]),
            Some("in") => (Direction::In, &words[2..]),
            Some("both") => (Direction::Both, &words[2..]),
            Some(other) => {
                let other = super::line::brief(other);
                return Said::refused(format!("'{other}' is no direction; write out, in or both"));
            }
        };
        // From the third word on, one that begins with '#' begins a comment; no QoS and no prefix does.
        let said = rest.iter().position(|word| word.starts_with('#')).unwrap_or(rest.len());
        let (qos, local, remote) = match &rest[..said] {
            [] => ("0", "", ""),
            [qos] => (qos.as_str(), "", ""),
            [qos, local] => (qos.as_str(), local.as_str(), ""),
            [qos, local, remote] => (qos.as_str(), local.as_str(), remote.as_str()),
            [_, _, _, more, ..] => {
                let more = super::line::brief(more);
                return Said::refused(format!(
                    "'{more}' stands after the last prefix; quote words that hold blanks"
                ));
            }
        };
        let (qos, mut notes) = match qos {
            "0" => (Qos::AtMostOnce, Vec::new()),
            "1" => (Qos::AtLeastOnce, Vec::new()),
            "2" => (
                Qos::AtLeastOnce,
                vec!["QoS 2 becomes 1: a message arrives at least once, and may come twice".to_owned()],
            ),
            other => {
                let other = super::line::brief(other);
                return Said::refused(format!("'{other}' is no QoS; write 0, 1 or 2"));
            }
        };
        if pattern.is_empty() && (local.is_empty() || remote.is_empty()) {
            return Said::refused("an empty pattern needs both prefixes: it names one topic here and there");
        }
        if let Some(brace) = [pattern, local, remote].iter().find_map(|text| text.find(['{', '}'])) {
            return Said::refused(format!(
                "a brace (at {}) cannot be written in a rule: it begins a variable",
                brace + 1
            ));
        }
        if pattern == "#" && local.ends_with('/') && !matches!(direction, Direction::In) {
            let (parent, image) = (local.trim_end_matches('/'), remote.trim_end_matches('/'));
            if !image.is_empty() {
                notes.push(format!("'{parent}' itself goes out too, as '{image}'; mosquitto leaves it out"));
            }
        }
        let route = |from: &str, to: &str| RouteSpec {
            topic: format!("{from}{pattern}"),
            exclude: Vec::new(),
            qos,
            strip: from.to_owned(),
            prefix: to.to_owned(),
            retain: true,
        };
        match direction {
            Direction::Out => {
                self.lines.insert(format!("/forwards/{}", self.spec.forwards.len()), at);
                self.spec.forwards.push(route(local, remote));
            }
            Direction::In => {
                self.lines.insert(format!("/subscriptions/{}", self.spec.subscriptions.len()), at);
                self.spec.subscriptions.push(route(remote, local));
            }
            Direction::Both => {
                return Said::refused(
                    "what goes out would come back, round and round: mosquitto tells the other broker that it is a bridge, \
                     a rule logs in like any client. Write one line 'out' and one line 'in', with topics or prefixes that \
                     keep the directions apart",
                );
            }
        }
        if notes.is_empty() { Said::mapped() } else { Said::but(notes.join("; ")) }
    }
}
