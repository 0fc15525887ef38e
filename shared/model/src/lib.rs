//! What cloud and edge must agree on: ids, rules, versions, states, wire messages.
