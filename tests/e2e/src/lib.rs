//! End-to-end tests on real processes, and the checks of the architecture's invariants.
