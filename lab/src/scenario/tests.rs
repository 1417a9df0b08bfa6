//! The reading of scenarios; playing them is tested by playing them.

use super::expectation::Expectation;
use super::file::{Ask, Scenario};
use super::{folder, object, plays};
use crate::net::Family;
use crate::probe::{Outcome, Protocol, RefusedBy};
use crate::serve::Answer;

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
  except-in: {ipvs: {y: timeout}}
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
    let ask = |family| {
        Scenario::read(SCENARIO, family).unwrap().steps[0]
            .ask
            .clone()
            .unwrap()
    };
    let tcp = |to: &str| Ask {
        protocol: Protocol::Tcp,
        to: to.parse().unwrap(),
    };
    assert_eq!(ask(Family::V4), tcp("10.96.0.7:80"));
    assert_eq!(ask(Family::V6), tcp("[fd00:10:96::7]:80"));
    let objects = object::objects(&Scenario::read(SCENARIO, Family::V6).unwrap().objects).unwrap();
    let names: Vec<_> = objects.iter().map(|object| object.key.to_string()).collect();
    assert_eq!(names, ["Service/default/web", "Pod/other/a"]);
    assert_eq!(objects[0].value["spec"]["clusterIP"], "fd00:10:96::7");
    assert_eq!(objects[1].value["status"]["podIP"], "10.244.2.11");
}

#[test]
fn a_mode_may_have_expectations_of_its_own() {
    let step = Scenario::read(SCENARIO, Family::V4).unwrap().steps.remove(0);
    let expected = |mode, place| step.expectations(mode)[place].to_string();
    assert_eq!(expected("nftables", "x"), "refused");
    assert_eq!(expected("nftables", "y"), "refused");
    assert_eq!(expected("ipvs", "x"), "refused");
    assert_eq!(expected("ipvs", "y"), "timeout");
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
        ("behaviour: A.\nservers: [d]\nsteps: []", "no pod d"),
        ("behaviour: $(nobody) A.\nsteps: []", "$(nobody)"),
        ("behaviour: $(a\nsteps: []", "$( without )"),
        ("behaviour: A.\nfamilies: [IPv5]\nsteps: []", "IPv5"),
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
