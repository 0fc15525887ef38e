//! The broker that plays the remote side, and prints what arrives.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tidegate_broker::{AllowAll, Broker, BrokerConfig, Message, Offer, Quiet, Source, Tap};

use crate::failure::Failure;
use crate::output::Out;

/// Characters of a payload that are printed at the most.
const SHOWN: usize = 120;

/// Starts it.
pub async fn start(listen: SocketAddr, state: &Path, out: Out) -> Result<Broker, Failure> {
    let mut config = BrokerConfig::new(listen);
    config.state_dir = Some(state.to_owned());
    let printer = Arc::new(Printer { out });
    let broker = Broker::start(config, Arc::new(AllowAll), printer, Arc::new(Quiet)).await;
    broker.map_err(|error| super::broker_failure("the remote broker", "--remote-mqtt", &error))
}

/// Prints every message, one per line.
struct Printer {
    out: Out,
}

impl Tap for Printer {
    fn offer(&self, message: &Arc<Message>, _source: &Source) -> Offer {
        if !self.out.quiet() {
            // A terminal that went away is no reason to lose the message.
            let _ = self.out.line(format_args!("{}  {}", message.topic, shown(&message.payload)));
        }
        Offer::Pass
    }
}

/// A payload as one line of text: nothing in it can move the cursor.
fn shown(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    let mut line: String =
        text.chars().take(SHOWN).map(|c| if c.is_control() { '\u{b7}' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn payloads_are_one_line_and_bounded() {
        assert_eq!(shown(b"21.5"), "21.5");
        assert_eq!(shown(b"a\n\x1b[2J\xff"), "a\u{b7}\u{b7}[2J\u{fffd}");
        assert_eq!(shown("x".repeat(500).as_bytes()).chars().count(), 121);
    }
}
