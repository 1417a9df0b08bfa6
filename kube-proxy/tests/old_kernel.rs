//! Plays some scenarios on the kernel of Debian's release (6.1 in Debian 12), emulated, and with SCTP associations that
//! are real. One test each, named as in `scenarios.rs`. They need root, and what `tools/kernel` fetches, and fail without.
//!
//! An instruction costs twenty times as much there, so each kind of rule, of map and of netlink message is met once, and
//! the scenarios by themselves are proved where they run fast.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread;

use lab::kernel::{Round, init, round};
use libtest_mimic::{Arguments, Failed, Trial};

const KUBE_PROXY: &str = env!("CARGO_BIN_EXE_kube-proxy");
/// The first argument of this program inside.
const INSIDE: &str = "inside-a-guest";

/// What is played: scenario, modes, and families, of which different ones are chosen where the rules do not differ.
/// The comments say for what a scenario is here.
const CHOSEN: &[(&str, &str)] = &[
    // Random choice; masquerading; hairpins.
    (
        "cluster-ip-tcp",
        "nftables::ipv4 iptables::ipv6 iptables-legacy::ipv4",
    ),
    // Real associations through NAT, and conntrack's opinion of them.
    ("cluster-ip-sctp", "nftables::ipv6 iptables::ipv4"),
    // Memory of clients: dynamic maps with timeouts; xt_recent.
    (
        "session-affinity",
        "nftables::ipv4 iptables::ipv6 iptables-legacy::ipv4",
    ),
    // What a predecessor remembered is read from the kernel.
    ("session-affinity-restart", "nftables::ipv6"),
    // Intervals in concatenations.
    (
        "source-ranges",
        "nftables::ipv6 iptables::ipv4 iptables-legacy::ipv6",
    ),
    // Marks, packet priorities, second lookups.
    ("external-traffic-policy-local", "nftables::ipv4 iptables::ipv6"),
    // Interval sets that change, with elements that overlap.
    ("service-cidr-changed", "nftables::ipv4"),
    // Addresses that the kernel reports; all protocols.
    ("node-port-addresses-at-run-time", "nftables::ipv6 iptables::ipv4"),
    // The loopback address: rewriting before conntrack; route_localnet.
    ("node-port-localhost", "nftables::ipv4 iptables::ipv4"),
    ("node-port-localhost-ipv6", "nftables::ipv6"),
    // Refusals by every protocol; verdict maps without a verdict.
    ("no-endpoints", "nftables::ipv4 iptables::ipv6"),
    ("undefined-port", "nftables::ipv6"),
    // Names of interfaces, with and without wildcards; physdev.
    ("detect-local-interface-prefix", "nftables::ipv4 iptables::ipv4"),
    // Conntrack's netlink: filtered dumps, deletions by id.
    ("udp-endpoint-gone", "nftables::ipv4 iptables::ipv6"),
    // Rules that replace rules in one transaction, ours and upstream's.
    ("restart", "nftables::ipv6 iptables-legacy::ipv4"),
    ("takeover-from-upstream", "nftables::ipv4"),
];

fn main() -> ExitCode {
    init::enter();
    let given: Vec<_> = std::env::args().skip(1).collect();
    if let Some((first, names)) = given.split_first()
        && first == INSIDE
    {
        return round::play(names, Path::new(KUBE_PROXY)).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        });
    }
    let arguments = Arguments::from_args();
    let names = chosen();
    let selected: Arc<[String]> = names
        .iter()
        .filter(|name| selects(&arguments, name))
        .cloned()
        .collect();
    let trial = |name: String| {
        let selected = Arc::clone(&selected);
        Trial::test(name.clone(), move || {
            let result = match round_of(&selected) {
                Ok(round) => round.result(&name),
                Err(error) => Err(error.clone()),
            };
            result.map_err(Failed::from)
        })
    };
    let trials = names.into_iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The guests, which all tests share. Booted when the first test wants a result: a list of the tests needs none.
fn round_of(names: &[String]) -> &'static Result<Round, String> {
    static ROUND: OnceLock<Result<Round, String>> = OnceLock::new();
    ROUND.get_or_init(|| {
        let guests = thread::available_parallelism().map_or(1, usize::from).min(2);
        let round = Round::start(names, guests, Path::new(KUBE_PROXY), INSIDE);
        round.map_err(|error| format!("{error:#}"))
    })
}

/// The names of all chosen plays.
fn chosen() -> Vec<String> {
    let plays = CHOSEN.iter().flat_map(|(file, modes)| {
        let modes = modes.split(' ');
        modes.map(move |mode| format!("{file}::{mode}"))
    });
    plays.collect()
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
