//! Plays scenarios on the kernel of Debian's release (6.1 in Debian 12), emulated: those of the IPVS mode, which few
//! machines' own kernel has, those of the other modes that touch different parts of a kernel, and SCTP with real
//! associations. One test each, named as in `scenarios.rs`. And runs the unit tests there that need IPVS, by their names,
//! and what is no scenario (`in_ipvs_mode`): the program as whoever runs it sees it, in that mode. They need root, and
//! what `tools/kernel` fetches, and fail without; the unit tests have to be built already, as `cargo test` without a
//! choice of programs does.
//!
//! An instruction costs twenty times as much there. So in the other modes each kind of rule, of map and of netlink
//! message is met once; the scenarios by themselves are proved where they run fast.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "program/bytes.rs"]
mod bytes;
#[path = "program/exposition.rs"]
mod exposition;
#[path = "other_kernel/in_ipvs_mode.rs"]
mod in_ipvs_mode;
#[path = "program/machine.rs"]
#[expect(dead_code, reason = "the tests of the program need more of it")]
mod machine;
#[path = "program/metrics.rs"]
mod metrics;
#[path = "program/running.rs"]
#[expect(dead_code, reason = "the tests of the program need more of it")]
mod running;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread;

use lab::kernel::{Programs, Round, init, round, unit_tests};
use lab::scenario::{folder, plays};
use libtest_mimic::{Arguments, Failed, Trial};

const KUBE_PROXY: &str = env!("CARGO_BIN_EXE_kube-proxy");
/// The first argument of this program inside.
const INSIDE: &str = "inside-a-guest";
/// How the names of the unit tests begin that are run there, and a file that they are in.
const UNIT_TESTS: (&str, &str) = (
    "dataplane::ipvs::tests::kernel",
    "src/dataplane/ipvs/tests/kernel.rs",
);

/// What is played: scenario, modes, and families, of which different ones are chosen where the rules do not differ.
/// The comments say for what scenarios are here.
const CHOSEN: &[(&str, &str)] = &[
    // Random choice, or by turns; masquerading; hairpins.
    (
        "cluster-ip-tcp",
        "nftables::ipv4 iptables::ipv6 iptables-legacy::ipv4 ipvs::ipv4",
    ),
    ("cluster-ip-udp", "ipvs::ipv6"),
    // Real associations through NAT, and conntrack's opinion of them.
    ("cluster-ip-sctp", "nftables::ipv6 iptables::ipv4 ipvs::ipv6"),
    ("node-port-sctp", "ipvs::ipv4"),
    // IPVS: schedulers, weights, flags.
    ("ipvs-scheduler", "ipvs::ipv6"),
    ("ipvs-schedulers", "ipvs::ipv4"),
    ("ipvs-weights", "ipvs::ipv6"),
    // Memory of clients: dynamic maps with timeouts; xt_recent; persistence.
    ("session-affinity", "nftables::ipv4 iptables::ipv6 ipvs::ipv6"),
    // Packets while a transaction is not finished yet: the guest has one processor, which it gives to others meanwhile.
    ("session-affinity-restart", "nftables::ipv6 ipvs::ipv4"),
    // Intervals in concatenations.
    ("source-ranges", "nftables::ipv6 ipvs::ipv4"),
    ("source-ranges-changed", "ipvs::ipv6"),
    ("source-ranges-node", "ipvs::ipv4"),
    // Marks, packet priorities, second lookups; in IPVS mode, who does not go by its list.
    (
        "external-traffic-policy-local",
        "nftables::ipv4 iptables::ipv6 ipvs::ipv4",
    ),
    ("external-traffic-policy-local-no-local-endpoints", "ipvs::ipv6"),
    ("internal-traffic-policy-local-no-local-endpoints", "ipvs::ipv4"),
    ("both-traffic-policies-local", "ipvs::ipv6"),
    ("traffic-policies-changed", "ipvs::ipv4"),
    ("terminating-endpoints", "ipvs::ipv6"),
    ("topology-hints-zones", "ipvs::ipv6"),
    (
        "terminating-endpoints-external-traffic-policy-local",
        "ipvs::ipv4",
    ),
    // Interval sets that change, with elements that overlap.
    ("service-cidr-changed", "nftables::ipv4 ipvs::ipv6"),
    // Addresses that the kernel reports; all protocols; in IPVS mode, those of kube-ipvs0 are not among them.
    ("node-port-addresses-at-run-time", "ipvs::ipv4"),
    ("node-port", "ipvs::ipv6"),
    ("node-port-primary-address", "ipvs::ipv4"),
    ("node-port-changed", "ipvs::ipv4"),
    ("external-ip", "ipvs::ipv6"),
    ("external-ip-shared", "ipvs::ipv4"),
    ("load-balancer-ip", "ipvs::ipv4"),
    ("type-changed", "ipvs::ipv6"),
    ("dual-stack", "ipvs::ipv4"),
    ("unallocated-cluster-ip", "ipvs::ipv4"),
    // The loopback address: rewriting before conntrack; route_localnet.
    ("node-port-localhost", "nftables::ipv4 iptables::ipv4"),
    ("node-port-localhost-ipv6", "iptables::ipv6"),
    // Refusals by every protocol; verdict maps without a verdict; what IPVS did not take.
    ("no-endpoints", "nftables::ipv4 iptables::ipv6 ipvs::ipv4"),
    ("undefined-port", "ipvs::ipv6"),
    ("cluster-ip-host-ports", "ipvs::ipv4"),
    ("ports-changed", "ipvs::ipv6"),
    // Names of interfaces, with and without wildcards.
    ("detect-local-interface-prefix", "ipvs::ipv4"),
    ("detect-local-nothing", "ipvs::ipv6"),
    // Conntrack's netlink: filtered dumps, deletions by id. Connections of IPVS, which conntrack shares.
    ("udp-endpoint-gone", "nftables::ipv4 iptables::ipv6 ipvs::ipv4"),
    ("udp-endpoint-terminates", "ipvs::ipv6"),
    ("udp-service-deleted", "ipvs::ipv4"),
    ("established-connections", "ipvs::ipv6"),
    ("udp-long-lived-flows", "ipvs::ipv4"),
    ("rolling-update", "ipvs::ipv4"),
    // Virtual servers and addresses that another hand changes.
    ("drift-ipvs", "ipvs::ipv6"),
    // Rules that replace rules in one transaction, ours and upstream's; virtual servers that are taken over.
    ("restart", "nftables::ipv6 ipvs::ipv4"),
    ("takeover-from-upstream", "nftables::ipv4"),
    ("takeover-from-upstream-ipvs", "ipvs::ipv4"),
    ("mode-changed-ipvs", "ipvs::ipv6"),
    ("mode-changed-from-ipvs", "ipvs::ipv4"),
    ("mode-changed-ipvs-legacy", "iptables-legacy::ipv4"),
];

fn main() -> ExitCode {
    init::enter();
    let given: Vec<_> = std::env::args().skip(1).collect();
    if let Some((first, others)) = given.split_first()
        && first == INSIDE
    {
        return round::play(others, Path::new(KUBE_PROXY), in_ipvs_mode::ALL).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        });
    }
    let arguments = Arguments::from_args();
    let known: HashSet<String> = match plays(folder(), None) {
        Ok(plays) => {
            let others = in_ipvs_mode::ALL.iter().map(|(name, _)| (*name).to_owned());
            plays.iter().map(|play| play.name()).chain(others).collect()
        }
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let tests = Tests::find(known);
    let selected = tests.all().filter(|name| selects(&arguments, name));
    let selected: Vec<_> = selected
        .filter(|name| tests.problem(name).is_none())
        .cloned()
        .collect();
    // Without any among them, they need not be in the guests.
    let has_units = selected.iter().any(|name| tests.units.contains(name));
    let programs = Programs {
        kube_proxy: KUBE_PROXY.into(),
        unit_tests: tests.program.clone().ok().filter(|_| has_units),
    };
    let round = Arc::new((selected, programs));
    let trial = |name: &String| {
        let (name, problem, round) = (name.clone(), tests.problem(name), Arc::clone(&round));
        Trial::test(name.clone(), move || {
            if let Some(problem) = problem {
                return Err(Failed::from(problem));
            }
            let result = match round_of(&round.0, &round.1) {
                Ok(round) => round.result(&name),
                Err(error) => Err(error.clone()),
            };
            result.map_err(Failed::from)
        })
    };
    let trials = tests.all().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What there is to test.
struct Tests {
    plays: Vec<String>,
    /// The names of plays that exist.
    known: HashSet<String>,
    units: Vec<String>,
    /// The program of the unit tests, or why there is none.
    program: Result<PathBuf, String>,
}

impl Tests {
    fn find(known: HashSet<String>) -> Self {
        let (prefix, source) = UNIT_TESTS;
        let found = unit_tests::find("kube_proxy", source)
            .and_then(|program| Ok((unit_tests::list(&program, prefix)?, program)));
        let (units, program) = match found {
            Ok((units, program)) => (units, Ok(program)),
            // So that somebody is told.
            Err(error) => (vec![prefix.to_owned()], Err(format!("{error:#}"))),
        };
        Self {
            plays: chosen(),
            known,
            units,
            program,
        }
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.plays.iter().chain(&self.units)
    }

    /// Why a test cannot be run.
    fn problem(&self, name: &String) -> Option<String> {
        if self.units.contains(name) {
            return self.program.clone().err();
        }
        let is_known = self.known.contains(name);
        (!is_known).then(|| "there is no play of this name in lab/scenarios".to_owned())
    }
}

/// The guests, which all tests share. Booted when the first test wants a result: a list of the tests needs none.
fn round_of(names: &[String], programs: &Programs) -> &'static Result<Round, String> {
    static ROUND: OnceLock<Result<Round, String>> = OnceLock::new();
    ROUND.get_or_init(|| {
        let guests = thread::available_parallelism().map_or(1, usize::from).min(2);
        let round = Round::start(names, guests, programs, INSIDE);
        round.map_err(|error| format!("{error:#}"))
    })
}

/// The names of all chosen plays, and of what else is tested there.
fn chosen() -> Vec<String> {
    let plays = CHOSEN.iter().flat_map(|(file, modes)| {
        let modes = modes.split(' ');
        modes.map(move |mode| format!("{file}::{mode}"))
    });
    let others = in_ipvs_mode::ALL.iter().map(|(name, _)| (*name).to_owned());
    plays.chain(others).collect()
}

/// Whether the command line selects a test, as libtest-mimic will judge it.
fn selects(arguments: &Arguments, name: &str) -> bool {
    let matches = |text: &String| {
        if arguments.exact {
            name == text
        } else {
            name.contains(text.as_str())
        }
    };
    arguments.filter.as_ref().is_none_or(matches) && !arguments.skip.iter().any(matches)
}
