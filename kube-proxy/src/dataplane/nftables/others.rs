//! What other hands change in what is ours, tables or chains: heard from nf_tables itself, whose messages name it and, at
//! the end of each transaction, who it was. What this process does, or a program that it starts, is left out by the kernel.
//!
//! The answer to any of it is the same, all is programmed anew, in one transaction where there is a table. A hand that
//! does it again and again (most likely a second kube-proxy) gets its answer after growing pauses.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use tracing::{error, warn};

use super::config::Config;
use super::encode::MessageType;
use super::kernel::Kernel;
use crate::dataplane::CommitError;
use crate::netlink::{Filter, Listener, Message, attributes, nfproto};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`.
pub(super) const SUBSYSTEM: u16 = 10;
/// The length of `nfgenmsg`, and so where attributes start; the first of each message is the table's name.
const HEADER: usize = 4;
const NAME: u16 = 1;
const NFTA_GEN_PROC_PID: u16 = 2;
const NFTA_GEN_PROC_NAME: u16 = 3;
/// The names of the threads of ours and of programs that write such tables for as long as they run.
const RIVALS: [&str; 2] = ["proxy", "kube-proxy"];
/// So many repairs are made soon; those after them wait longer each time.
const SOON: u32 = 8;
/// The pause between two that are made soon: what comes in a burst is put right together.
const SHORT: Duration = Duration::from_millis(50);
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// After so long without a repair the count starts anew.
const QUIET: Duration = Duration::from_secs(120);

/// What is ours, and what is known of those who change it.
pub(in crate::dataplane) trait Guarded {
    /// What it is called in the log.
    fn name(&self) -> &str;

    /// What a message of nf_tables, which is not the end of a transaction, says of it.
    fn touch(&self, message: &Message<'_>) -> Touch;

    /// Whether a program of this name may be one of another kube-proxy, which would answer in turn.
    fn is_rival(&self, program: &str) -> bool {
        RIVALS.contains(&program)
    }
}

/// What another hand did to what is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::dataplane) enum Touch {
    #[default]
    Nothing,
    Changed,
    /// What no kube-proxy does to another.
    Flushed,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct Others {
    listener: Option<Listener>,
    /// What the transaction that is being heard does.
    touch: Touch,
    repairs: Repairs,
}

/// When to answer.
#[derive(Debug, Default)]
struct Repairs {
    due: Option<Instant>,
    last: Option<Instant>,
    /// Made since it was quiet.
    made: u32,
}

impl Repairs {
    /// Something has to be put right. Whether it is the first for which that has to wait. To answer a `rival`, which
    /// would answer in turn, always waits.
    fn need(&mut self, now: Instant, rival: bool) -> bool {
        if self.due.is_some() {
            return false;
        }
        if self.last.is_none_or(|last| last + QUIET <= now) {
            self.made = 0;
        }
        if rival {
            self.made = self.made.max(SOON);
        }
        let pause = match self.made {
            0 => Duration::ZERO,
            made if made < SOON => SHORT,
            made => FIRST.saturating_mul(1 << (made - SOON).min(16)).min(LONGEST),
        };
        // Counted from the last one: an answer to what happens rarely does not wait.
        let since = self.last.filter(|_| !rival);
        self.due = Some(match since {
            Some(last) => (last + pause).max(now),
            None if rival => now + pause,
            None => now,
        });
        self.made == SOON
    }

    /// Whether one is due, which is then taken for made.
    fn take(&mut self, now: Instant) -> bool {
        let due = self.due.is_some_and(|due| due <= now);
        if due {
            (self.due, self.last) = (None, Some(now));
            self.made = self.made.saturating_add(1);
        }
        due
    }
}

impl Others {
    /// Begins to hear, once there is something that others can change.
    pub(super) fn listen(
        &mut self,
        kernel: &mut Kernel,
        config: &Config,
        now: Instant,
    ) -> Result<(), CommitError> {
        if self.listener.is_some() || !self.open(kernel.socket()?.port()) {
            return Ok(());
        }
        // It can have happened between the two.
        for &family in &config.families {
            if !kernel.table_exists(family, &config.table)? {
                self.need_repair(config, now, "nobody known", Touch::Flushed);
                break;
            }
        }
        Ok(())
    }

    /// Begins to hear all but what the socket with the port `own` does. Whether that is so, and was not before.
    pub(in crate::dataplane) fn open(&mut self, own: Result<u32, Errno>) -> bool {
        if self.listener.is_some() {
            return false;
        }
        match own.and_then(|own| Listener::open(SockProtocol::NetlinkNetFilter, &[GROUP], own)) {
            Ok(listener) => self.listener = Some(listener),
            Err(err) => {
                warn!(%err, "Cannot hear what others change in nf_tables; it is noticed at the next change");
            }
        }
        self.listener.is_some()
    }

    /// By which another socket can be left out.
    pub(in crate::dataplane) fn filter(&self) -> Option<Filter> {
        self.listener.as_ref().map(Listener::filter)
    }

    /// A descriptor to wait for, if there is a new one.
    pub(in crate::dataplane) fn descriptor(&mut self) -> Option<OwnedFd> {
        let descriptor = self.listener.as_mut()?.first_descriptor()?;
        descriptor
            .inspect_err(|err| warn!(%err, "Cannot wait for what others change in nf_tables"))
            .ok()
    }

    /// Takes in what was heard.
    pub(in crate::dataplane) fn hear(&mut self, ours: &impl Guarded, now: Instant) {
        let Some(mut listener) = self.listener.take() else {
            return;
        };
        let mut hands = Vec::new();
        let lost = listener.hear(|message| hands.extend(self.read(message, ours)));
        for (hand, touch) in hands {
            self.need_repair(ours, now, &hand, touch);
        }
        match lost {
            Ok(false) => {}
            // Nobody knows what they were.
            Ok(true) => {
                let somebody = "somebody (the kernel's messages were lost)";
                self.need_repair(ours, now, somebody, Touch::Changed);
            }
            Err(err) => error!(%err, "Cannot hear what others change in nf_tables"),
        }
        self.listener = Some(listener);
    }

    /// Takes in one message. Who it was, when it ends a transaction that changed what is ours.
    pub(super) fn read(&mut self, message: Message<'_>, ours: &impl Guarded) -> Option<(String, Touch)> {
        if message.kind != SUBSYSTEM << 8 | MessageType::NewGeneration as u16 {
            self.touch = self.touch.max(ours.touch(&message));
            return None;
        }
        let touch = std::mem::take(&mut self.touch);
        (touch != Touch::Nothing).then(|| (hand(message.body()), touch))
    }

    fn need_repair(&mut self, ours: &impl Guarded, now: Instant, hand: &str, touch: Touch) {
        let table = ours.name();
        let program = hand.split(' ').next().unwrap_or_default();
        let rival = touch != Touch::Flushed && ours.is_rival(program);
        let waits = self.repairs.need(now, rival);
        let repair_in = self.repairs.due.map(|due| due.saturating_duration_since(now));
        warn!(%table, by = hand, ?repair_in, "the table was changed by another hand; programming it anew");
        if waits {
            error!(
                %table, by = hand,
                "another hand keeps changing the table, perhaps a second kube-proxy; it is programmed anew after \
                 growing pauses"
            );
        }
    }

    /// When to program all anew, if that has to be.
    pub(in crate::dataplane) fn repair_due(&self) -> Option<Instant> {
        self.repairs.due
    }

    /// Whether all has to be programmed anew now.
    pub(in crate::dataplane) fn take_repair(&mut self, now: Instant) -> bool {
        self.repairs.take(now)
    }
}

impl Guarded for Config {
    fn name(&self) -> &str {
        &self.table
    }

    /// Whether it is about one of our tables, whatever it says.
    fn touch(&self, message: &Message<'_>) -> Touch {
        let Some((head, rest)) = message.body().split_at_checked(HEADER) else {
            return Touch::Nothing;
        };
        let family = self.families.iter().any(|&family| nfproto(family) == head[0]);
        let mut names = attributes(rest).filter(|(kind, _)| *kind == NAME);
        match family && names.any(|(_, name)| text(name) == self.table.as_bytes()) {
            true => Touch::Changed,
            false => Touch::Nothing,
        }
    }
}

/// Who made a generation, by name and process id.
fn hand(body: &[u8]) -> String {
    let (mut name, mut id) = (String::from("?"), 0);
    for (kind, value) in attributes(body.get(HEADER..).unwrap_or_default()) {
        match (kind, value) {
            (NFTA_GEN_PROC_NAME, value) => name = String::from_utf8_lossy(text(value)).into_owned(),
            (NFTA_GEN_PROC_PID, &[a, b, c, d]) => id = u32::from_be_bytes([a, b, c, d]),
            _ => {}
        }
    }
    format!("{name} (process {id})")
}

/// A string without the zero at its end.
fn text(value: &[u8]) -> &[u8] {
    value.strip_suffix(&[0]).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::nftables::Chains;

    #[test]
    fn what_comes_rarely_is_answered_at_once_and_what_comes_again_and_again_after_growing_pauses() {
        let start = Instant::now();
        let mut repairs = Repairs::default();
        let (mut now, mut waits, mut told) = (start, Vec::new(), 0);
        for _ in 0..12 {
            told += u32::from(repairs.need(now, false));
            told += u32::from(repairs.need(now, false));
            let due = repairs.due.unwrap();
            assert!(!repairs.take(due - Duration::from_nanos(1)));
            waits.push((due - now).as_millis());
            now = due;
            assert!(repairs.take(now));
        }
        assert_eq!(waits, [0, 50, 50, 50, 50, 50, 50, 50, 1000, 2000, 4000, 8000]);
        assert_eq!(told, 1);
        now += QUIET;
        assert!(!repairs.need(now, false));
        assert_eq!(repairs.due, Some(now));
        assert!(repairs.take(now));
        assert!(repairs.need(now, true));
        assert_eq!(repairs.due, Some(now + FIRST));
    }
    #[test]
    fn who_writes_as_another_kube_proxy_would_is_a_rival_unless_it_took_everything() {
        let chains = Chains { families: Vec::new() };
        let waits = |program: &str, touch| {
            let (mut others, now) = (Others::default(), Instant::now());
            others.need_repair(&chains, now, &format!("{program} (process 7)"), touch);
            others.repair_due().unwrap() > now
        };
        // As the kernel cuts them.
        for program in [
            "iptables-nft-re",
            "ip6tables-nft-r",
            "iptables-restor",
            "ip6tables-resto",
        ] {
            assert!(waits(program, Touch::Changed), "{program}");
            assert!(!waits(program, Touch::Flushed), "{program}");
        }
        for program in ["nft", "iptables", "iptables-nft", "ip6tables-nft"] {
            assert!(!waits(program, Touch::Changed), "{program}");
        }
    }
}
