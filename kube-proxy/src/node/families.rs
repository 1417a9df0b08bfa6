//! Which families of addresses this kernel has.

use std::path::Path;

use crate::model::object::Family;

/// The list of IPv6 addresses, which is there in every network namespace when the kernel has IPv6 at all.
const IPV6_ADDRESSES: &str = "/proc/net/if_inet6";

/// The families that can be programmed. IPv6 may be left out of the kernel, or switched off when it starts
/// (`ipv6.disable=1`). That interfaces have it switched off (`disable_ipv6`) does not count: it may be switched on
/// again at any time, on any of them, and the rules must be there when it is.
pub fn of_this_kernel() -> Vec<Family> {
    let has_ipv6 = Path::new(IPV6_ADDRESSES).exists();
    let has = |family: &Family| *family == Family::V4 || has_ipv6;
    Family::ALL.into_iter().filter(has).collect()
}
