//! What comes over netlink, as fuzzing makes it, as far as all who speak it share it.

use super::generic::family_of;
use super::socket::{Replies, parse_replies, pass_on};
use super::{attributes, messages};

/// Reads answers: complaints and acknowledgements, parts of a dump, the number of a subsystem.
///
/// # Panics
/// When more was read than there is.
pub(crate) fn read(bytes: &[u8]) {
    let (mut replies, mut passed) = (Replies::default(), 0);
    parse_replies(bytes, &mut replies, &mut |_, body| passed += body.len());
    assert!(passed <= bytes.len() && replies.failures.len() <= bytes.len() / 16);
    for failure in replies.failures {
        assert!(!failure.reason().is_empty());
    }
    let mut passed = 0;
    let _ = pass_on(bytes, &mut false, &mut |body| passed += body.len());
    assert!(passed <= bytes.len());
    for message in messages(bytes) {
        family_of(message.body());
        let all: usize = attributes(message.body()).map(|(_, value)| 4 + value.len()).sum();
        assert!(all <= message.body().len());
    }
}
