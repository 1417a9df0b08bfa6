//! What the kernel holds, in a form in which what different ways lead to can be compared.

use std::collections::BTreeSet;

use super::Stage;

/// What the kernel holds, without what counts and numbers: its lines in order of the alphabet where order means
/// nothing (elements of sets, chains made as needed).
pub(super) fn held(stage: &Stage, mode: &str) -> BTreeSet<String> {
    let program: &[(&str, &[&str])] = match mode {
        "nftables" => &[("nft", &["-s", "list", "ruleset"])],
        _ => &[("iptables-save", &[]), ("ip6tables-save", &[])],
    };
    let mut lines = BTreeSet::new();
    for (program, arguments) in program {
        let printed = stage.node().run(program, arguments).unwrap();
        let (mut table, mut chain) = (String::new(), String::new());
        for line in printed.lines().map(str::trim) {
            match line.split(' ').next() {
                Some("table") => (table, chain) = (line.to_owned(), String::new()),
                Some("chain" | "map" | "set") => chain = line.to_owned(),
                Some(word) if word.starts_with('*') => table = format!("{program} {word}"),
                // A chain's counters, and the moment.
                Some(word) if word.starts_with(':') => {
                    lines.insert(format!("{table} {word}"));
                    continue;
                }
                Some(word) if word.starts_with('#') => continue,
                _ => {}
            }
            for part in line.trim_start_matches("elements = {").split(", ") {
                let part = part.trim_matches([' ', ',', '}']);
                lines.insert(format!("{table} {chain} {}", without_slot(part)));
            }
        }
    }
    lines
}

/// An endpoint's slot in its list depends on who came first; which list it is in does not.
fn without_slot(element: &str) -> String {
    let parts: Vec<&str> = element.split(' ').collect();
    match parts[..] {
        [ip, ".", protocol, ".", port, ".", slot, ":", ref endpoint @ ..] if slot.parse::<u32>().is_ok() => {
            let local = slot.len() > 6;
            format!("{ip} {protocol} {port} local={local} {}", endpoint.join(" "))
        }
        _ => element.to_owned(),
    }
}

pub(super) fn assert_same(after: &BTreeSet<String>, fresh: &BTreeSet<String>, seed: u64) {
    assert!(fresh.len() > 10, "{fresh:?}");
    let stale: Vec<_> = after.difference(fresh).collect();
    let missing: Vec<_> = fresh.difference(after).collect();
    assert!(
        stale.is_empty() && missing.is_empty(),
        "seed {seed}: stale {stale:#?}, missing {missing:#?}"
    );
}
