//! `syncPeriod` and `minSyncPeriod` of the mode's section, and what zero means in them.

use std::time::Duration;

use super::Mode;
use super::check::Problems;
use super::file::{ModeSection, Period};
use crate::cli::Flags;

pub(super) const DEFAULT_SYNC_PERIOD: Duration = Duration::from_secs(30);
pub(super) const DEFAULT_MIN_SYNC_PERIOD: Duration = Duration::from_secs(1);

/// The period, which is no shorter than the least; that one has no effect here.
pub(super) fn sync_period(
    mode: Mode,
    name: &str,
    section: &ModeSection,
    flags: &Flags,
    problems: &mut Problems,
) -> Duration {
    if is_zero_flag(section.sync_period, flags) {
        problems.invalid(&format!("{name}.SyncPeriod"), "0s", "must be greater than 0");
    }
    let given = |period: Option<Period>| period.map(|Period(given)| given);
    let not_zero = |period: &Duration| !period.is_zero();
    let period = given(section.sync_period).filter(not_zero);
    let period = period.unwrap_or(DEFAULT_SYNC_PERIOD);
    let min = least_sync_period(mode, given(section.min_sync_period), flags);
    if min > period {
        problems.invalid(
            &format!("{name}.SyncPeriod"),
            period,
            &format!("must be greater than or equal to MinSyncPeriod ({min:?})"),
        );
    }
    period
}

/// `minSyncPeriod`. Zero is zero from the command line, and in a file for IPVS alone, where it is the default as well.
fn least_sync_period(mode: Mode, given: Option<Duration>, flags: &Flags) -> Duration {
    match (given, flags.config.is_some(), mode) {
        (None | Some(Duration::ZERO), true, Mode::Ipvs) => Duration::ZERO,
        (None, ..) | (Some(Duration::ZERO), true, _) => DEFAULT_MIN_SYNC_PERIOD,
        (Some(given), ..) => given,
    }
}

/// Zero from the command line is zero, where in a file it means the default.
pub(super) fn is_zero_flag(period: Option<Period>, flags: &Flags) -> bool {
    flags.config.is_none() && period.is_some_and(|Period(given)| given.is_zero())
}
