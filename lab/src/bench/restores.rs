//! What `iptables-restore` takes alone for what upstream's kube-proxy tells it: all rules at once at a start, and at each
//! later sync the chains that changed together with all that Services share. The rules are those that the kube-proxy
//! under test has put in force, which are upstream's.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::figures::{Phase, Restored, Restores, milliseconds};
use super::ground::Ground;
use super::objects::moving_target;
use super::usage;
use crate::interrupt;
use crate::net::{Namespace, Process};

/// How often the change of one endpoint is written.
const REPEATS: usize = 5;
/// How often it is looked whether a program has ended.
const GLANCE: Duration = Duration::from_millis(1);
/// What upstream writes at each sync of the nat table.
const TOP_CHAINS: [&str; 4] = [
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
];

/// Takes the rules of a node, writes them to another one at once, and then those of one change, where they are.
pub(super) fn measure(program: &str, ground: &Ground, within: Duration) -> Result<Restores> {
    let node = &ground.node()?.namespace;
    let saved = node.run(&format!("{program}-save"), &[])?;
    let change = change(&saved);
    ensure!(
        change.contains("KUBE-SEP-"),
        "no Service whose endpoint moves in {program}-save"
    );
    let untouched = Namespace::create("restore")?;
    let all = restore(program, &untouched, &without_counters(&saved), within)?;
    let mut changes = Vec::new();
    for _ in 0..REPEATS {
        let restored = restore(program, node, &change, within)?;
        changes.push(
            *restored
                .done()
                .context("iptables-restore of one change did not finish")?,
        );
    }
    changes.sort_by(|a, b| a.took.total_cmp(&b.took));
    Ok(Restores {
        all,
        one: changes[REPEATS / 2],
    })
}

/// The rules without the matches that need counters, which a node without kube-proxy does not have.
fn without_counters(saved: &str) -> String {
    // The name comes behind two blanks.
    const MATCH: &str = " -m nfacct --nfacct-name";
    let mut text = String::with_capacity(saved.len());
    for line in saved.lines() {
        match line.split_once(MATCH) {
            Some((before, rest)) => {
                let rest = rest.trim_start();
                text.push_str(before);
                text.push_str(rest.find(' ').map_or("", |end| &rest[end..]));
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// What upstream writes when one endpoint moves.
fn change(saved: &str) -> String {
    let destination = format!("-d {}/32 ", moving_target().at.ip());
    let target = |line: &str| line.rsplit_once("-j ").map(|(_, target)| target.to_owned());
    let rules = |chain: &str| -> Vec<&str> {
        let start = format!("-A {chain} ");
        saved.lines().filter(|line| line.starts_with(&start)).collect()
    };
    let services = rules("KUBE-SERVICES");
    let service = services
        .iter()
        .find(|line| line.contains(&destination) && line.contains("KUBE-SVC-"));
    let mut chains: Vec<String> = TOP_CHAINS.map(str::to_owned).into();
    if let Some(service) = service.and_then(|line| target(line)) {
        let endpoints = rules(&service).into_iter().filter_map(target);
        chains.extend(endpoints.filter(|chain| chain.starts_with("KUBE-SEP-")));
        chains.push(service);
    }
    let mut text = String::new();
    let mut table = "";
    for line in saved.lines() {
        let chain = line.strip_prefix(':').or_else(|| line.strip_prefix("-A "));
        let chain = chain.and_then(|line| line.split(' ').next());
        let is_written = match (table, chain) {
            ("filter", Some(chain)) => chain.starts_with("KUBE-") && chain != "KUBE-FIREWALL",
            ("nat", Some(chain)) => chains.iter().any(|changed| changed == chain),
            (_, Some(_)) => false,
            (_, None) => matches!(table, "filter" | "nat") && line == "COMMIT",
        };
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        }
        if is_written || matches!(line, "*filter" | "*nat") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Runs the program with an input.
fn restore(program: &str, namespace: &Namespace, input: &str, within: Duration) -> Result<Phase<Restored>> {
    let program = format!("{program}-restore");
    let mut file: File = tempfile::tempfile().context("make a temporary file")?;
    file.write_all(input.as_bytes())?;
    file.rewind()?;
    let mut command = namespace.command(&program);
    command
        .args(["-w", "5", "--noflush", "--counters"])
        .stdin(file)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    let begun = Instant::now();
    let mut process = Process::start(command)?;
    while process.is_running() {
        interrupt::check()?;
        if begun.elapsed() > within {
            return Ok(Phase::Unfinished {
                within_seconds: within.as_secs_f64(),
                reached: format!("{program} alone, with all rules at once"),
            });
        }
        sleep(GLANCE);
    }
    let took = milliseconds(begun.elapsed());
    let cpu = milliseconds(usage::cpu_of_ended(process.id())?);
    ensure!(process.has_succeeded()?, "{program} in {namespace:?} failed");
    Ok(Phase::Done(Restored { took, cpu }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_the_chains_of_its_service_and_all_shared_ones() {
        let saved = "*mangle\n:KUBE-PROXY-CANARY - [0:0]\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n\
                     -A INPUT -j KUBE-SERVICES\n-A KUBE-SERVICES -d 10.0.0.1/32 -j REJECT\nCOMMIT\n*nat\n\
                     :KUBE-SEP-A - [0:0]\n:KUBE-SEP-B - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n\
                     :KUBE-SVC-B - [0:0]\n-A KUBE-SEP-A -j DNAT\n-A KUBE-SEP-B -j DNAT\n\
                     -A KUBE-SERVICES -d 10.96.8.8/32 -j KUBE-SVC-A\n-A KUBE-SERVICES -d 10.0.0.2/32 -j KUBE-SVC-B\n\
                     -A KUBE-SVC-A -j KUBE-SEP-A\n-A KUBE-SVC-B -j KUBE-SEP-B\nCOMMIT\n";
        assert_eq!(
            change(saved),
            "*filter\n:KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES -d 10.0.0.1/32 -j REJECT\nCOMMIT\n*nat\n\
             :KUBE-SEP-A - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n-A KUBE-SEP-A -j DNAT\n\
             -A KUBE-SERVICES -d 10.96.8.8/32 -j KUBE-SVC-A\n-A KUBE-SERVICES -d 10.0.0.2/32 -j KUBE-SVC-B\n\
             -A KUBE-SVC-A -j KUBE-SEP-A\nCOMMIT\n"
        );
    }
}
