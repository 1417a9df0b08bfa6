//! Which endpoints serve whom, and who is masqueraded.

use super::*;

/// ExternalTrafficPolicyLocal, ExternalTrafficPolicyCluster.
#[test]
fn the_external_policy_decides_about_external_addresses() {
    let endpoints = ["10.180.0.1 local", "10.180.2.1"];
    let external = ["TCP 192.168.99.11:80", "TCP 1.2.3.4:80", "TCP 192.168.0.2:30080"];
    let cluster_ip = (POD, "TCP 172.30.0.41:80", "10.180.0.1:80 10.180.2.1:80");
    for (policy, endpoints, from_pods, from_outside) in [
        (
            Local,
            &endpoints[..],
            "10.180.0.1:80 10.180.2.1:80",
            "10.180.0.1:80",
        ),
        (Local, &endpoints[1..], "10.180.2.1:80", "dropped"),
        (
            Anywhere,
            &endpoints,
            "10.180.0.1:80 10.180.2.1:80 masqueraded",
            "10.180.0.1:80 10.180.2.1:80 masqueraded",
        ),
    ] {
        let nodes = nodes_of(&full().with_policies(Anywhere, policy), endpoints);
        let title = format!("externalTrafficPolicy {policy:?} with {endpoints:?}");
        let from_host = match endpoints.len() {
            1 => "10.180.2.1:80 masqueraded",
            _ => "10.180.0.1:80 10.180.2.1:80 masqueraded",
        };
        for to in external {
            let cases = [
                (POD, to, from_pods),
                (HOST, to, from_host),
                (CLIENT, to, from_outside),
            ];
            expect(&nodes, &title, &cases);
        }
        if endpoints.len() == 2 {
            expect(&nodes, &title, &[cluster_ip]);
        }
    }
    // Of a type that nothing outside reaches, the policy means nothing.
    let inside = service("ns/web", "172.30.0.41", "p/TCP:80:30080").with_policies(Anywhere, Local);
    let cases = [(CLIENT, "TCP 192.168.0.2:30080", "10.180.2.1:80 masqueraded")];
    expect(&nodes_of(&inside, &["10.180.2.1"]), "ClusterIP", &cases);
}

/// InternalTrafficPolicy.
#[test]
fn the_internal_policy_decides_about_cluster_ips() {
    let both = ["10.180.0.1 local", "10.180.0.2 local", "10.180.2.1"];
    for (policy, endpoints, expected) in [
        (Anywhere, &both[..], "10.180.0.1:80 10.180.0.2:80 10.180.2.1:80"),
        (Local, &both[1..], "10.180.0.2:80"),
        (Local, &both, "10.180.0.1:80 10.180.0.2:80"),
        (Local, &both[2..], "dropped"),
        (Local, &[], "rejected"),
    ] {
        let nodes = nodes_of(&full().with_policies(policy, Anywhere), endpoints);
        let title = format!("internalTrafficPolicy {policy:?} with {endpoints:?}");
        let from_host = match expected.contains(':') {
            true => format!("{expected} masqueraded"),
            false => expected.to_owned(),
        };
        let to = "TCP 172.30.0.41:80";
        expect(&nodes, &title, &[(POD, to, expected), (HOST, to, &from_host)]);
    }
    // The last endpoint goes.
    let web = full().with_policies(Local, Anywhere);
    let mut nodes = nodes_of(&web, &both);
    let gone = slice("ns/web-a", "web", "p/TCP:80", &[]);
    nodes.apply(&Change::EndpointSlice(Box::new(gone)));
    expect(&nodes, "deleted", &[(POD, "TCP 172.30.0.41:80", "rejected")]);
}

/// Endpoints, and which of them get traffic inside the cluster, traffic that may end here only, and traffic from
/// outside.
const STEPS: [(&str, &[&str], [&str; 3]); 6] = [
    (
        "ready endpoints exist",
        &[
            "10.180.0.1 local",
            "10.180.0.2 local terminating",
            "10.180.2.1",
            "10.180.2.2 terminating",
        ],
        [
            "10.180.0.1:80 10.180.2.1:80",
            "10.180.0.1:80",
            "10.180.0.1:80 10.180.2.1:80 masqueraded",
        ],
    ),
    (
        "only terminating ones here",
        &[
            "10.180.0.1 local terminating",
            "10.180.0.2 local stopped",
            "10.180.2.1",
        ],
        ["10.180.2.1:80", "10.180.0.1:80", "10.180.2.1:80 masqueraded"],
    ),
    (
        "only terminating ones anywhere",
        &[
            "10.180.0.1 local terminating",
            "10.180.0.2 local unready",
            "10.180.2.1 terminating",
        ],
        [
            "10.180.0.1:80 10.180.2.1:80",
            "10.180.0.1:80",
            "10.180.0.1:80 10.180.2.1:80 masqueraded",
        ],
    ),
    (
        "only terminating ones elsewhere",
        &["10.180.2.1 terminating"],
        ["10.180.2.1:80", "dropped", "10.180.2.1:80 masqueraded"],
    ),
    (
        "none that serves",
        &[
            "10.180.0.1 local stopped",
            "10.180.0.2 local serving",
            "10.180.2.1 unready",
        ],
        ["rejected"; 3],
    ),
    ("deleted", &[], ["rejected"; 3]),
];

/// TerminatingEndpointsTrafficPolicyLocal, TerminatingEndpointsTrafficPolicyCluster.
#[test]
fn terminating_endpoints_serve_where_there_are_no_others() {
    for (title, endpoints, [inside, local, anywhere]) in STEPS {
        for (policy, outside) in [(Local, local), (Anywhere, anywhere)] {
            let nodes = nodes_of(&full().with_policies(Anywhere, policy), endpoints);
            let cases = [
                (POD, "TCP 172.30.0.41:80", inside),
                (CLIENT, "TCP 1.2.3.4:80", outside),
            ];
            expect(&nodes, &format!("{title}, {policy:?}"), &cases);
        }
        let nodes = nodes_of(&full().with_policies(Local, Anywhere), endpoints);
        expect(
            &nodes,
            &format!("{title}, internal Local"),
            &[(POD, "TCP 172.30.0.41:80", local)],
        );
    }
    // Of a list of this node only, and reaching itself all the same.
    let nodes = nodes_of(&full().with_policies(Local, Anywhere), STEPS[1].1);
    let itself = ("10.180.0.1", "TCP 172.30.0.41:80", "10.180.0.1:80 masqueraded");
    expect(&nodes, "hairpin", &[itself]);
}

/// Who gets which endpoints as configured, without a detector of pods, with masqueradeAll, and with both; a `+` is
/// for masqueraded.
const ROWS: [(&str, &str, [&str; 4]); 27] = [
    (POD, "TCP 172.30.0.41:80", ["all", "all", "all+", "all+"]),
    (POD, "TCP 192.168.0.2:3001", ["all+", "all+", "all+", "all+"]),
    (POD, "TCP 1.2.3.4:80", ["all+", "all+", "all+", "all+"]),
    (HOST, "TCP 172.30.0.41:80", ["all+", "all", "all+", "all+"]),
    (HOST, "TCP 192.168.0.2:3001", ["all+", "all+", "all+", "all+"]),
    (HOST, "TCP 1.2.3.4:80", ["all+", "all+", "all+", "all+"]),
    (CLIENT, "TCP 172.30.0.41:80", ["all+", "all", "all+", "all+"]),
    (CLIENT, "TCP 192.168.0.2:3001", ["all+", "all+", "all+", "all+"]),
    (CLIENT, "TCP 1.2.3.4:80", ["all+", "all+", "all+", "all+"]),
    // externalTrafficPolicy: Local
    (POD, "TCP 172.30.0.42:80", ["all", "all", "all+", "all+"]),
    (POD, "TCP 192.168.0.2:3002", ["all", "here", "all", "here"]),
    (POD, "TCP 5.6.7.8:80", ["all", "here", "all", "here"]),
    (HOST, "TCP 172.30.0.42:80", ["all+", "all", "all+", "all+"]),
    (HOST, "TCP 192.168.0.2:3002", ["all+", "all+", "all+", "all+"]),
    (HOST, "TCP 5.6.7.8:80", ["all+", "all+", "all+", "all+"]),
    (CLIENT, "TCP 172.30.0.42:80", ["all+", "all", "all+", "all+"]),
    (CLIENT, "TCP 192.168.0.2:3002", ["here", "here", "here", "here"]),
    (CLIENT, "TCP 5.6.7.8:80", ["here", "here", "here", "here"]),
    // internalTrafficPolicy: Local
    (POD, "TCP 172.30.0.43:80", ["here", "here", "here+", "here+"]),
    (POD, "TCP 192.168.0.2:3003", ["all+", "all+", "all+", "all+"]),
    (POD, "TCP 9.10.11.12:80", ["all+", "all+", "all+", "all+"]),
    (HOST, "TCP 172.30.0.43:80", ["here+", "here", "here+", "here+"]),
    (HOST, "TCP 192.168.0.2:3003", ["all+", "all+", "all+", "all+"]),
    (HOST, "TCP 9.10.11.12:80", ["all+", "all+", "all+", "all+"]),
    (CLIENT, "TCP 172.30.0.43:80", ["here+", "here", "here+", "here+"]),
    (CLIENT, "TCP 192.168.0.2:3003", ["all+", "all+", "all+", "all+"]),
    (CLIENT, "TCP 9.10.11.12:80", ["all+", "all+", "all+", "all+"]),
];

/// InternalExternalMasquerade.
#[test]
fn who_is_masqueraded_follows_from_source_destination_and_configuration() {
    let services = [
        service("ns/one", "172.30.0.41", "p/TCP:80:3001").with_load_balancer("1.2.3.4"),
        service("ns/two", "172.30.0.42", "p/TCP:80:3002")
            .with_load_balancer("5.6.7.8")
            .with_policies(Anywhere, Local),
        service("ns/three", "172.30.0.43", "p/TCP:80:3003")
            .with_load_balancer("9.10.11.12")
            .with_policies(Local, Anywhere),
    ];
    let slices = ["one", "two", "three"].map(|name| {
        let endpoints = ["10.180.0.1 local", "10.180.2.1"];
        slice(&format!("ns/{name}-a"), name, "p/TCP:80", &endpoints)
    });
    for (run, (detects, masquerade_all)) in [(true, false), (false, false), (true, true), (false, true)]
        .into_iter()
        .enumerate()
    {
        let mut setup = Setup {
            masquerade_all,
            ..Setup::default()
        };
        if !detects {
            setup.local_traffic = [LocalTraffic::Unknown, LocalTraffic::Unknown];
        }
        let nodes = Nodes::with(&setup, &services, &slices);
        let title = format!("detector {detects}, masqueradeAll {masquerade_all}");
        for (from, to, expected) in ROWS {
            let expected = match expected[run] {
                "all" => "10.180.0.1:80 10.180.2.1:80",
                "all+" => "10.180.0.1:80 10.180.2.1:80 masqueraded",
                "here" => "10.180.0.1:80",
                _ => "10.180.0.1:80 masqueraded",
            };
            expect(&nodes, &title, &[(from, to, expected)]);
        }
    }
}
