//! Leftovers of upstream's, beside rules of others that must not change by a single byte.

use std::sync::atomic::{AtomicUsize, Ordering};

use lab::net::Namespace;

use super::*;

/// Rules of kubelet and of others, in the tables that kube-proxy uses, too.
const OTHERS: &str = "\
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:OTHERS - [0:0]
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A INPUT -p tcp -m comment --comment \"not -j KUBE-SERVICES, though it says so\" -m tcp --dport 22 -j ACCEPT
-A FORWARD -j OTHERS
-A OTHERS -m comment --comment \"kubernetes service portals\" -j ACCEPT
COMMIT
*nat
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-DROP - [0:0]
:PORTMAP - [0:0]
-A PREROUTING -p tcp -m tcp --dport 8443 -j PORTMAP
-A OUTPUT -p tcp -m tcp --dport 8443 -j PORTMAP
-A POSTROUTING -s ADDRESS -j ACCEPT
-A PORTMAP -j MARK --set-xmark 0x2000/0x2000
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
COMMIT
";

/// What upstream leaves in iptables mode (the beginning of each kind of chain) and in IPVS mode.
const UPSTREAM: &str = "\
*mangle
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-IPVS-FILTER - [0:0]
:KUBE-IPVS-OUT-FILTER - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-SOURCE-RANGES-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A INPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-FILTER
-A INPUT -m comment --comment \"kubernetes health check rules\" -j KUBE-NODE-PORT
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-OUT-FILTER
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-SERVICES -d ADDRESS -p tcp -m comment --comment \"ns/none has no endpoints\" -m tcp --dport 81 -j REJECT
-A KUBE-PROXY-FIREWALL -j KUBE-SOURCE-RANGES-FIREWALL
COMMIT
*nat
:KUBE-EXT-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-FW-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SVL-AAAAAAAAAAAAAAAA - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-SERVICES -d ADDRESS -p tcp -m comment --comment \"ns/web cluster IP\" -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-AAAAAAAAAAAAAAAA
-A KUBE-EXT-AAAAAAAAAAAAAAAA -j KUBE-MARK-MASQ
-A KUBE-EXT-AAAAAAAAAAAAAAAA -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-FW-AAAAAAAAAAAAAAAA -j KUBE-EXT-AAAAAAAAAAAAAAAA
-A KUBE-SVC-AAAAAAAAAAAAAAAA -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SVL-AAAAAAAAAAAAAAAA -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m tcp -j DNAT --to-destination [ADDRESS]:8080
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE
COMMIT
";

/// A namespace whose kubelet and others use one of the variants of iptables.
struct Node {
    namespace: Namespace,
    variant: &'static str,
}

impl Node {
    fn new(variant: &'static str) -> Self {
        let namespace = Namespace::create("leftovers").unwrap();
        let node = Self { namespace, variant };
        node.restore(OTHERS);
        node.nft("add table inet others; add table ip kube-proxy-of-mine; add chain ip kube-proxy-of-mine KUBE-SERVICES");
        node
    }

    fn nft(&self, text: &str) {
        let text = text.replace("; ", "\n");
        self.namespace.run_with_input("nft", &["-f", "-"], &text).unwrap();
    }

    /// Adds rules in both families.
    fn restore(&self, text: &str) {
        for (program, address) in [("iptables", "10.96.0.1"), ("ip6tables", "fd00::1")] {
            let program = format!("{program}-{}-restore", self.variant);
            let text = text.replace(
                "[ADDRESS]",
                if address.contains(':') {
                    "[fd00::1]"
                } else {
                    address
                },
            );
            let text = text.replace("ADDRESS", address);
            self.namespace
                .run_with_input(&program, &["-w", "120", "--noflush"], &text)
                .unwrap();
        }
    }

    fn iptables(&self, args: &str) {
        let args: Vec<&str> = ["-w", "120"].into_iter().chain(args.split(' ')).collect();
        for program in ["iptables", "ip6tables"] {
            let program = format!("{program}-{}", self.variant);
            self.namespace.run(&program, &args).unwrap();
        }
    }

    /// All rules with their counters.
    fn rules(&self) -> String {
        let mut rules = String::new();
        let mut add = |program: &str, args: &[&str]| {
            let shown = self.namespace.run(program, args).unwrap();
            let lines = shown.lines().filter(|line| !line.starts_with('#'));
            lines.for_each(|line| rules += &format!("{line}\n"));
        };
        add("nft", &["list", "ruleset"]);
        for program in ["iptables", "ip6tables"] {
            add(&format!("{program}-{}-save", self.variant), &["-c"]);
        }
        rules
    }

    fn remove_all(&self) -> Result<(), anyhow::Error> {
        self.namespace.enter(remove_all).unwrap()
    }
}

/// The same rules, line by line.
fn assert_same(now: &str, before: &str, variant: &str) {
    for (now, before) in now.lines().zip(before.lines()) {
        assert_eq!(now, before, "{variant}");
    }
    assert_eq!(now.len(), before.len(), "{variant}");
}

const VARIANTS: [&str; 2] = ["nft", "legacy"];

#[test]
fn everything_of_kube_proxys_goes_and_nothing_of_others() {
    for variant in VARIANTS {
        let node = Node::new(variant);
        let before = node.rules();
        node.remove_all().unwrap();
        assert_same(&node.rules(), &before, variant);
        node.restore(UPSTREAM);
        node.nft("add table ip kube-proxy; add table ip6 kube-proxy; add chain ip kube-proxy services");
        assert!(node.rules().contains("KUBE-SVC-AAAAAAAAAAAAAAAA"));
        node.remove_all().unwrap();
        assert_same(&node.rules(), &before, variant);
    }
}

#[test]
fn what_a_mode_lives_in_stays_when_it_removes_what_others_left() {
    for (mode, tables, chains) in [(Mode::Nftables, true, false), (Mode::Iptables, false, true)] {
        for variant in VARIANTS {
            let node = Node::new(variant);
            node.restore(UPSTREAM);
            node.nft("add table ip kube-proxy; add table ip6 kube-proxy");
            node.namespace.enter(|| remove_others(mode, [None; 2])).unwrap();
            let rules = node.rules();
            let at = |what: &str| rules.matches(what).count();
            assert_eq!(
                at("table ip kube-proxy {") + at("table ip6 kube-proxy {"),
                2 * usize::from(tables),
                "{mode} {variant}"
            );
            assert_eq!(
                rules.contains("KUBE-SVC-AAAAAAAAAAAAAAAA"),
                chains,
                "{mode} {variant}"
            );
        }
    }
}

#[test]
fn a_chain_that_rules_of_others_lead_to_stays() {
    for variant in VARIANTS {
        let node = Node::new(variant);
        node.restore(UPSTREAM);
        // As CNI plugins do it that map ports of the host, and as nobody should.
        node.iptables("-t nat -A PORTMAP -j KUBE-MARK-MASQ");
        node.iptables("-t filter -A OTHERS -j KUBE-FORWARD");
        node.remove_all().unwrap();
        let rules = node.rules();
        let lines = |words: &str| rules.lines().filter(|line| line.contains(words)).count();
        for (words, expected) in [
            ("-A PORTMAP -j KUBE-MARK-MASQ", 2),
            ("-A OTHERS -j KUBE-FORWARD", 2),
            // Who leads there wants packets marked.
            ("-A KUBE-MARK-MASQ -j MARK", 2),
            (":KUBE-FORWARD ", 2),
            ("-A KUBE-FORWARD ", 0),
            ("-A FORWARD -m comment", 0),
            (":KUBE-S", 0),
            (":KUBE-POSTROUTING", 0),
        ] {
            assert_eq!(lines(words), expected, "{variant}: {words}\n{rules}");
        }
        // They do not keep it from being done.
        node.remove_all().unwrap();
        assert_same(&node.rules(), &rules, variant);
    }
}

#[test]
fn chains_that_are_many_go_in_parts() {
    for variant in VARIANTS {
        let node = Node::new(variant);
        let before = node.rules();
        let mut text = String::from("*nat\n");
        for number in 0..5000 {
            text += &format!(":KUBE-SEP-{number:016} - [0:0]\n-A KUBE-SEP-{number:016} -j KUBE-MARK-MASQ\n");
        }
        node.restore(UPSTREAM);
        node.restore(&format!("{text}COMMIT\n"));
        node.remove_all().unwrap();
        assert_same(&node.rules(), &before, variant);
    }
}

#[test]
fn without_programs_of_iptables_what_is_in_nf_tables_goes_and_what_is_not_is_named() {
    const NAME: &str = "dataplane::leftovers::tests::without_programs_of_iptables_what_is_in_nf_tables_goes_and_what_is_not_is_named";
    const WITHOUT: &str = "KUBE_PROXY_TEST_WITHOUT_PROGRAMS";
    if std::env::var_os(WITHOUT).is_some() {
        match remove_all() {
            Ok(()) => eprintln!("nothing is left"),
            Err(error) => eprintln!("{error:#}"),
        }
        return;
    }
    for variant in VARIANTS {
        let node = Node::new(variant);
        let run = || {
            let mut command = node.namespace.command(std::env::current_exe().unwrap());
            command
                .args(["--exact", NAME, "--nocapture"])
                .env(WITHOUT, "1")
                .env("PATH", "/nowhere");
            String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned()
        };
        let before = node.rules();
        let said = run();
        assert!(said.contains("nothing is left"), "{variant}: {said}");
        node.restore(UPSTREAM);
        let said = run();
        if variant == "nft" {
            assert!(said.contains("nothing is left"), "{said}");
            assert_same(&node.rules(), &before, variant);
        } else {
            assert!(
                said.contains(
                    "kube-proxy's chains of iptables in the legacy tables could not be removed: the tables filter, \
                     nat, mangle of IPv4 hold rules of kube-proxy's"
                ),
                "{said}"
            );
        }
    }
}

#[test]
fn the_iptables_mode_removes_what_it_left_in_the_tables_of_the_other_variant() {
    for variant in VARIANTS {
        let node = Node::new(variant);
        node.restore(UPSTREAM);
        for (lives, stays) in [(variant == "legacy", true), (variant != "legacy", false)] {
            let lives = if lives { Variant::Legacy } else { Variant::Nft };
            let remove = || remove_others(Mode::Iptables, [Some(lives); 2]);
            node.namespace.enter(remove).unwrap();
            let is_there = node.rules().contains("KUBE-SVC-AAAAAAAAAAAAAAAA");
            assert_eq!(is_there, stays, "{variant}: {lives:?}");
        }
    }
}

#[test]
fn what_resists_is_tried_again_with_growing_pauses_and_what_is_hopeless_is_not() {
    static TRIED: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
    fn refused() -> LeftoverError {
        LeftoverError::Refused(CommitError::Refused {
            tried: "remove".to_owned(),
            reason: "the lock is held".to_owned(),
        })
    }
    let cleaners = [
        Cleaner {
            what: "what resists for a while",
            used_by: &[],
            remove: |_| match TRIED[0].fetch_add(1, Ordering::Relaxed) {
                0..4 => Err(refused()),
                _ => Ok(()),
            },
        },
        Cleaner {
            what: "what no program here can remove",
            used_by: &[Mode::Iptables],
            remove: |_| {
                TRIED[1].fetch_add(1, Ordering::Relaxed);
                Err(LeftoverError::NoProgram {
                    family: Family::V4,
                    tables: vec!["nat"],
                })
            },
        },
        Cleaner {
            what: "what is in use",
            used_by: &[Mode::Nftables],
            remove: |_| {
                TRIED[2].fetch_add(1, Ordering::Relaxed);
                Ok(())
            },
        },
    ];
    let mut pauses = Vec::new();
    persist(&cleaners, Mode::Nftables, [None; 2], |pause| {
        pauses.push(pause.as_secs());
    });
    assert_eq!(pauses, [1, 2, 4, 8]);
    let tried = TRIED.each_ref().map(|tried| tried.load(Ordering::Relaxed));
    assert_eq!(tried, [5, 1, 0]);
}
