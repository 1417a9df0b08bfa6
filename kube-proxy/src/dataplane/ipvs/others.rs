//! When to look for what other hands change in IPVS and on its device. Of virtual servers the kernel tells nobody, so
//! they are looked at again and again: all of them each time, and the endpoints of some in turn, so that a look takes
//! little time however many there are. Of addresses it tells, and then they are looked at soon.
//!
//! What a look finds is put right by the next commit. Where one look after the other finds something, because another
//! hand (most likely a second kube-proxy) keeps changing it, the pauses grow.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::socket::SockProtocol;
use tracing::{error, warn};

use super::Ipvs;
use super::device;
use super::kernel::Kernel;
use super::look::Found;
use crate::model::object::Family;
use crate::netlink::{Listener, Message};

/// `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV6_IFADDR`: a device that is removed loses its addresses first.
const GROUPS: [u32; 2] = [5, 9];
/// The pause between two looks. It grows until they take no more than a part of the time, one in so many.
const PAUSE: Duration = Duration::from_secs(1);
const SHARE: u32 = 100;
/// The pause before one for what was heard: what comes in a burst is put right together.
const SHORT: Duration = Duration::from_millis(50);
/// So many in a row may find something; each after them waits longer.
const SOON: u32 = 8;
const LONGEST: Duration = Duration::from_secs(60);
/// The endpoints of so many virtual servers are looked at at a time, and of more where it would take longer than a sync
/// period to come to all.
const SOME: usize = 256;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Others {
    listener: Option<Listener>,
    pace: Pace,
    /// Looks that found something, since the last commit.
    pub(super) drift: u64,
}

/// When to look.
#[derive(Debug, Default)]
struct Pace {
    last: Option<Instant>,
    /// What the last one took.
    cost: Duration,
    /// So many of the last ones, without one between them that did not, found something.
    found: u32,
    /// Something was heard since the last one.
    heard: bool,
}

impl Pace {
    /// The pause that nothing hurries or slows down.
    fn pause(&self, sync_period: Duration) -> Duration {
        PAUSE.max(self.cost.saturating_mul(SHARE)).min(sync_period)
    }

    fn due(&self, sync_period: Duration) -> Option<Instant> {
        let pause = match self.found {
            0..=SOON if self.heard => SHORT,
            0..=SOON => self.pause(sync_period),
            found => PAUSE.saturating_mul(1 << (found - SOON).min(16)).min(LONGEST),
        };
        Some(self.last? + pause)
    }

    /// Notes a look. Whether it is the first one after which pauses grow.
    fn looked(&mut self, now: Instant, cost: Duration, found: bool) -> bool {
        let found = if found { self.found.saturating_add(1) } else { 0 };
        *self = Self {
            last: Some(now),
            cost,
            found,
            heard: false,
        };
        found == SOON + 1
    }

    /// The endpoints of how many virtual servers to look at, of so many.
    fn share(&self, servers: usize, sync_period: Duration) -> usize {
        let looks = sync_period.as_millis() / self.pause(sync_period).as_millis().max(1);
        let looks = usize::try_from(looks).unwrap_or(usize::MAX).max(1);
        servers.div_ceil(looks).max(SOME)
    }
}

impl Others {
    /// Everything is as this process left it, and from now on changes are heard.
    pub(super) fn begin(&mut self, kernel: &Kernel, now: Instant) {
        self.pace.last.get_or_insert(now);
        if self.listener.is_some() {
            return;
        }
        let opened = kernel.device.port();
        match opened.and_then(|own| Listener::open(SockProtocol::NetlinkRoute, &GROUPS, own)) {
            Ok(listener) => self.listener = Some(listener),
            Err(err) => {
                warn!(%err, "Cannot hear what others change on the device of IPVS; it is looked at instead");
            }
        }
    }

    /// A descriptor to wait for, if there is a new one.
    pub(super) fn descriptor(&mut self) -> Option<OwnedFd> {
        let descriptor = self.listener.as_mut()?.first_descriptor()?;
        descriptor
            .inspect_err(|err| warn!(%err, "Cannot wait for what others change on the device of IPVS"))
            .ok()
    }

    fn hear(&mut self, kernel: &Kernel) {
        let Some(listener) = &mut self.listener else {
            return;
        };
        let mut heard = false;
        let lost = listener.hear(|message| heard |= is_news(message, kernel));
        // Nobody knows what was lost.
        self.pace.heard |= heard
            | lost.unwrap_or_else(|err| {
                error!(%err, "Cannot hear what others change on the device of IPVS");
                false
            });
    }
}

impl Ipvs {
    /// When to look. Without a kernel that it knows, the next commit reads all anyway.
    pub(super) fn look_for_others_due(&self) -> Option<Instant> {
        self.kernel.as_ref()?;
        self.others.pace.due(self.config.sync_period)
    }

    /// Hears, and looks when it is time to. Whether something has to be put right.
    pub(super) fn hear_others(&mut self, now: Instant) -> bool {
        let Some(mut kernel) = self.kernel.take() else {
            return false;
        };
        self.others.hear(&kernel);
        let due = self.others.pace.due(self.config.sync_period);
        let found = due.is_some_and(|due| due <= now) && self.look_for_others(&mut kernel, now);
        self.kernel = Some(kernel);
        found
    }

    fn look_for_others(&mut self, kernel: &mut Kernel, now: Instant) -> bool {
        let sync_period = self.config.sync_period;
        let some = self.others.pace.share(kernel.servers.len(), sync_period);
        let mut found = Found::default();
        let is_our_address = |ip| self.config.families.contains(&Family::of(ip));
        let start = Instant::now();
        let looked = kernel.look(|at| self.is_ours(at), is_our_address, some, &mut found);
        let cost = match looked {
            Ok(()) => start.elapsed(),
            Err(err) => {
                warn!(%err, again_after = ?sync_period, "Cannot look at what others change in IPVS");
                sync_period
            }
        };
        for what in &found.named {
            warn!("{what}: another hand did it; putting it right");
        }
        if found.count > found.named.len() {
            warn!(more = found.count - found.named.len(), "and more of the same");
        }
        if self.others.pace.looked(now, cost, found.count > 0) {
            error!(
                "another hand keeps changing IPVS or its device, perhaps a second kube-proxy; it is put right after \
                 growing pauses"
            );
        }
        self.others.drift += u64::from(found.count > 0);
        self.moved.servers.extend(found.moved.servers);
        self.moved.addresses.extend(found.moved.addresses);
        found.count > 0
    }
}

/// Whether an address came to the device, or went, that this process did not put or take away. Of what it did the kernel
/// tells it, too, in IPv6.
fn is_news(message: Message<'_>, kernel: &Kernel) -> bool {
    let there = match message.kind {
        device::RTM_NEWADDR => true,
        device::RTM_DELADDR => false,
        _ => return false,
    };
    let news = |(index, ip): (u32, IpAddr)| {
        kernel.device.index() == Some(index) && kernel.addresses.contains(&ip) != there
    };
    device::address(message.body()).is_some_and(news)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);

    /// The pauses of so many looks that take so long.
    fn pauses(looks: u32, cost: Duration, found: bool, heard: bool) -> Vec<u128> {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        pace.looked(now, cost, found);
        let pauses = (0..looks).map(|_| {
            pace.heard = heard;
            let due = pace.due(PERIOD).unwrap();
            let pause = (due - now).as_millis();
            now = due;
            pace.looked(now, cost, found);
            pause
        });
        pauses.collect()
    }

    #[test]
    fn looks_take_a_hundredth_of_the_time_and_come_once_a_sync_period_at_least() {
        assert_eq!(Pace::default().due(PERIOD), None);
        let of = |millis| pauses(1, Duration::from_millis(millis), false, false)[0];
        assert_eq!([of(1), of(10), of(20), of(1000)], [1000, 1000, 2000, 30_000]);
    }

    #[test]
    fn what_is_heard_is_looked_at_soon_and_what_comes_again_and_again_after_growing_pauses() {
        assert_eq!(pauses(2, Duration::ZERO, false, true), [50, 50]);
        let growing = [2000, 4000, 8000, 16_000, 32_000, 60_000];
        for (heard, pause) in [(false, 1000), (true, 50)] {
            let found = pauses(14, Duration::ZERO, true, heard);
            assert_eq!(found, [&[pause; 8][..], &growing].concat());
        }
        let mut pace = Pace::default();
        let told: Vec<bool> = (0..12)
            .map(|_| pace.looked(Instant::now(), Duration::ZERO, true))
            .collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
        assert!(told[8]);
        // One that finds nothing ends it.
        pace.looked(Instant::now(), Duration::ZERO, false);
        assert_eq!(pace.due(PERIOD), pace.last.map(|last| last + PAUSE));
    }

    #[test]
    fn a_sync_period_suffices_to_look_at_the_endpoints_of_all() {
        let pace = |cost| Pace {
            cost: Duration::from_millis(cost),
            ..Pace::default()
        };
        assert_eq!(pace(0).share(10, PERIOD), SOME);
        assert_eq!(pace(0).share(30_000, PERIOD), 1000);
        assert_eq!(pace(20).share(30_000, PERIOD), 2000);
        assert_eq!(pace(10_000).share(30_000, PERIOD), 30_000);
    }
}
