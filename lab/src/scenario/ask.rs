//! One question: the same request from several places, and whether what comes back is what should.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::expectation::Expectation;
use super::file::Ask;
use super::play::running;
use crate::net::{Family, Lab, Member};
use crate::probe::{Outcome, Request, requests_until};
use crate::proxy::KubeProxy;

/// How long a change may take to be in force.
const SETTLING: Duration = Duration::from_secs(10);
/// Pause between tries while it settles.
const PAUSE: Duration = Duration::from_millis(5);
/// Timeout of requests while it settles, and of those that should go unanswered.
const SHORT: Duration = Duration::from_millis(500);
/// Timeout of requests that should be answered: more than two retransmissions of a lost SYN.
const LONG: Duration = Duration::from_secs(4);

/// Requests for each expected server before the outcome counts. When one server more would still be in use, all
/// of N servers' requests would miss it with a chance of (N/(N+1))^24N: one in some million.
const CONCLUSIVE: usize = 24;
/// The same for the second time.
const CONFIRMING: usize = 4;

/// A question to a lab.
pub(super) struct Question<'a> {
    pub(super) lab: &'a Lab,
    pub(super) family: Family,
    pub(super) ask: &'a Ask,
    /// When something was last changed.
    pub(super) changed: Instant,
    /// Who has to answer for it.
    pub(super) proxies: &'a BTreeMap<String, KubeProxy>,
}

impl Question<'_> {
    /// Asks from one place until the expectation is met, then once more.
    ///
    /// # Errors
    /// When it is not met in time, or not the second time.
    pub(super) fn put(&self, place: &str, expected: &Expectation) -> Result<()> {
        let from = self.lab.member(place)?;
        loop {
            let tried = self.round(from, expected, CONCLUSIVE, SHORT);
            if tried.is_ok() {
                break;
            }
            running(self.proxies)?;
            if self.changed.elapsed() > SETTLING {
                return tried.context("ten seconds after the last change");
            }
            std::thread::sleep(PAUSE);
        }
        if matches!(expected, Expectation::Timeout) {
            // A second silence would prove little and cost as much again.
            return Ok(());
        }
        let again = self.round(from, expected, CONFIRMING, LONG);
        again.context("the expectation was met, but not the second time")
    }

    /// So many requests for each expected server, and as many more as it takes until each of them has answered
    /// (if each must); the first unexpected outcome ends it.
    fn round(&self, from: &Member, expected: &Expectation, each: usize, timeout: Duration) -> Result<()> {
        let servers = expected.servers();
        let least = (each * servers.len()).max(1);
        let most = least.max(CONCLUSIVE * servers.len());
        let request = Request {
            protocol: self.ask.protocol,
            to: self.ask.to,
            timeout,
        };
        let admits = |outcome: &Outcome| expected.admits(outcome, |name| self.seen_as(name, from));
        let sticks = matches!(expected, Expectation::AlwaysOneOf(_));
        let enough = |outcomes: &[Outcome]| {
            let bad = outcomes.last().is_some_and(|last| admits(last).is_err());
            let all = || sticks || servers.iter().all(|server| answered(outcomes, server));
            bad || outcomes.len() >= least && all()
        };
        let outcomes = requests_until(&from.namespace, request, most, enough)?;
        let what = || format!("{} asks {} {}", from.name, self.ask.protocol, self.ask.to);
        let last = outcomes.last().with_context(what)?;
        admits(last).map_err(|why| anyhow!("{}: {last}; {why:#}", what()))?;
        let (came, missing): (Vec<_>, Vec<_>) = servers
            .into_iter()
            .partition(|server| answered(&outcomes, server));
        if sticks {
            let came = came.join(" ");
            ensure!(
                !came.contains(' '),
                "{}: one should answer always, not {came}",
                what()
            );
        } else {
            let missing = missing.join(" ");
            ensure!(
                missing.is_empty(),
                "{}: {most} requests, and none reached {missing}",
                what()
            );
        }
        Ok(())
    }

    /// The address behind the words after "seen as".
    fn seen_as(&self, name: &str, from: &Member) -> Result<std::net::IpAddr> {
        let member = match name {
            "itself" => from,
            "its node" => self.lab.node_of(from)?,
            name => self.lab.member(name)?,
        };
        Ok(member.ip(self.family))
    }
}

fn answered(outcomes: &[Outcome], server: &str) -> bool {
    outcomes
        .iter()
        .filter_map(Outcome::answer)
        .any(|answer| answer.server == server)
}
