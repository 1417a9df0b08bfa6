//! What is not known, or would be refused: an error that names it.

use super::*;

fn read(table: &str, text: &str) -> anyhow::Result<Rule> {
    Rule::read(Family::V4, table, text)
}

#[test]
fn what_is_not_known_is_named() {
    for (text, named) in [
        ("-o eth0 -j ACCEPT", "-o"),
        ("-f -j ACCEPT", "-f"),
        ("-g KUBE-SERVICES", "-g"),
        ("-p icmp -j ACCEPT", "icmp"),
        ("-m physdev ! --physdev-is-in -j ACCEPT", "physdev"),
        ("-m multiport --dports 1,2 -j ACCEPT", "multiport"),
        ("-p tcp -m tcp --sport 80 -j ACCEPT", "--sport"),
        ("-p tcp -m tcp --syn -j ACCEPT", "--syn"),
        ("-m conntrack --ctstate NEW --ctdir ORIGINAL -j ACCEPT", "--ctdir"),
        ("-m conntrack --ctstate UNTRACKED -j ACCEPT", "UNTRACKED"),
        ("-m addrtype --dst-type BROADCAST -j ACCEPT", "BROADCAST"),
        (
            "-m addrtype --dst-type LOCAL --limit-iface-in -j ACCEPT",
            "--limit-iface-in",
        ),
        ("-m statistic --mode nth --every 2 --packet 0 -j ACCEPT", "nth"),
        (
            "-m statistic --mode random --probability 0.5 --every 2 -j ACCEPT",
            "--every",
        ),
        (
            "-m recent --rcheck --seconds 5 --rdest --name A -j ACCEPT",
            "--rdest",
        ),
        (
            "-m recent --update --seconds 5 --name A -j ACCEPT",
            "--set and --rcheck",
        ),
        (
            "-m recent --rcheck --seconds 5 --mask 255.255.0.0 --name A -j ACCEPT",
            "255.255.0.0",
        ),
        ("-m mark --mark 0x1 --other -j ACCEPT", "--other"),
        ("-j REJECT --reject-with tcp-reset", "tcp-reset"),
        ("-j MARK --and-mark 0x1", "--set-xmark"),
        ("-j ACCEPT --fast", "--fast"),
        ("--dport 80 -j ACCEPT", "--dport"),
        ("-s 10.0.0.1 80 -j ACCEPT", "80"),
    ] {
        let error = read("filter", text).expect_err(text);
        assert!(format!("{error:#}").contains(named), "{text}: {error:#}");
    }
}

#[test]
fn what_the_program_or_the_kernel_would_refuse_is_an_error() {
    let (long_name, long_comment) = ("x".repeat(200), "x".repeat(256));
    for (table, text) in [
        ("filter", "-s fd00::1/128 -j ACCEPT"),
        ("filter", "-d nowhere -j ACCEPT"),
        ("filter", "! ! -s 10.0.0.1 -j ACCEPT"),
        ("filter", "-s 10.0.0.1 !"),
        ("filter", "! -j ACCEPT"),
        ("filter", "-s"),
        ("filter", "-i an-interface-too-long -j ACCEPT"),
        ("filter", "-m tcp --dport 80 -j ACCEPT"),
        ("filter", "-p udp -m tcp --dport 80 -j ACCEPT"),
        ("filter", "-p tcp -m tcp --dport 65536 -j ACCEPT"),
        ("filter", "-m conntrack -j ACCEPT"),
        ("filter", "-m addrtype -j ACCEPT"),
        ("filter", "-m mark --mark x -j ACCEPT"),
        ("filter", "-m statistic --mode random -j ACCEPT"),
        ("filter", "-m statistic --mode random --probability 1.5 -j ACCEPT"),
        (
            "filter",
            "-m statistic --mode random ! --probability 0.5 -j ACCEPT",
        ),
        ("filter", "-m recent --rcheck --reap --name A -j ACCEPT"),
        ("filter", "-m recent --set --seconds 5 --name A -j ACCEPT"),
        ("filter", "-m recent --set --rcheck --name A -j ACCEPT"),
        ("filter", "-m recent --set -j ACCEPT"),
        ("filter", "-m recent --set --name a/b -j ACCEPT"),
        ("filter", &format!("-m recent --set --name {long_name} -j ACCEPT")),
        (
            "filter",
            &format!("-m comment --comment {long_comment} -j ACCEPT"),
        ),
        ("filter", "-m comment --comment \"no end -j ACCEPT"),
        (
            "filter",
            "-m nfacct --nfacct-name a-name-that-is-longer-than-31-bytes -j ACCEPT",
        ),
        ("filter", "-j ACCEPT -s 10.0.0.1"),
        ("nat", "-j REJECT --reject-with icmp-port-unreachable"),
        ("filter", "-j REJECT --reject-with icmp6-port-unreachable"),
        ("filter", "-p tcp -j DNAT --to-destination 10.0.0.1:80"),
        ("nat", "-j DNAT --to-destination 10.0.0.1:80"),
        ("nat", "-p tcp -j DNAT --to-destination [fd00::1]:80"),
        ("filter", "-j MASQUERADE"),
        ("nat", "-j MASQUERADE --random-fully yes"),
    ] {
        assert!(read(table, text).is_err(), "{table}: {text}");
    }
}

#[test]
fn what_is_known_is_read_with_its_negations() {
    let rule = read(
        "filter",
        "! -s 127.0.0.0/8 -p tcp -m comment --comment \"some words\" -m tcp --dport 80 -m conntrack ! --ctstate \
         RELATED,DNAT -m recent --rcheck --seconds 7 --reap --name A --mask 255.255.255.255 --rsource -j KUBE-X",
    )
    .unwrap();
    let matches: Vec<(bool, What)> = rule.matches.into_iter().map(|is| (is.not, is.what)).collect();
    assert_eq!(
        matches,
        [
            (true, What::Source("127.0.0.0/8".parse().unwrap())),
            (false, What::Protocol(crate::model::object::Protocol::Tcp)),
            (false, What::DestinationPort(80)),
            (true, What::State(state::RELATED | state::DNAT)),
            (false, What::Recent("A".to_owned(), Some(Duration::from_secs(7)))),
        ]
    );
    assert_eq!(rule.comment, "some words");
    assert_eq!(rule.target, Some(Target::Jump("KUBE-X".to_owned())));
}

#[test]
fn tables_are_changed_as_the_program_changes_them() {
    let mut tables = Tables::new(Family::V4);
    let texts = |tables: &Tables, chain: &str| -> Vec<String> {
        let rules = tables.chain("filter", chain).unwrap();
        rules.iter().map(|rule| rule.text.clone()).collect()
    };
    tables
        .restore("*filter\n:A - [0:0]\n:B - [0:0]\n-A A -j DROP\n-A A -j B\n-I A -j ACCEPT\n-A INPUT -j A\nCOMMIT\n")
        .unwrap();
    assert_eq!(texts(&tables, "A"), ["-j ACCEPT", "-j DROP", "-j B"]);
    // A chain that is declared is emptied; others stay.
    tables.restore("*filter\n:A - [0:0]\n-X B\nCOMMIT\n").unwrap();
    assert_eq!((texts(&tables, "A").len(), texts(&tables, "INPUT").len()), (0, 1));
    let before = tables.clone();
    for text in [
        "*filter\n-X A\nCOMMIT\n",
        "*filter\n:A - [0:0]\n-A A -j DROP\n-X A\nCOMMIT\n",
        "*filter\n-X B\nCOMMIT\n",
        "*filter\n-X INPUT\nCOMMIT\n",
        "*filter\n-A NOWHERE -j DROP\nCOMMIT\n",
        "*filter\n-A A -j NOWHERE\nCOMMIT\n",
        "*filter\n-A A -j INPUT\nCOMMIT\n",
        "*filter\n-A A -j DROP\n",
        "*filter\n-D A -j DROP\nCOMMIT\n",
        "*filter\n:INPUT DROP [0:0]\nCOMMIT\n",
        "*filter\n:A-CHAIN-THAT-IS-LONGER-THAN-28-BYTES - [0:0]\nCOMMIT\n",
        "*raw\nCOMMIT\n",
        "-A INPUT -j DROP\n",
    ] {
        let error = tables.restore(text).expect_err(text);
        assert_eq!(tables, before, "{text}: {error:#}");
    }
}

#[test]
fn targets_in_the_wrong_place_are_an_error() {
    let node = web(&["10.180.0.1 local"]);
    for (table, rule) in [
        (
            "nat",
            "-A POSTROUTING -p tcp -j DNAT --to-destination 10.0.0.1:80",
        ),
        ("nat", "-A PREROUTING -j MASQUERADE"),
    ] {
        let mut tables = Tables::new(Family::V4);
        tables.restore(&format!("*{table}\n{rule}\nCOMMIT\n")).unwrap();
        let packet = node.packet(CLIENT, "TCP 198.51.100.7:443");
        assert!(walk(&tables, &packet, &node.surroundings).is_err(), "{rule}");
    }
    let mut tables = Tables::new(Family::V4);
    tables
        .restore("*nat\n:A - [0:0]\n-A A -j A\n-A PREROUTING -j A\nCOMMIT\n")
        .unwrap();
    let packet = node.packet(CLIENT, "TCP 198.51.100.7:443");
    let error = walk(&tables, &packet, &node.surroundings).expect_err("a circle");
    assert!(format!("{error:#}").contains("too often"), "{error:#}");
}
