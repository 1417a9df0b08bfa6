//! One question: a request from some place, and whether what comes back is what should.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Deserializer};

use super::expectation::Expectation;
use super::mode::Mode;
use super::play::running;
use crate::kernel::init;
use crate::net::{Family, Lab, Member};
use crate::probe::{Outcome, Protocol, Request, Shares, Uniformity, request, requests_until};
use crate::proxy::KubeProxy;

/// How long a change may take to be in force.
pub(super) const SETTLING: Duration = Duration::from_secs(10);
/// Pause between tries while it settles.
pub(super) const PAUSE: Duration = Duration::from_millis(5);
/// Timeout of requests while it settles, and of those that should go unanswered.
pub(super) const SHORT: Duration = Duration::from_millis(500);
/// Timeout of requests that should be answered: more than two retransmissions of a lost SYN.
const LONG: Duration = Duration::from_secs(4);

/// Requests for each expected server until one that did not answer is missing. That none of 24N comes to one of N
/// servers has a chance of (1-1/N)^24N: one in many million.
const PATIENT: usize = 24;
/// Requests from which shares are judged, here and in a guest; [`Uniformity`] says what they show.
const SAMPLE: usize = 2000;
const SAMPLE_INSIDE: usize = 1000;

/// Requests that come far apart: to show that one server answers them all, and at most until each of some did.
/// When each of three is as likely as the others, forty miss one with a chance of one in some million.
const PACED_STICKING: usize = 4;
const PACED: usize = 40;

/// Requests before the outcome counts, of N servers. When one server more is still in use, all of them miss
/// it with a chance of (N/(N+1))^(14N+6), one in a million: a proxy that takes its time is asked hundreds of times.
fn conclusive(servers: usize) -> usize {
    14 * servers + 6
}

/// Requests for each expected server the second time.
fn confirming(servers: usize) -> usize {
    4 * servers
}

/// A request without a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// How.
    pub protocol: Protocol,
    /// Whom.
    pub to: SocketAddr,
}

impl FromStr for Ask {
    type Err = anyhow::Error;

    /// `PROTOCOL ADDRESS:PORT`, or `ping ADDRESS`.
    fn from_str(text: &str) -> Result<Self> {
        let (protocol, to) = text
            .split_once(' ')
            .context("a request is PROTOCOL ADDRESS:PORT")?;
        if protocol == "ping" {
            return Ok(Self {
                protocol: Protocol::Ping,
                to: (to.parse::<IpAddr>()?, 0).into(),
            });
        }
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|p| p.to_string() == protocol);
        // The last colon is the port's, so that IPv6 addresses need no brackets.
        let (ip, port) = to.rsplit_once(':').context("a port is missing")?;
        Ok(Self {
            protocol: protocol.context("the protocol is tcp, udp, sctp or ping")?,
            to: (ip.parse::<IpAddr>()?, port.parse()?).into(),
        })
    }
}

impl<'de> Deserialize<'de> for Ask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|error| serde::de::Error::custom(format!("{text}: {error:#}")))
    }
}

/// A question to a lab.
pub(super) struct Question<'a> {
    pub(super) lab: &'a Lab,
    pub(super) ask: &'a Ask,
    /// The requests come this far apart.
    pub(super) pause: Option<Duration>,
    /// When something was last changed.
    pub(super) changed: Instant,
    /// How it is answered.
    pub(super) mode: Mode,
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
        let expected = &expected.by(self.ask.protocol);
        if let Some(pause) = self.pause {
            return self.paced(from, expected, pause);
        }
        // A sample is conclusive by itself.
        let evenly = matches!(expected, Expectation::Evenly(_));
        let least = if evenly { confirming } else { conclusive };
        loop {
            let tried = self.round(from, expected, least, SHORT);
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
        if evenly {
            return self.sample(from, expected);
        }
        let confirm = || self.round(from, expected, confirming, LONG);
        let mut again = confirm();
        // IPVS takes an endpoint's answer to a masqueraded connection for one to a request of that node's own, if that had
        // the port that masquerading chose at random. One in some thousand does not get through, and of whole rounds, three
        // in a row are a fault.
        for _ in 1..if self.mode == Mode::Ipvs { 3 } else { 1 } {
            if again.is_err() {
                again = confirm();
            }
        }
        again.context("the expectation was met, but not the second time")
    }

    /// Requests that come far apart, each of them as expected: a few if one server should answer all, else until
    /// each server has answered.
    fn paced(&self, from: &Member, expected: &Expectation, pause: Duration) -> Result<()> {
        let servers = expected.servers();
        let sticks = matches!(expected, Expectation::AlwaysOneOf(_));
        let mut came = BTreeSet::new();
        for number in 0..if sticks { PACED_STICKING } else { PACED } {
            if number > 0 {
                std::thread::sleep(pause);
            }
            let outcome = request(&from.namespace, self.request(LONG))?;
            let admitted = expected.admits(&outcome, |name| self.seen_as(name, from));
            admitted.map_err(|why| anyhow!("{}: {outcome}; {why:#}", self.what(from)))?;
            came.extend(outcome.answer().map(|answer| answer.server.clone()));
            if !sticks && came.len() == servers.len() {
                return Ok(());
            }
        }
        ensure!(
            sticks && came.len() <= 1,
            "{}: {PACED_STICKING} or {PACED} requests at a pause of {pause:?} reached {came:?}",
            self.what(from)
        );
        Ok(())
    }

    /// At least so many requests, and as many more as it takes until each of them has answered
    /// (if each must); the first unexpected outcome ends it.
    fn round(
        &self,
        from: &Member,
        expected: &Expectation,
        least: fn(usize) -> usize,
        timeout: Duration,
    ) -> Result<()> {
        let servers = expected.servers();
        // One refusal is like the other.
        let least = if servers.is_empty() {
            1
        } else {
            least(servers.len())
        };
        let most = PATIENT * servers.len().max(1);
        let request = self.request(timeout);
        let admits = |outcome: &Outcome| expected.admits(outcome, |name| self.seen_as(name, from));
        let sticks = matches!(expected, Expectation::AlwaysOneOf(_));
        let enough = |outcomes: &[Outcome]| {
            let bad = outcomes.last().is_some_and(|last| admits(last).is_err());
            let all = || sticks || servers.iter().all(|server| answered(outcomes, server));
            bad || outcomes.len() >= least && all()
        };
        let outcomes = requests_until(&from.namespace, request, most, enough)?;
        let what = || self.what(from);
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

    /// Very many requests: all of them as expected, and each server as likely as the others.
    fn sample(&self, from: &Member, expected: &Expectation) -> Result<()> {
        let admits = |outcome: &Outcome| expected.admits(outcome, |name| self.seen_as(name, from));
        let bad = |outcomes: &[Outcome]| outcomes.last().is_some_and(|last| admits(last).is_err());
        let sample = if init::is_inside() { SAMPLE_INSIDE } else { SAMPLE };
        let outcomes = requests_until(&from.namespace, self.request(LONG), sample, bad)?;
        let what = || self.what(from);
        let last = outcomes.last().with_context(what)?;
        admits(last).map_err(|why| anyhow!("{}: {last}; {why:#}", what()))?;
        let mut shares = Shares::default();
        outcomes.iter().for_each(|outcome| shares.count(outcome));
        let counts = expected.servers().into_iter();
        let counts: Vec<_> = counts
            .map(|server| shares.by_server.get(server).copied().unwrap_or_default())
            .collect();
        let uniformity = Uniformity::of(&counts);
        ensure!(
            uniformity.is_plausible(),
            "{}: these are no equal shares ({uniformity}): {shares}",
            what()
        );
        Ok(())
    }

    fn request(&self, timeout: Duration) -> Request {
        Request {
            protocol: self.ask.protocol,
            to: self.ask.to,
            timeout,
        }
    }

    fn what(&self, from: &Member) -> String {
        format!("{} asks {} {}", from.name, self.ask.protocol, self.ask.to)
    }

    fn seen_as(&self, name: &str, from: &Member) -> Result<IpAddr> {
        seen_as(self.lab, Family::of(self.ask.to.ip()), name, from)
    }
}

/// The address behind the words after "seen as", for who asks `from` there.
pub(super) fn seen_as(lab: &Lab, family: Family, name: &str, from: &Member) -> Result<IpAddr> {
    let member = match name {
        "itself" => from,
        "its node" => lab.node_of(from)?,
        name => lab.member(name)?,
    };
    Ok(member.ip(family))
}

fn answered(outcomes: &[Outcome], server: &str) -> bool {
    outcomes
        .iter()
        .filter_map(Outcome::answer)
        .any(|answer| answer.server == server)
}
