//! Keys: of fixed width, numbers big-endian, so that the order of the bytes is the order of the records.

use tidegate_model::digest::Digest;
use tidegate_model::ids::{EdgeId, RuleId};
use tidegate_model::limits::MAX_NAME_BYTES;
use tidegate_model::version::RuleVersion;

/// Key of the facts about the controller.
pub(super) const META: &[u8] = b"meta";

/// Bytes of a name: as long as the longest, and one zero at least behind it.
const NAME_WIDTH: usize = MAX_NAME_BYTES + 1;

pub(super) fn answer(id: &Digest) -> Vec<u8> {
    id.as_bytes().to_vec()
}

pub(super) fn rule(id: RuleId) -> Vec<u8> {
    id.0.as_bytes().to_vec()
}

pub(super) fn version(id: RuleId, version: RuleVersion) -> Vec<u8> {
    let mut key = rule(id);
    key.extend_from_slice(&version.0.to_be_bytes());
    key
}

pub(super) fn edge(id: &EdgeId) -> Vec<u8> {
    let mut key = vec![0; NAME_WIDTH];
    for (to, from) in key.iter_mut().zip(id.as_str().bytes()) {
        *to = from;
    }
    key
}

pub(super) fn placement(id: RuleId, at: &EdgeId) -> Vec<u8> {
    let mut key = rule(id);
    key.extend_from_slice(&edge(at));
    key
}
