//! What another hand changes is found, and put right.

use super::*;
use crate::dataplane::Dataplane;

/// A second and a bit.
const LATER: Duration = Duration::from_millis(1001);

impl Node {
    /// Looks as if so much time had passed; whether something was found.
    fn looks_after(&mut self, later: Duration) -> bool {
        let now = Instant::now() + later;
        let Self { namespace, dataplane } = self;
        namespace.enter(|| dataplane.hear_others(now)).unwrap()
    }

    fn ip(&self, arguments: &str) {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        self.namespace.run("ip", &arguments).unwrap();
    }
}

/// What another hand does.
enum Deed {
    Step(&'static str, Step),
    Ip(&'static str),
}

#[test]
fn what_another_hand_changes_is_found_within_a_second_and_put_right() {
    let config = Config {
        exclude_cidrs: vec!["172.20.0.0/16".parse().unwrap()],
        ..Config::default()
    };
    let Some(mut node) = Node::new("what another hand changes", config) else {
        return;
    };
    let web = service("default/web", "10.96.0.1", "http/TCP:80:30080").with_affinity(90);
    node.update(&web, &[A, B]);
    node.update(
        &service("default/v6", "fd00:96::1", "http/TCP:80"),
        &["fd00:10::1"],
    );
    node.commit();
    let before = node.held();
    assert_eq!(before.0.len(), 3);
    let (one, excluded) = ("TCP 10.96.0.1:80", "TCP 172.20.0.1:80");
    let a = || backend("10.180.1.1:8080");
    let c = || backend("10.180.3.1:8080");
    // As it is: found if anything is otherwise.
    let same = || Step::SetServer(settings("rr", Some(90)));
    let deeds = [
        (true, Deed::Step(one, Step::SetServer(settings("wrr", Some(90))))),
        (true, Deed::Step(one, Step::SetServer(settings("rr", Some(91))))),
        (true, Deed::Step(one, Step::SetServer(settings("rr", None)))),
        (false, Deed::Step(one, same())),
        (true, Deed::Step(one, Step::SetEndpoint(a(), 7))),
        (true, Deed::Step(one, Step::SetEndpoint(a(), 0))),
        (true, Deed::Step(one, Step::DeleteEndpoint(a()))),
        (true, Deed::Step("TCP 192.168.0.2:30080", Step::DeleteServer)),
        (true, Deed::Step("TCP [fd00:96::1]:80", Step::DeleteServer)),
        (
            true,
            Deed::Step("TCP 10.96.0.7:80", Step::NewServer(settings("rr", None))),
        ),
        (false, Deed::Step(excluded, Step::NewServer(settings("rr", None)))),
        (false, Deed::Step(excluded, Step::NewEndpoint(c(), 1))),
        (false, Deed::Step(excluded, Step::DeleteServer)),
        (true, Deed::Ip("addr del 10.96.0.1/32 dev kube-ipvs0")),
        (true, Deed::Ip("addr del fd00:96::1/128 dev kube-ipvs0")),
        (true, Deed::Ip("addr add 10.96.0.9/32 dev kube-ipvs0")),
        (true, Deed::Ip("link del kube-ipvs0")),
        (false, Deed::Ip("addr add 10.96.0.9/32 dev lo")),
    ];
    let mut later = Duration::ZERO;
    for (number, (is_found, deed)) in deeds.into_iter().enumerate() {
        match deed {
            Deed::Step(place, step) => node.meddle(&[(place, step)]),
            Deed::Ip(arguments) => node.ip(arguments),
        }
        later += LATER;
        assert_eq!(node.looks_after(later), is_found, "{number}");
        let report = node.commit_after(later);
        assert_eq!(report.drift, u64::from(is_found), "{number}");
        assert_eq!(report.messages > 0, is_found, "{number}");
        let mut after = node.held();
        after.0.retain(|line| !line.starts_with(excluded));
        assert_eq!(after, before, "{number}");
        later += LATER;
        assert!(!node.looks_after(later), "{number}");
    }
    // An endpoint more goes as others do, when it is idle.
    node.meddle(&[(one, Step::NewEndpoint(c(), 1))]);
    assert!(node.looks_after(later + LATER));
    node.commit_after(later + LATER);
    node.commit_after(later + LATER * 3);
    assert_eq!(node.held(), before);
}

#[test]
fn what_this_process_did_itself_is_no_change_by_another_hand() {
    let Some(mut node) = Node::new("what this process did itself", Config::default()) else {
        return;
    };
    let names = [
        "rr", "wrr", "lc", "wlc", "sed", "nq", "sh", "dh", "mh", "lblc", "lblcr", "fo", "ovf", "none",
    ];
    let mut later = Duration::ZERO;
    for name in names {
        for (family, ips, endpoints) in [
            ("v4", "10.96.0.1", [A, B]),
            ("v6", "fd00:96::1", ["fd00:10::1", "fd00:10::2"]),
        ] {
            for affinity in [None, Some(10_800)] {
                let mut web = service(&format!("default/{family}"), ips, "http/TCP:80:30080");
                web = affinity.map_or(web.clone(), |seconds| web.with_affinity(seconds));
                web.ipvs_scheduler = Some(name.into());
                // With an endpoint that is on its way.
                node.update(&web, &endpoints);
                node.commit_after(later);
                node.update(&web, &endpoints[..1]);
                node.commit_after(later);
                later += LATER;
                assert!(!node.looks_after(later), "{name} {family} {affinity:?}");
                node.commit_after(later + LATER);
                later += LATER * 2;
                assert!(!node.looks_after(later), "{name} {family} {affinity:?}");
            }
        }
    }
}

#[test]
fn an_address_that_another_hand_takes_away_is_heard_of() {
    let Some(mut node) = Node::new("an address that is taken away", Config::default()) else {
        return;
    };
    let web = service("default/web", "10.96.0.1 fd00:96::1", "http/TCP:80");
    node.update(&web, &[A]);
    node.commit();
    let dataplane = &mut node.dataplane;
    assert!(std::iter::from_fn(|| dataplane.listener()).count() >= 2);
    let soon = Duration::from_millis(60);
    assert!(!node.looks_after(soon));
    for (count, address) in (2..).zip(["10.96.0.1/32", "fd00:96::1/128"]) {
        node.ip(&format!("addr del {address} dev kube-ipvs0"));
        assert!(node.looks_after(soon * count), "{address}");
        assert_eq!(node.commit().drift, 1);
        assert_eq!(node.held().1.len(), 2);
    }
    // Its own doing is not: nothing hurries the next look.
    node.update(
        &service("default/other", "10.96.0.2 fd00:96::2", "http/TCP:80"),
        &[A],
    );
    node.commit();
    assert!(!node.looks_after(soon * 4));
    let due = node.dataplane.look_due().unwrap();
    assert!(due > Instant::now() + soon * 6, "it was heard");
}
