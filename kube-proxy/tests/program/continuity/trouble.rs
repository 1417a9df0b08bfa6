//! An API server in trouble, of every kind in turn: what is in force stays, and afterwards the kernel has what changed
//! meanwhile, and nothing of what went.

use std::time::Duration;

use lab::api::{Fault, Resource, Rule, Server, StreamFault};

use super::held::{assert_same, held};
use super::{IN_FORCE, Stage};
use crate::machine::service;
use crate::running::Proxy;

const WATCHED: [Resource; 2] = [Resource::Services, Resource::EndpointSlices];
/// For the trouble to be noticed, and answered once or twice.
const WHILE: Duration = Duration::from_millis(300);

struct Trouble {
    what: &'static str,
    begins: fn(&Server),
    ends: fn(&Server),
}

const TROUBLES: &[Trouble] = &[
    Trouble {
        what: "it dies",
        begins: |server| server.refuse_connections(true),
        ends: |server| server.refuse_connections(false),
    },
    Trouble {
        what: "it dies, and its history is forgotten",
        begins: |server| server.refuse_connections(true),
        ends: |server| {
            server.compact();
            server.refuse_connections(false);
        },
    },
    Trouble {
        what: "it hangs until its connections are cut",
        begins: |server| spoil(server, &StreamFault::Stall),
        ends: Server::disconnect,
    },
    Trouble {
        what: "it hangs in the middle of an object",
        begins: |server| spoil(server, &StreamFault::StallMidFrame),
        ends: Server::disconnect,
    },
    Trouble {
        what: "it answers 500",
        begins: |server| answers(server, 500),
        ends: Server::clear_faults,
    },
    Trouble {
        what: "it answers 429",
        begins: |server| answers(server, 429),
        ends: Server::clear_faults,
    },
    Trouble {
        what: "it answers 401",
        begins: |server| answers(server, 401),
        ends: Server::clear_faults,
    },
    Trouble {
        what: "it answers 403",
        begins: |server| answers(server, 403),
        ends: Server::clear_faults,
    },
    Trouble {
        what: "it answers 410",
        begins: |server| answers(server, 410),
        ends: Server::clear_faults,
    },
    Trouble {
        what: "it says 410 in a watch that lost what came before",
        begins: |server| spoil(server, &StreamFault::Lose(1)),
        ends: |server| spoil(server, &StreamFault::Error(410)),
    },
    Trouble {
        what: "its watches become garbage",
        begins: |server| spoil(server, &StreamFault::Garbage),
        ends: |_| {},
    },
    Trouble {
        what: "its watches are cut in the middle of an object",
        begins: |server| spoil(server, &StreamFault::CutMidFrame),
        ends: |_| {},
    },
    Trouble {
        what: "its lists are garbage",
        begins: |server| lists(server, Fault::Garbage),
        ends: Server::clear_faults,
    },
    Trouble {
        what: "its lists are cut in the middle of an object",
        begins: |server| lists(server, Fault::CutAfter(700)),
        ends: Server::clear_faults,
    },
];

fn spoil(server: &Server, fault: &StreamFault) {
    for resource in WATCHED {
        server.spoil_watches(resource, fault.clone());
    }
}

fn answers(server: &Server, code: u16) {
    let retry_after = None;
    server.inject(Rule::new(Fault::Status { code, retry_after }));
    server.disconnect();
}

/// Lists have to be made anew, and fail so.
fn lists(server: &Server, fault: Fault) {
    server.inject(Rule::new(fault));
    spoil(server, &StreamFault::Error(410));
}

fn apply(api: &Server, name: &str, ip: &str, endpoint: &str) {
    let service = service(name, ip, 0, &[endpoint]).replace("NodePort", "ClusterIP");
    api.apply(&service).unwrap();
}

fn delete(api: &Server, name: &str) {
    api.delete(Resource::Services, "default", name).unwrap();
    let slice = format!("{name}-1");
    api.delete(Resource::EndpointSlices, "default", &slice).unwrap();
}

/// Waits until the kernel serves a ClusterIP by this endpoint, or not at all.
fn serves(proxy: &Proxy, what: &str, ip: &str, endpoint: Option<&str>) {
    let start = format!("{ip} . tcp . 80 . ");
    proxy.until(what, || {
        let table = proxy
            .namespace
            .run("nft", &["list", "table", "ip", "kube-proxy"])
            .unwrap();
        let mut endpoints = table
            .split(&start)
            .skip(1)
            .filter_map(|rest| rest.split(" : ").nth(1));
        let found: Vec<&str> = endpoints
            .by_ref()
            .filter_map(|rest| rest.split(' ').next())
            .collect();
        match found == endpoint.into_iter().collect::<Vec<_>>() {
            true => Ok(()),
            false => Err(format!("{ip}: {found:?}")),
        }
    });
}

#[test]
fn after_whatever_trouble_of_the_api_server_the_kernel_has_what_changed_meanwhile_and_nothing_stale() {
    let stage = Stage::new();
    let api = stage.api();
    let proxy = stage.start_by(&api);
    proxy.says(IN_FORCE);
    let traffic = stage.traffic();
    for (number, trouble) in (1..).zip(TROUBLES) {
        let name = |what: &str| format!("{what}-{number}");
        let ip = |last: u8| format!("10.97.{number}.{last}");
        apply(&api, &name("goes"), &ip(1), "10.244.2.101");
        apply(&api, &name("moves"), &ip(2), "10.244.2.102");
        apply(&api, &name("stays"), &ip(3), "10.244.2.103");
        for (last, endpoint) in [(1, "10.244.2.101"), (2, "10.244.2.102"), (3, "10.244.2.103")] {
            serves(&proxy, trouble.what, &ip(last), Some(endpoint));
        }
        (trouble.begins)(&api);
        delete(&api, &name("goes"));
        apply(&api, &name("moves"), &ip(2), "10.244.2.112");
        apply(&api, &name("comes"), &ip(4), "10.244.2.114");
        std::thread::sleep(WHILE);
        serves(&proxy, trouble.what, &ip(3), Some("10.244.2.103"));
        (trouble.ends)(&api);
        let then = [
            (1, None),
            (2, Some("10.244.2.112")),
            (3, Some("10.244.2.103")),
            (4, Some("10.244.2.114")),
        ];
        for (last, endpoint) in then {
            serves(&proxy, trouble.what, &ip(last), endpoint);
        }
    }
    let answers = traffic.was_never_disturbed();
    println!("{} kinds of trouble, {answers} answers", TROUBLES.len());
    equals_a_fresh_start(&stage, &api, proxy);
}

#[test]
fn an_api_server_that_is_restored_from_a_backup_takes_the_kernel_back_with_it() {
    let stage = Stage::new();
    let api = stage.api();
    let proxy = stage.start_by(&api);
    proxy.says(IN_FORCE);
    let traffic = stage.traffic();
    apply(&api, "goes", "10.97.0.1", "10.244.2.101");
    apply(&api, "moves", "10.97.0.2", "10.244.2.102");
    let backup = api.backup();
    delete(&api, "goes");
    apply(&api, "moves", "10.97.0.2", "10.244.2.112");
    for number in 0..10 {
        apply(
            &api,
            &format!("later-{number}"),
            &format!("10.97.1.{number}"),
            "10.244.2.104",
        );
    }
    serves(&proxy, "what came later", "10.97.1.9", Some("10.244.2.104"));
    // Its versions are lower afterwards than what was seen of it. Meanwhile it is away.
    api.refuse_connections(true);
    std::thread::sleep(WHILE);
    api.restore(&backup);
    api.refuse_connections(false);
    apply(&api, "anew", "10.97.0.3", "10.244.2.103");
    let then = [
        ("10.97.0.1", Some("10.244.2.101")),
        ("10.97.0.2", Some("10.244.2.102")),
        ("10.97.0.3", Some("10.244.2.103")),
        ("10.97.1.9", None),
    ];
    for (ip, endpoint) in then {
        serves(&proxy, "state of the backup", ip, endpoint);
    }
    traffic.was_never_disturbed();
    equals_a_fresh_start(&stage, &api, proxy);
}

/// Once what is no longer used had time to go.
fn equals_a_fresh_start(stage: &Stage, api: &Server, proxy: Proxy) {
    std::thread::sleep(super::RETIREMENT);
    let after = held(stage, "nftables");
    drop(proxy);
    stage.node().run("nft", &["flush", "ruleset"]).unwrap();
    stage.start_by(api).says(IN_FORCE);
    assert_same(&after, &held(stage, "nftables"), 0);
}
