//! How much is tried: a sample, as in CI, or everything (`cargo e2e --full`).

/// The variable by which `cargo e2e --full` asks for everything.
pub const FULL_ENV: &str = "TIDEGATE_E2E_FULL";

/// Whether everything is to be tried.
#[must_use]
pub fn is_full() -> bool {
    std::env::var_os(FULL_ENV).is_some_and(|value| value == "1")
}

/// `sample` of `all` points, spread evenly, or all of them.
#[must_use]
pub fn points(all: u64, sample: u64) -> Vec<u64> {
    if is_full() || all <= sample {
        return (1..=all).collect();
    }
    (0..sample).map(|n| 1 + n * all / sample + (all / sample) / 2).collect()
}
