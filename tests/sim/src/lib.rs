//! A simulated world: one controller, many agents, a bad network.
