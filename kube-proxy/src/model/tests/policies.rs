//! Which endpoints count by readiness and policy (upstream's CategorizeEndpoints).

use super::choice::*;
use crate::model::object::TrafficPolicy::Local;

const REMOTE: &[&str] = &["10.0.0.0", "10.0.0.1"];
const LOCAL_AND_REMOTE: &[&str] = &["10.0.0.0 local", "10.0.0.1"];
const REMOTE_TERMINATING: &[&str] = &["10.0.0.0 terminating", "10.0.0.1 terminating"];
const MIXED: &[&str] = &[
    "10.0.0.0",
    "10.0.0.1 local unready",
    "10.0.0.2 local terminating",
    "10.0.0.3 terminating",
];

fn policy(
    name: &'static str,
    policies: Policies,
    endpoints: &'static [&'static str],
    cluster: &'static [u8],
    local: &'static [u8],
) -> Case {
    let any = !cluster.is_empty() || !local.is_empty();
    Case {
        name,
        policies,
        zone: None,
        endpoints,
        cluster,
        local,
        any,
    }
}

fn policy_cases() -> Vec<Case> {
    vec![
        policy("internal Local, no endpoints", INTERNAL_LOCAL, &[], &[], &[]),
        Case {
            any: true,
            ..policy("internal Local, all remote", INTERNAL_LOCAL, REMOTE, &[], &[])
        },
        policy(
            "internal Local, all local",
            INTERNAL_LOCAL,
            &["10.0.0.0 local", "10.0.0.1 local"],
            &[],
            &[0, 1],
        ),
        policy(
            "internal Local, some local: no cluster list",
            INTERNAL_LOCAL,
            LOCAL_AND_REMOTE,
            &[],
            &[0],
        ),
        policy(
            "Cluster, none ready",
            PLAIN,
            &["10.0.0.0 unready", "10.0.0.1 unready"],
            &[],
            &[],
        ),
        policy(
            "Cluster, some ready",
            PLAIN,
            &["10.0.0.0 unready", "10.0.0.1"],
            &[1],
            &[],
        ),
        policy(
            "Cluster, all terminate",
            PLAIN,
            &["10.0.0.0 local terminating", "10.0.0.1 terminating"],
            &[0, 1],
            &[],
        ),
        policy(
            "Cluster, some terminate: they are left out",
            PLAIN,
            &["10.0.0.0 terminating", "10.0.0.1"],
            &[1],
            &[],
        ),
        policy(
            "Cluster, terminating and no longer serving",
            PLAIN,
            &["10.0.0.0 stopped"],
            &[],
            &[],
        ),
        policy(
            "Cluster, serving but neither ready nor terminating",
            PLAIN,
            &["10.0.0.0 serving"],
            &[],
            &[],
        ),
        policy(
            "internal Local, external Cluster",
            INTERNAL_LOCAL_WITH_NODE_PORT,
            LOCAL_AND_REMOTE,
            &[0, 1],
            &[0],
        ),
        policy(
            "internal Cluster, external Local",
            EXTERNAL_LOCAL,
            LOCAL_AND_REMOTE,
            &[0, 1],
            &[0],
        ),
        policy(
            "both Local, some local",
            BOTH_LOCAL,
            LOCAL_AND_REMOTE,
            &[0, 1],
            &[0],
        ),
        policy("both Local, all remote", BOTH_LOCAL, REMOTE, &[0, 1], &[]),
        policy(
            "both Local, all remote and terminating",
            BOTH_LOCAL,
            REMOTE_TERMINATING,
            &[0, 1],
            &[],
        ),
        policy(
            "external Local, the local ones terminate",
            EXTERNAL_LOCAL,
            MIXED,
            &[0],
            &[2],
        ),
        policy(
            "internal Local, the local ones terminate",
            INTERNAL_LOCAL,
            MIXED,
            &[],
            &[2],
        ),
        Case {
            any: true,
            ..policy(
                "internal Local, the remote ones terminate",
                INTERNAL_LOCAL,
                REMOTE_TERMINATING,
                &[],
                &[],
            )
        },
        policy(
            "external Local does not count when outside cannot reach the Service",
            Policies {
                external: Local,
                ..PLAIN
            },
            LOCAL_AND_REMOTE,
            &[0, 1],
            &[],
        ),
    ]
}

#[test]
fn policies_and_readiness_choose_the_endpoints() {
    for case in policy_cases() {
        case.check();
    }
}
