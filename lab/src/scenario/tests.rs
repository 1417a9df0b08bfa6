//! The reading of scenarios; playing them is tested by playing them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::ask::{Ask, Question};
use super::expectation::Expectation;
use super::file::Scenario;
use super::names::Names;
use super::{Mode, Player, folder, object, plays};
use crate::net::{Family, Lab, Topology};
use crate::probe::{Outcome, Protocol, RefusedBy};
use crate::sctp::has_sockets;
use crate::serve::{Answer, Server};

const SCENARIO: &str = "
behaviour: A sentence.
objects: |
  kind: Service
  metadata: {name: web}
  spec: {clusterIP: $(cluster-ip-7)}
  ---
  kind: Pod
  metadata: {name: a, namespace: other}
  status: {podIP: $(c/IPv4)}
steps:
- ask: tcp $(cluster-ip-7):80
  expect: {x y: refused}
  except-in: {iptables: {y: timeout}}
";

#[test]
fn every_scenario_of_the_repository_can_be_read_in_every_family() {
    let plays = plays(folder(), None).unwrap();
    assert!(!plays.is_empty());
    for play in plays {
        let text = std::fs::read_to_string(&play.path).unwrap();
        let scenario =
            Scenario::read(&text, play.family).unwrap_or_else(|error| panic!("{}: {error:#}", play.name()));
        object::objects(&scenario.objects).unwrap_or_else(|error| panic!("{}: {error:#}", play.name()));
        assert!(
            play.behaviour.trim().ends_with('.'),
            "{} states no sentence",
            play.name()
        );
    }
}

#[test]
fn placeholders_become_addresses_of_the_family_in_play() {
    let ask = |family| Scenario::read(SCENARIO, family).unwrap().steps[0].ask[0].clone();
    let tcp = |to: &str| Ask {
        protocol: Protocol::Tcp,
        to: to.parse().unwrap(),
    };
    assert_eq!(ask(Family::V4), tcp("10.96.0.7:80"));
    assert_eq!(ask(Family::V6), tcp("[fd00:10:96::7]:80"));
    let objects = object::objects(&Scenario::read(SCENARIO, Family::V6).unwrap().objects).unwrap();
    let filled = |family| {
        let scenario = Scenario::outline(SCENARIO).unwrap();
        super::placeholder::value("c:8080", family, &scenario).unwrap()
    };
    assert_eq!(filled(Family::V4), "10.244.2.11:8080");
    assert_eq!(filled(Family::V6), "[fd00:10:244:2::11]:8080");
    let names: Vec<_> = objects.iter().map(|object| object.key.to_string()).collect();
    assert_eq!(names, ["Service/default/web", "Pod/other/a"]);
    assert_eq!(objects[0].value["spec"]["clusterIP"], "fd00:10:96::7");
    assert_eq!(objects[1].value["status"]["podIP"], "10.244.2.11");
}

#[test]
fn a_range_of_names_stands_for_all_of_them_wherever_pods_are_named() {
    let names = |text: &str| text.parse::<Names>().map(|names| names.to_string());
    assert_eq!(names("x p-9..11").unwrap(), "x p-9 p-10 p-11");
    for (wrong, reason) in [("p-9..8", "ends before"), ("p..8", "no range"), (" ", "missing")] {
        let error = format!("{:#}", names(wrong).unwrap_err());
        assert!(error.contains(reason), "{wrong:?} gave: {error}");
    }
    let text = "
behaviour: A.
pods: {p-1..3: 1, q-1..2: 2, x: 1}
servers: [p-1..3 q-2]
endpoints: {web: [p-1..3, {pod: q-1..2, ready: false}]}
steps:
- ask: [tcp $(p-3):80, udp $(q-2):80]
  expect: {x q-1..2: p-1..3}
";
    let scenario = Scenario::read(text, Family::V4).unwrap();
    let pods: Vec<_> = scenario.topology().pods;
    let named = |name: &str, node| (name.to_owned(), node);
    assert_eq!(pods[2..4], [named("p-3", 1), named("q-1", 2)]);
    assert_eq!(scenario.pod("x"), Some((1, 4)));
    assert_eq!(scenario.endpoints["web"][1].pods().to_string(), "q-1 q-2");
    let step = &scenario.steps[0];
    assert_eq!(step.ask[0], "tcp 10.244.1.13:80".parse().unwrap());
    assert_eq!(step.ask[1], "udp 10.244.2.12:80".parse().unwrap());
    let expectations = step.expectations(Mode::Nftables);
    let expected = expectations
        .iter()
        .map(|(place, expected)| format!("{place}: {expected}"));
    let expected: Vec<_> = expected.collect();
    assert_eq!(
        expected,
        ["q-1: p-1 p-2 p-3", "q-2: p-1 p-2 p-3", "x: p-1 p-2 p-3"]
    );
}

#[test]
fn a_mode_may_have_expectations_of_its_own() {
    let step = Scenario::read(SCENARIO, Family::V4).unwrap().steps.remove(0);
    let expected = |mode, place| step.expectations(mode)[place].to_string();
    assert_eq!(expected(Mode::Nftables, "x"), "refused");
    assert_eq!(expected(Mode::Nftables, "y"), "refused");
    for mode in [Mode::Iptables, Mode::IptablesLegacy] {
        assert_eq!(expected(mode, "x"), "refused");
        assert_eq!(expected(mode, "y"), "timeout");
    }
}

#[test]
fn a_scenario_is_played_in_the_modes_and_families_that_it_names() {
    let plays = |keys: &str| {
        let scenario = Scenario::outline(&format!("behaviour: A.\nsteps: []\n{keys}")).unwrap();
        let plays = scenario.plays();
        let plays = plays.map(|(mode, family)| format!("{mode}::{}", family.pick("ipv4", "ipv6")));
        plays.collect::<Vec<_>>().join(" ")
    };
    let usual = "nftables::ipv4 nftables::ipv6 iptables::ipv4 iptables::ipv6 ipvs::ipv4 ipvs::ipv6";
    assert_eq!(plays(""), usual);
    assert_eq!(
        plays("also-in: [iptables-legacy]"),
        usual.replace(
            "ipvs::ipv4",
            "iptables-legacy::ipv4 iptables-legacy::ipv6 ipvs::ipv4"
        )
    );
    assert_eq!(
        plays("modes: [\"iptables::ipv4\", nftables]\nfamilies: [IPv4]"),
        "nftables::ipv4 iptables::ipv4"
    );
    assert_eq!(plays("modes: [\"iptables::ipv6\"]"), "iptables::ipv6");
}

#[test]
fn what_no_rule_takes_comes_back_as_each_protocol_has_it() {
    let routed_on: Expectation = "routed on".parse().unwrap();
    for (protocol, expected) in [
        (Protocol::Tcp, "refused by host"),
        (Protocol::Udp, "refused by rule"),
        (
            Protocol::Sctp,
            if has_sockets() {
                "refused by host"
            } else {
                "unreachable"
            },
        ),
        (Protocol::Ping, "pong"),
    ] {
        assert_eq!(routed_on.by(protocol), expected.parse().unwrap());
    }
    let refused: Expectation = "refused".parse().unwrap();
    assert_eq!(refused.by(Protocol::Sctp), refused);
}

#[test]
fn what_is_no_scenario_is_refused_with_the_reason() {
    let cases = [
        ("steps: []", "behaviour"),
        ("behaviour: A.\nsteps: [{aks: tcp 1.2.3.4:5}]", "aks"),
        ("behaviour: A.\nsteps: [{ask: tcp 1.2.3.4}]", "port"),
        (
            "behaviour: A.\nsteps: [{ask: tcp 1.2.3.4:5}]",
            "ask without expect",
        ),
        ("behaviour: A.\nsteps: [{expect: {x: a}}]", "expect without ask"),
        (
            "behaviour: A.\nsteps: [{ask: [tcp 1.2.3.4:5, tcp 1.2.3.4]}]",
            "port",
        ),
        ("behaviour: A.\nservers: [a..b]\nsteps: []", "a..b is no range"),
        (
            "behaviour: A.\nsteps: [{steady: {f: {from: x, ask: udp 1.2.3.4:5, expect: refused}}}]",
            "expect in a steady flow",
        ),
        (
            "behaviour: A.\nsteps: [{hold: {f: {from: x, ask: udp 1.2.3.4:5, from-one-port: true}}}]",
            "from-one-port in a held one",
        ),
        ("behaviour: A.\nservers: [d]\nsteps: []", "no pod d"),
        ("behaviour: $(nobody) A.\nsteps: []", "$(nobody)"),
        ("behaviour: $(a\nsteps: []", "$( without )"),
        ("behaviour: A.\nfamilies: [IPv5]\nsteps: []", "IPv5"),
        ("behaviour: A.\nmodes: [nftable]\nsteps: []", "nftable is no mode"),
        (
            "behaviour: A.\nalso-in: [\"iptables::ipv5\"]\nsteps: []",
            "ipv5 is no family",
        ),
    ];
    for (text, reason) in cases {
        let error = format!("{:#}", Scenario::read(text, Family::V4).unwrap_err());
        assert!(error.contains(reason), "{text:?} gave: {error}");
    }
}

#[test]
fn an_expectation_admits_what_it_says_and_nothing_else() {
    let answer = |server: &str, port, source: &str| {
        Outcome::Ok(Answer {
            server: server.to_owned(),
            port,
            source: source.parse().unwrap(),
        })
    };
    let by_rule = Outcome::Refused(RefusedBy::Icmp);
    let cases = [
        ("a b", answer("a", 8080, "10.0.0.1:1"), true),
        ("a b", answer("c", 8080, "10.0.0.1:1"), false),
        ("a b", by_rule.clone(), false),
        ("a, on 8081", answer("a", 8080, "10.0.0.1:1"), false),
        ("a, seen as itself", answer("a", 8080, "10.0.0.1:1"), true),
        ("a, seen as itself", answer("a", 8080, "10.0.0.2:1"), false),
        ("a, seen as itself; b", answer("b", 8080, "10.0.0.2:1"), true),
        (
            "always one of a b, on 8080",
            answer("b", 8080, "10.0.0.2:1"),
            true,
        ),
        ("always one of a b", answer("c", 8080, "10.0.0.2:1"), false),
        (
            "evenly a b, seen as itself",
            answer("a", 8080, "10.0.0.1:1"),
            true,
        ),
        (
            "evenly a b, seen as itself",
            answer("a", 8080, "10.0.0.2:1"),
            false,
        ),
        ("refused", by_rule.clone(), true),
        ("refused by rule", by_rule.clone(), true),
        ("refused by host", by_rule, false),
        ("timeout", Outcome::Timeout, true),
        ("timeout", Outcome::Unreachable(String::new()), false),
    ];
    for (text, outcome, admitted) in cases {
        let expectation: Expectation = text.parse().unwrap();
        let result = expectation.admits(&outcome, |_| Ok("10.0.0.1".parse()?));
        assert_eq!(result.is_ok(), admitted, "{text} and {outcome}: {result:?}");
        assert_eq!(expectation.to_string(), text);
    }
}

/// Plays the scenario above with a program that is no kube-proxy.
fn play_with(program: &std::path::Path, steps: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (head, _) = SCENARIO.split_once("steps:").unwrap();
    std::fs::write(folder.path().join("some.yaml"), format!("{head}steps: [{steps}]")).unwrap();
    let play = plays(folder.path(), None).unwrap().remove(0);
    let player = Player {
        program: program.to_owned(),
        on_failure: None,
    };
    player.play(&play).unwrap_err().to_string()
}

#[test]
fn a_kube_proxy_that_ends_fails_the_scenario_at_once_and_its_log_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("kube-proxy");
    std::fs::write(&program, "#!/bin/sh\necho my last words; exit 1\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let failure = play_with(&program, "{ask: tcp $(cluster-ip-7):80, expect: {x: a}}");
    for part in [
        "not so: A sentence.",
        "step 1",
        "kube-proxy of node-1 has ended",
        "my last words",
    ] {
        assert!(failure.contains(part), "{part} is not in: {failure}");
    }
}

#[test]
fn an_unmet_expectation_names_what_should_be_and_what_came() {
    let lab = Lab::build(&Topology::with_pods(&[("c", 2), ("x", 1)])).unwrap();
    let _server = Server::start(lab.member("c").unwrap(), &[8080]).unwrap();
    let question = Question {
        pause: None,
        lab: &lab,
        ask: &Ask {
            protocol: Protocol::Tcp,
            to: "10.244.2.11:8080".parse().unwrap(),
        },
        changed: Instant::now().checked_sub(Duration::from_secs(60)).unwrap(),
        mode: Mode::Nftables,
        proxies: &BTreeMap::new(),
    };
    let put = |expected: &str| {
        question
            .put("x", &expected.parse().unwrap())
            .map_err(|error| format!("{error:#}"))
    };
    assert_eq!(put("c, seen as itself"), Ok(()));
    assert_eq!(put("always one of a c"), Ok(()));
    let cases = [
        (
            "a",
            "ok by c (port 8080), seen as 10.244.1.11; c should not answer",
        ),
        (
            "refused",
            "ok by c (port 8080), seen as 10.244.1.11; it should be: refused",
        ),
        ("c, seen as node-1", "it should be seen as node-1 (192.168.50.11)"),
        ("a c", "and none reached a"),
    ];
    for (expected, reason) in cases {
        let error = put(expected).unwrap_err();
        assert!(error.contains(reason), "{expected}: {error}");
        assert!(
            error.contains("x asks tcp 10.244.2.11:8080"),
            "{expected}: {error}"
        );
    }
}

#[test]
fn shares_that_are_not_equal_are_not_even() {
    let lab = Lab::build(&Topology::with_pods(&[("a", 1), ("b", 1), ("x", 1)])).unwrap();
    let _servers = ["a", "b"].map(|name| Server::start(lab.member(name).unwrap(), &[8080]).unwrap());
    let [a, b] = ["a", "b"].map(|name| lab.member(name).unwrap().ip(Family::V4));
    let put = |slots: &str| {
        let rules = format!(
            "add table ip test
             delete table ip test
             table ip test {{
               chain prerouting {{
                 type nat hook prerouting priority -100;
                 ip daddr 10.96.0.1 dnat to numgen random mod 5 map {{ {slots} }};
               }}
             }}"
        );
        let node = &lab.member("node-1").unwrap().namespace;
        node.run_with_input("nft", &["-f", "-"], &rules).unwrap();
        let question = Question {
            pause: None,
            lab: &lab,
            ask: &"udp 10.96.0.1:8080".parse().unwrap(),
            changed: Instant::now().checked_sub(Duration::from_secs(60)).unwrap(),
            mode: Mode::Nftables,
            proxies: &BTreeMap::new(),
        };
        let put = question.put("x", &"evenly a b, seen as itself".parse().unwrap());
        put.map_err(|error| format!("{error:#}"))
    };
    let error = put(&format!("0 : {a}, 1 : {a}, 2 : {a}, 3 : {b}, 4 : {b}")).unwrap_err();
    assert!(error.contains("no equal shares"), "{error}");
}
