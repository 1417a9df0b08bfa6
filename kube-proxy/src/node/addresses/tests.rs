//! Addresses of a network namespace, as they come and go.

use lab::net::Namespace;
use tokio::runtime::Builder;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A namespace with a pair of links that make no addresses of their own.
fn namespace() -> Namespace {
    let namespace = Namespace::create("addresses").unwrap();
    namespace
        .sysctls(&[("net/ipv6/conf/default/addr_gen_mode", "1")])
        .unwrap();
    ip(
        &namespace,
        "link set lo up\nlink add v0 type veth peer name v1\nlink set v0 up\nlink set v1 up",
    );
    namespace
}

fn ip(namespace: &Namespace, script: &str) {
    namespace.run_with_input("ip", &["-batch", "-"], script).unwrap();
}

fn ips(text: &str) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = text.split_whitespace().map(|ip| ip.parse().unwrap()).collect();
    ips.sort_unstable();
    ips
}

/// Runs a test inside, beside the future that keeps its list up to date. Before that, `early` runs.
fn watching(
    namespace: &Namespace,
    early: impl FnOnce() + Send,
    test: impl AsyncFnOnce(&mut LocalAddresses) + Send,
) {
    let run = || {
        let (mut addresses, following) = watch();
        early();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::select! {
                never = following => match never {},
                () = test(&mut addresses) => {}
            }
        });
    };
    namespace.enter(run).unwrap();
}

/// Waits until these addresses are told.
async fn until(addresses: &mut LocalAddresses, expected: &str) {
    let expected = ips(expected);
    let told = addresses.wait_for(|told| **told == *expected);
    let came = tokio::time::timeout(PATIENCE, told).await.is_ok();
    assert!(came, "told is {:?} instead of {expected:?}", addresses.borrow());
}

#[test]
fn every_address_is_told_whatever_its_state_and_gone_when_it_is_gone() {
    let namespace = namespace();
    ip(&namespace, "addr add 192.0.2.1/24 dev v0");
    watching(
        &namespace,
        || {},
        async |addresses| {
            until(addresses, "127.0.0.1 ::1 192.0.2.1").await;
            let steps = [
                ("addr add 192.0.2.2/24 dev v0", "192.0.2.1 192.0.2.2"),
                ("addr add 192.0.2.2/32 dev v1", "192.0.2.1 192.0.2.2"),
                ("addr del 192.0.2.2/24 dev v0", "192.0.2.1 192.0.2.2"),
                ("addr del 192.0.2.1/24 dev v0", "192.0.2.2"),
                ("addr add 192.0.2.7 peer 192.0.2.8 dev v0", "192.0.2.2 192.0.2.7"),
                ("addr flush dev v1 scope global", "192.0.2.7"),
                // Deprecated, tentative, with another end.
                (
                    "addr add 2001:db8::1/64 dev v1 nodad preferred_lft 0",
                    "192.0.2.7 2001:db8::1",
                ),
                (
                    "addr add 2001:db8::2/64 dev v1",
                    "192.0.2.7 2001:db8::1 2001:db8::2",
                ),
                ("addr del 2001:db8::1/64 dev v1", "192.0.2.7 2001:db8::2"),
                (
                    "addr add 2001:db8::7 peer 2001:db8::8 dev v1 nodad",
                    "192.0.2.7 2001:db8::2 2001:db8::7",
                ),
                ("link del v0", ""),
            ];
            for (change, expected) in steps {
                ip(&namespace, change);
                until(addresses, &format!("127.0.0.1 ::1 {expected}")).await;
            }
        },
    );
}

#[test]
fn more_changes_than_the_kernel_keeps_notifications_of_end_in_the_whole_list() {
    let namespace = namespace();
    let all = || (0..20).flat_map(|high| (1..=50).map(move |low| format!("10.0.{high}.{low}")));
    let many = || {
        let add = all().map(|ip| format!("addr add {ip}/32 dev v0\n"));
        let remove = all().skip(1).map(|ip| format!("addr del {ip}/32 dev v0\n"));
        ip(&namespace, &add.chain(remove).collect::<String>());
    };
    watching(&namespace, many, async |addresses| {
        until(addresses, "127.0.0.1 ::1 10.0.0.1").await;
        ip(&namespace, "addr add 10.0.0.9/32 dev v0");
        until(addresses, "127.0.0.1 ::1 10.0.0.1 10.0.0.9").await;
        assert!(
            overflowed(&namespace),
            "the kernel kept all notifications: the test proves nothing"
        );
    });
}

/// Whether the kernel dropped notifications of some socket in the namespace.
fn overflowed(namespace: &Namespace) -> bool {
    let sockets = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/netlink"));
    let sockets = sockets.unwrap().unwrap();
    let dropped = |line: &str| line.split_whitespace().nth(8).is_some_and(|drops| drops != "0");
    sockets.lines().skip(1).any(dropped)
}

#[test]
fn a_long_list_is_read_to_its_end() {
    let namespace = namespace();
    let all: Vec<String> = (0..8)
        .flat_map(|high| (1..=250).map(move |low| format!("10.0.{high}.{low}")))
        .collect();
    ip(
        &namespace,
        &all.iter()
            .map(|ip| format!("addr add {ip}/32 dev v0\n"))
            .collect::<String>(),
    );
    let listed = namespace.enter(list).unwrap().unwrap();
    assert_eq!(listed, ips(&format!("127.0.0.1 ::1 {}", all.join(" "))));
}

#[test]
fn an_address_that_stays_is_not_told_again() {
    let namespace = namespace();
    watching(
        &namespace,
        || {},
        async |addresses| {
            until(addresses, "127.0.0.1 ::1").await;
            // The same address on another interface comes and goes.
            ip(
                &namespace,
                "addr add 127.0.0.1/32 dev v0\naddr del 127.0.0.1/32 dev v0",
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(!addresses.has_changed().unwrap());
        },
    );
}

#[test]
fn what_the_ipvs_mode_adds_for_services_is_no_address_of_the_node() {
    let namespace = namespace();
    // The interface is known by its name, whatever it is.
    ip(
        &namespace,
        "link add kube-ipvs0 type veth peer name v9\naddr add 10.96.0.1/32 dev kube-ipvs0\n\
         addr add 192.0.2.1/32 dev kube-ipvs0\naddr add 192.0.2.1/24 dev v0",
    );
    let listed = namespace.enter(list).unwrap().unwrap();
    assert_eq!(listed, ips("127.0.0.1 ::1 192.0.2.1"));
}

#[test]
fn a_list_that_ends_with_an_error_is_no_list() {
    let end = |kind: i32, number: i32| {
        let mut bytes = 20_u32.to_ne_bytes().to_vec();
        bytes.extend(u16::try_from(kind).unwrap().to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(number.to_ne_bytes());
        take_in(&bytes, None, &mut Vec::new())
    };
    for kind in [libc::NLMSG_DONE, libc::NLMSG_ERROR] {
        assert_eq!(end(kind, 0), Ok(true));
        assert_eq!(end(kind, -libc::EPERM), Err(Errno::EPERM));
        assert_eq!(end(kind, -libc::ENOBUFS), Err(Errno::ENOBUFS));
    }
}
