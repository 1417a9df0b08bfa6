//! Errors that put nothing in force: each one names what is missing.

use nix::errno::Errno;

use super::*;
use crate::dataplane::CommitError;
use crate::dataplane::nftables::chain::{Chain, Reach, Sources};
use crate::dataplane::nftables::config::NodePorts;
use crate::dataplane::nftables::failure::{explain, unreachable};
use crate::dataplane::nftables::object::Object;
use crate::dataplane::nftables::socket::Failure;
use crate::dataplane::nftables::transaction::{Sealed, Transaction};

/// Set in the process that a test starts without CAP_NET_ADMIN.
const WITHOUT_CAPABILITY: &str = "KUBE_PROXY_TEST_WITHOUT_CAPABILITY";

#[test]
fn without_cap_net_admin_the_error_says_so() {
    const NAME: &str = "dataplane::nftables::tests::errors::without_cap_net_admin_the_error_says_so";
    if std::env::var_os(WITHOUT_CAPABILITY).is_some() {
        let mut node = Node::new(config());
        let Node { namespace, dataplane } = &mut node;
        let error = namespace
            .enter(|| crate::dataplane::commit(dataplane))
            .unwrap()
            .unwrap_err();
        assert!(matches!(error, CommitError::Permission { .. }), "{error}");
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
        return;
    }
    let output = std::process::Command::new("setpriv")
        .args(["--bounding-set=-net_admin", "--inh-caps=-all", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env(WITHOUT_CAPABILITY, "1")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{printed}"
    );
}

/// A transaction with the chain `endpoints-3`, and with it the expression that draws a slot.
fn with_numgen() -> Sealed {
    let mut transaction = Transaction::new("kube-proxy");
    let config = config();
    transaction.table(Family::V4);
    transaction.sets(Family::V4, false);
    let chain = Chain::Endpoints {
        reach: Reach::Address,
        list: EndpointList::Cluster,
        masquerade: Sources::NONE,
        count: 3,
        affinity: None,
    };
    transaction.chain(Family::V4, &config.rules(Family::V4).chain(chain));
    transaction.seal()
}

#[test]
fn an_expression_that_the_kernel_lacks_is_named_with_its_option() {
    for tells in [true, false] {
        let mut node = Node::new(config());
        // The kernel is asked for an expression of another name, which it lacks for certain.
        let sealed = with_numgen();
        let name = |bytes: &[u8]| bytes.windows(6).position(|window| window == b"numgen").unwrap();
        let at = name(&sealed.bytes);
        // The first occurrence describes the set's key to nft; the rule's comes last.
        let at = sealed.bytes[at + 6..]
            .windows(6)
            .position(|w| w == b"numgen")
            .map_or(at, |next| at + 6 + next);
        let mut bytes = sealed.bytes.clone();
        bytes[at..at + 6].copy_from_slice(b"nonsen");
        let Node { namespace, dataplane } = &mut node;
        let ask = || {
            let socket = dataplane.kernel.socket().unwrap();
            if !tells {
                socket.tell_less();
            }
            socket.transact(&bytes, sealed.messages)
        };
        let failures = namespace.enter(ask).unwrap().unwrap();
        assert_eq!(failures.len(), 1, "{failures:?}");
        let error = explain("kube-proxy", &sealed, &failures[0]).to_string();
        assert!(error.contains("program table kube-proxy"), "{error}");
        assert!(error.contains("this kernel lacks"), "{error}");
        assert!(error.contains("numgen (CONFIG_NFT_NUMGEN)"), "{error}");
        assert_eq!(error.contains("nat (CONFIG_NFT_NAT)"), !tells, "{error}");
    }
}

#[test]
fn what_the_kernel_lacks_is_named_by_what_was_asked_of_it() {
    let mut transaction = Transaction::new("kube-proxy");
    transaction.table(Family::V6);
    transaction.sets(Family::V4, false);
    let config = config();
    let rules = config.rules(Family::V4);
    for chain in rules.base_chains(NodePorts::default().rules(Family::V4)) {
        transaction.chain(Family::V4, &chain);
    }
    let sealed = transaction.seal();
    let sets = u32::try_from(Object::ALL.len()).unwrap();
    let ask = |sequence, errno| {
        let failure = Failure {
            sequence,
            errno,
            offset: None,
            text: None,
        };
        explain("kube-proxy", &sealed, &failure).to_string()
    };
    for (sequence, errno, words) in [
        (0, Errno::EOPNOTSUPP, "lacks nf_tables (CONFIG_NF_TABLES)"),
        (
            1,
            Errno::EOPNOTSUPP,
            "lacks nf_tables for IPv6 (CONFIG_NF_TABLES_IPV6)",
        ),
        (
            Object::SourceRanges as u32 + 2,
            Errno::EOPNOTSUPP,
            "lacks what the set source-ranges needs (Linux 5.13)",
        ),
        // The sixth base chain, of type nat; those before it have one rule, or two.
        (
            sets + 1 + 14,
            Errno::ENOENT,
            "lacks chains of type nat (CONFIG_NFT_NAT)",
        ),
        (sets + 3, Errno::ENOENT, "lacks ct (CONFIG_NFT_CT)"),
        (1, Errno::EPERM, "permission denied"),
        (1, Errno::ENOMEM, "ENOMEM"),
    ] {
        let error = ask(sequence, errno);
        assert!(error.contains(words), "{sequence}: {error}");
    }
}

#[test]
fn a_kernel_without_nf_tables_is_told_from_one_that_forbids() {
    for (errno, words) in [
        (
            Errno::EPROTONOSUPPORT,
            "this kernel lacks nf_tables (CONFIG_NF_TABLES)",
        ),
        (Errno::EPERM, "permission denied: kube-proxy needs CAP_NET_ADMIN"),
        (Errno::ENOBUFS, "open a netlink socket: No buffer space available"),
    ] {
        let error = unreachable("open a netlink socket", errno).to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn what_was_queued_stays_queued_when_nothing_could_be_put_in_force() {
    // A name that no table can have.
    let mut node = Node::new(Config {
        table: "x".repeat(300),
        ..config()
    });
    node.update(&view(
        "web",
        [port(
            Family::V4,
            &["10.244.2.1:80"],
            &[cluster_ip("10.96.0.1", 80)],
        )],
    ));
    let Node { namespace, dataplane } = &mut node;
    let error = namespace
        .enter(|| crate::dataplane::commit(dataplane))
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, CommitError::Refused { .. }), "{error}");
    node.dataplane.config.table = "kube-proxy".to_owned();
    node.commit();
    assert!(node.nft(&["list", "ruleset"]).contains("10.96.0.1 . tcp . 80"));
}

#[test]
fn a_family_that_the_kernel_does_not_have_is_left_alone() {
    let mut node = Node::new(Config {
        families: vec![Family::V4],
        ..config()
    });
    let v4 = port(Family::V4, &["10.244.2.1:80"], &[cluster_ip("10.96.0.1", 80)]);
    let v6 = port(Family::V6, &["[fd00::1]:80"], &[cluster_ip("fd00:10:96::1", 80)]);
    node.update(&view("web", [v4, v6.clone()]));
    node.dataplane.set_node_port_addresses(
        Family::V6,
        NodePortAddresses::Only(vec!["fd00::1".parse().unwrap()]),
    );
    node.commit();
    node.update(&view("api", [v6]));
    node.dataplane
        .set_node_port_addresses(Family::V6, NodePortAddresses::All);
    assert_eq!(node.commit(), CommitReport::default());
    assert_eq!(node.nft(&["list", "tables"]), "table ip kube-proxy\n");
}
