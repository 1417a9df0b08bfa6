//! Skipped tests say so. The line goes past the test harness's capture, so that `make test` can print all of
//! them at its end and refuse those that must never be skipped.

use std::io::Write as _;

/// What kind of test was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// It sends packets through a kernel. `make test` fails when one of these was skipped.
    Packets,
    /// It needs something that most machines do not have, such as a real kube-apiserver.
    Optional,
}

/// Says on standard error that `test` did not run, and why. The caller returns afterwards.
pub fn skipped(kind: Skipped, test: &str, why: &str) {
    let kind = match kind {
        Skipped::Packets => "packets",
        Skipped::Optional => "optional",
    };
    // Nothing better can be done when standard error is closed.
    let _ = writeln!(std::io::stderr(), "SKIPPED ({kind}) {test}: {why}");
}
