//! When the loop commits what.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use prometheus::IntCounterVec;

use super::*;
use crate::model::object::{EndpointSlice, ServiceCidr};
use crate::model::testing;
use crate::proxy::report::pause;

#[test]
fn nothing_is_committed_before_services_and_slices_have_delivered_their_first_state() {
    let running = Start::default().run();
    running.send([
        Change::ListDone(Kind::Node),
        Change::ListStart(Kind::Service),
        service("a", 80),
        Change::ListDone(Kind::Service),
    ]);
    running.send([Change::ListStart(Kind::EndpointSlice)]);
    assert!(running.is_quiet());
    running.send([Change::ListDone(Kind::EndpointSlice)]);
    assert_eq!(names(&running.commit()), ["a"]);
    assert!(running.is_quiet(), "once");
    running.end().unwrap();
}

#[test]
fn the_first_change_goes_at_once_and_those_that_come_meanwhile_go_together() {
    let (open, gate) = std_channel();
    let running = Start {
        gate: Some(gate),
        ..Start::default()
    }
    .run();
    running.begin(&[]);
    open.send(()).unwrap();
    running.send([service("a", 80)]);
    assert_eq!(names(&running.commit()), ["a"]);
    running.send([service("b", 81), service("c", 82), service("b", 83)]);
    open.send(()).unwrap();
    assert_eq!(names(&running.commit()), ["b", "c"]);
    open.send(()).unwrap();
    assert!(running.is_quiet());
    assert_eq!(
        running.metrics.service_changes.get(),
        8,
        "each change counts once a family"
    );
    assert_eq!(running.metrics.service_changes_pending.get(), 0);
    running.end().unwrap();
}

#[test]
fn a_failed_commit_is_tried_again_with_all_that_came_meanwhile() {
    let running = Start {
        answers: vec![
            Ok(CommitReport::default()),
            Err(refused("busy")),
            Err(refused("busy")),
        ],
        ..Start::default()
    }
    .run();
    running.begin(&[]);
    running.send([service("a", 80)]);
    assert_eq!(names(&running.commit()), ["a"]);
    running.send([service("b", 81)]);
    // The second failure, then the third attempt, which holds both.
    running.commit();
    assert_eq!(names(&running.commit()), ["a", "b"]);
    assert!(running.is_quiet());
    let failures = running
        .metrics
        .nftables_sync_failures
        .with_label_values(&["IPv4"]);
    assert_eq!(failures.get(), 2);
    assert!(running.health.report(Instant::now()).synced.is_some());
    running.end().unwrap();
}

#[test]
fn a_failed_commit_is_counted_for_the_mode_that_failed() {
    for (flags, nftables, iptables) in [
        ("--proxy-mode=nftables", 1, 0),
        ("--proxy-mode=iptables", 0, 1),
        ("--proxy-mode=ipvs", 0, 1),
    ] {
        let running = Start {
            flags,
            answers: vec![Ok(CommitReport::default()), Err(refused("busy"))],
            ..Start::default()
        }
        .run();
        running.begin(&[]);
        running.send([service("a", 80)]);
        running.commit();
        running.commit();
        let metrics = &running.metrics;
        let count = |failures: &IntCounterVec| failures.with_label_values(&["IPv6"]).get();
        assert_eq!(count(&metrics.nftables_sync_failures), nftables, "{flags}");
        assert_eq!(count(&metrics.iptables_restore_failures), iptables, "{flags}");
        running.end().unwrap();
    }
}

#[test]
fn what_a_commit_did_in_each_family_is_counted_for_that_family() {
    let [all, changes] = [(true, 0), (false, 1)].map(|(full, failures)| FamilyReport {
        full,
        failures: failures * 2,
        partial_failures: failures,
        rules: vec![TableRules {
            table: "nat",
            total: 9,
            written: 7,
        }],
        ..FamilyReport::default()
    });
    let off = FamilyReport {
        off: true,
        ..FamilyReport::default()
    };
    let report = |families| CommitReport {
        families,
        ..CommitReport::default()
    };
    let running = Start {
        flags: "--proxy-mode=iptables",
        answers: vec![
            Ok(report([all.clone(), all.clone()])),
            Ok(report([changes, all])),
            Ok(report([FamilyReport::default(), off])),
        ],
        ..Start::default()
    }
    .run();
    running.begin(&[]);
    for port in [80, 81] {
        running.send([service("a", port)]);
        running.commit();
    }
    let metrics = Arc::clone(&running.metrics);
    running.end().unwrap();
    let text = metrics.text().unwrap();
    for line in [
        "sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 3",
        "sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
        "sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 2",
        "sync_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 2",
        "sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 2",
        "sync_proxy_rules_iptables_restore_failures_total{ip_family=\"IPv4\"} 2",
        "sync_proxy_rules_iptables_partial_restore_failures_total{ip_family=\"IPv4\"} 1",
        "sync_proxy_rules_iptables_total{ip_family=\"IPv4\",table=\"nat\"} 9",
        "sync_proxy_rules_iptables_last{ip_family=\"IPv6\",table=\"nat\"} 7",
    ] {
        let line = format!("kubeproxy_{line}\n");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    for series in [
        "sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"}",
        "restore_failures_total{ip_family=\"IPv6\"}",
        "nftables",
    ] {
        assert!(!text.contains(series), "{series} is in\n{text}");
    }
}

#[test]
fn pauses_between_attempts_grow_to_the_sync_period() {
    let longest = Duration::from_secs(30);
    for (failures, most) in [(0, 100), (1, 200), (5, 3200), (9, 30_000), (u32::MAX, 30_000)] {
        let most = Duration::from_millis(most);
        for _ in 0..20 {
            let pause = pause(failures, longest);
            assert!(pause <= most && pause >= most / 2, "{failures}: {pause:?}");
        }
    }
}

#[test]
fn a_node_on_which_it_cannot_work_ends_the_program_with_the_reason() {
    let running = Start {
        answers: vec![Err(CommitError::Permission {
            tried: "opening a netlink socket".to_owned(),
            capabilities: "CAP_NET_ADMIN",
        })],
        ..Start::default()
    }
    .run();
    running.begin(&["a"]);
    let error = running.thread.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
}

#[test]
fn a_permission_lost_later_is_waited_for() {
    let lost = CommitError::Permission {
        tried: "a transaction".to_owned(),
        capabilities: "CAP_NET_ADMIN",
    };
    let running = Start {
        answers: vec![Ok(CommitReport::default()), Err(lost)],
        ..Start::default()
    }
    .run();
    running.begin(&[]);
    running.send([service("a", 80)]);
    running.commit();
    assert_eq!(names(&running.commit()), ["a"], "tried again");
    running.end().unwrap();
}

#[test]
fn the_dataplane_is_called_again_when_it_asks_for_it() {
    let later = CommitReport {
        again_after: Some(Duration::from_millis(20)),
        refused: vec![Refusal {
            service: ObjectName::new("default", "a"),
            element: "10.96.0.1 . tcp . 80".to_owned(),
            reason: "File exists".to_owned(),
        }],
        refused_now: 1,
        ..CommitReport::default()
    };
    let running = Start {
        answers: vec![Ok(later)],
        ..Start::default()
    }
    .run();
    running.begin(&["a"]);
    assert_eq!(running.commit(), Told::default(), "without a change");
    assert!(running.is_quiet());
    assert_eq!(running.metrics.refusals.get(), 1);
    assert_eq!(running.metrics.refused_now.get(), 0);
    running.end().unwrap();
}

#[test]
fn what_others_do_is_put_right_whichever_listener_hears_of_it() {
    let (mut others, listeners): (Vec<_>, Vec<_>) = (0..2)
        .map(|_| UnixStream::pair().unwrap())
        .map(|(other, ours)| (other, OwnedFd::from(ours)))
        .unzip();
    let running = Start {
        listeners,
        ..Start::default()
    };
    let running = running.run();
    running.begin(&["web"]);
    for other in &mut others {
        other.write_all(b"!").unwrap();
        assert_eq!(running.commit(), Told::default());
    }
}

#[test]
fn what_nobody_tells_of_is_looked_for_when_it_is_time_to() {
    let running = Start {
        look_due: Some(Instant::now() + A_WHILE),
        ..Start::default()
    };
    let running = running.run();
    running.begin(&["web"]);
    assert_eq!(running.commit(), Told::default());
    // Once.
    assert!(running.commits.recv_timeout(A_WHILE).is_err());
}

#[test]
fn external_ips_count_unless_their_gate_is_off() {
    for (flags, external_ips) in [("", 1), ("--feature-gates=AllowServiceExternalIPs=false", 0)] {
        let running = Start {
            flags,
            ..Start::default()
        }
        .run();
        assert_eq!(running.begin(&["a"]).external_ips, external_ips, "{flags}");
        running.end().unwrap();
    }
}

#[test]
fn contested_addresses_are_counted_while_they_are_contested() {
    let running = Start::default().run();
    running.begin(&["a", "b"]);
    running.send([service("c", 99)]);
    running.commit();
    assert_eq!(
        running.metrics.conflicts.get(),
        2,
        "clusterIP and external IP of b"
    );
    running.send([Change::Deleted(Kind::Service, ObjectName::new("default", "a"))]);
    assert_eq!(
        running.commit().services,
        [("a".to_owned(), false), ("b".to_owned(), true)]
    );
    running.send([service("c", 98)]);
    running.commit();
    assert_eq!(running.metrics.conflicts.get(), 0);
    running.end().unwrap();
}

#[test]
fn service_cidrs_go_with_the_first_sync_if_they_are_there_and_are_not_waited_for() {
    let cidr = |cidrs: &[&str]| {
        Change::ServiceCidr(Box::new(ServiceCidr {
            name: ObjectName::new("", "kubernetes"),
            cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        }))
    };
    let v4 = |cidrs: &[&str]| {
        let cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        vec![(Family::V4, cidrs), (Family::V6, vec![])]
    };
    let running = Start::default().run();
    running.send([cidr(&["10.96.0.0/16", "10.96.1.0/24"])]);
    assert_eq!(running.begin(&[]).service_cidrs, v4(&["10.96.0.0/16"]));
    running.send([cidr(&["10.96.0.0/12"])]);
    assert_eq!(running.commit().service_cidrs, v4(&["10.96.0.0/12"]));
    running.send([cidr(&["10.96.0.0/12", "10.97.0.0/16"])]);
    assert!(running.is_quiet(), "it changes nothing");
    running.end().unwrap();

    let running = Start::default().run();
    assert_eq!(running.begin(&[]).service_cidrs, []);
    running.end().unwrap();
}

#[test]
fn stale_flows_are_looked_for_only_after_a_commit_that_succeeded() {
    let (open, gate) = std_channel();
    let conntrack = Conntrack::default();
    let count_due = conntrack.count_due();
    let running = Start {
        gate: Some(gate),
        answers: vec![Ok(CommitReport::default()), Err(refused("busy"))],
        conntrack,
        ..Start::default()
    }
    .run();
    running.begin(&["a"]);
    open.send(()).unwrap();
    let Change::Service(mut dns) = service("dns", 53) else {
        unreachable!()
    };
    dns.ports[0].protocol = crate::model::object::Protocol::Udp;
    running.send([Change::Service(dns)]);
    for _attempt in 0..2 {
        running.commit();
        assert_eq!(count_due(), 0, "TCP is no matter, and UDP not yet");
        open.send(()).unwrap();
    }
    running.send([service("b", 81)]);
    running.commit();
    assert_eq!(count_due(), 2, "its cluster IP and its external IP");
    open.send(()).unwrap();
    running.end().unwrap();
}

#[test]
fn what_other_modes_left_is_removed_once_and_not_before_this_mode_is_in_force() {
    let (open, gate) = std_channel();
    let running = Start {
        flags: "--proxy-mode=iptables --iptables-sync-period=1s",
        answers: vec![Err(refused("not yet"))],
        gate: Some(gate),
        ..Start::default()
    }
    .run();
    running.begin(&["a"]);
    open.send(()).unwrap();
    // The second attempt is under way: the first one has failed.
    running.commit();
    assert_eq!(running.removals(), 0);
    open.send(()).unwrap();
    // The third one: the second one has succeeded.
    running.send([service("b", 80)]);
    running.commit();
    assert_eq!(running.removals(), 1);
    open.send(()).unwrap();
    running.send([service("c", 80)]);
    running.commit();
    open.send(()).unwrap();
    assert_eq!(running.removals(), 1);
    running.end().unwrap();
}

#[test]
fn how_long_a_slice_took_is_measured_once_however_often_it_is_listed() {
    let running = Start::default().run();
    running.begin(&["a"]);
    let slice = EndpointSlice {
        last_change_trigger: Some(SystemTime::now()),
        ..testing::slice("default/a-1", "a", "/TCP:80", &["10.1.0.1"])
    };
    let slice = || Change::EndpointSlice(Box::new(slice.clone()));
    running.send([slice()]);
    assert_eq!(names(&running.commit()), ["a"]);
    // Nothing is put in force for a Service that is not there, whenever the next commit comes.
    let stray = EndpointSlice {
        last_change_trigger: Some(SystemTime::now()),
        ..testing::slice("default/c-1", "c", "/TCP:80", &["10.1.0.1"])
    };
    running.send([
        Change::ListStart(Kind::EndpointSlice),
        Change::EndpointSlice(Box::new(stray)),
        slice(),
        Change::ListDone(Kind::EndpointSlice),
        service("b", 81),
    ]);
    // The end of the list and the Service may come in two pieces.
    while !names(&running.commit()).contains(&"b") {}
    let metrics = Arc::clone(&running.metrics);
    running.end().unwrap();
    let of_family = |family| {
        let measured = metrics.network_programming.with_label_values(&[family]);
        measured.get_sample_count()
    };
    assert_eq!((of_family("IPv4"), of_family("IPv6")), (1, 0));
}
