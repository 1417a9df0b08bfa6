//! What a dataplane costs by itself, without API and model: programs so many Services with so many endpoints each in a
//! network namespace of its own and prints the times. Time in system calls is what no program that writes the same
//! can go below; time in programs is that of `iptables-restore` and `iptables-save`.
//!
//! ```text
//! cargo run --release --example dataplane_cost -- nftables 10000 10
//! cargo run --release --example dataplane_cost -- iptables 10000 10
//! cargo run --release --example dataplane_cost -- iptables-legacy 10000 10
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube_proxy::dataplane::iptables::{self, Iptables};
use kube_proxy::dataplane::nftables::{self, Nftables};
use kube_proxy::dataplane::{CommitReport, Dataplane, LocalTraffic};
use kube_proxy::model::object::{Family, ObjectName, Protocol};
use kube_proxy::model::view::{
    AddressKind, Delivery, Endpoint, EndpointList, ServiceAddress, ServicePortView, ServiceView,
};
use lab::net::Namespace;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mode = args.next().unwrap_or_else(|| "nftables".to_owned());
    let mut numbers = args.map(|arg| arg.parse::<u32>());
    let services = numbers.next().transpose()?.unwrap_or(10_000);
    let endpoints = numbers.next().transpose()?.unwrap_or(10);
    let namespace = Namespace::create("cost")?;
    if mode == "iptables-legacy" {
        namespace.run(
            "iptables-legacy",
            &["-w", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT"],
        )?;
    }
    namespace.enter(|| measure(&mode, services, endpoints))?
}

fn measure(mode: &str, services: u32, endpoints: u32) -> Result<()> {
    let views: Vec<ServiceView> = (0..services).map(|n| view(n, endpoints, 0)).collect();
    let plan = |dataplane: &mut dyn Dataplane| {
        views
            .iter()
            .for_each(|view| dataplane.update(&view.name, Some(view)));
    };
    // Each run of a program takes a while.
    let repeat = if mode == "nftables" { 1000 } else { 10 };
    let base = memory("VmRSS")?;
    let mut predecessor = dataplane(mode)?;
    let dataplane = &mut *predecessor;
    report("plan", 1, || {
        plan(dataplane);
        Ok(())
    })?;
    report("program from nothing", 1, || commit(dataplane))?;
    let (resident, most) = (memory("VmRSS")? - base, memory("VmHWM")? - base);
    println!("resident: {resident} KiB more than before, {most} KiB at most");
    let flips = repeat.min(services);
    report("flip one endpoint", flips, || {
        for n in 0..flips {
            let view = view(n, endpoints, 1);
            dataplane.update(&view.name, Some(&view));
            commit(dataplane)?;
        }
        Ok(())
    })?;
    let additions = repeat.min(100);
    report("add a Service", additions, || {
        for n in services..services + additions {
            let view = view(n, endpoints, 0);
            dataplane.update(&view.name, Some(&view));
            commit(dataplane)?;
        }
        Ok(())
    })?;
    report("remove a Service", additions, || {
        for n in services..services + additions {
            dataplane.update(&view(n, endpoints, 0).name, None);
            commit(dataplane)?;
        }
        Ok(())
    })?;
    report("add and remove an endpoint", additions, || {
        for n in 0..additions {
            let view = view(n, endpoints + n % 2, 0);
            dataplane.update(&view.name, Some(&view));
            commit(dataplane)?;
        }
        Ok(())
    })?;
    // A process that has ended hears nothing, and for one that does the kernel writes down all that others do.
    drop(predecessor);
    let mut successor = self::dataplane(mode)?;
    plan(&mut *successor);
    report("take over", 1, || commit(&mut *successor))?;
    report("what follows at once, the rest of it", 1, || {
        commit(&mut *successor)
    })?;
    drop(successor);
    let mut last = self::dataplane(mode)?;
    report("take over without a Service", 1, || commit(&mut *last))?;
    report("the rest of it", 1, || commit(&mut *last))
}

fn dataplane(mode: &str) -> Result<Box<dyn Dataplane>> {
    let pods = "10.0.0.0/8"
        .parse()
        .map_or(LocalTraffic::Unknown, LocalTraffic::Cidr);
    let local_traffic = [pods, LocalTraffic::Unknown];
    Ok(match mode {
        "nftables" => Box::new(Nftables::new(nftables::Config {
            local_traffic,
            ..nftables::Config::default()
        })),
        "iptables" | "iptables-legacy" => Box::new(Iptables::new(iptables::Config {
            masquerade_mark: 1 << 14,
            local_traffic,
            localhost_node_ports: true,
            families: vec![Family::V4],
            primary: Family::V4,
            sync_period: Duration::from_secs(30),
            drops_invalid: true,
        })),
        mode => bail!("{mode} is no mode: nftables, iptables, iptables-legacy"),
    })
}

fn commit(dataplane: &mut dyn Dataplane) -> Result<()> {
    let mut report = CommitReport::default();
    dataplane.commit(&mut report)?;
    anyhow::ensure!(report.refused.is_empty(), "refused: {:?}", report.refused);
    Ok(())
}

/// Runs something that does `times` things and prints what one of them took.
fn report(what: &str, times: u32, run: impl FnOnce() -> Result<()>) -> Result<()> {
    let (start, before) = (Instant::now(), used()?);
    run()?;
    let took = start.elapsed() / times;
    let after = used()?;
    let [cpu, kernel, programs] = [0, 1, 2].map(|at| (after[at] - before[at]) / times);
    print!("{what}: {took:.1?}, CPU {cpu:.1?}, of which in the kernel {kernel:.1?}");
    match programs {
        Duration::ZERO => println!(),
        programs => println!("; in programs {programs:.1?}"),
    }
    Ok(())
}

/// CPU time of this thread, that part of it which was spent in system calls, and that of programs that have ended; the
/// latter two to ten milliseconds.
fn used() -> Result<[Duration; 3]> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let ran = schedstat.split(' ').next().context("no CPU time")?.parse()?;
    let ticks = |file: &str, fields: &[usize]| -> Result<Duration> {
        let stat = std::fs::read_to_string(file)?;
        let all: Vec<&str> = stat.split_whitespace().collect();
        let mut ticks = 0;
        for field in fields {
            ticks += all.get(*field).context("no CPU time")?.parse::<u64>()?;
        }
        Ok(Duration::from_millis(ticks * 10))
    };
    Ok([
        Duration::from_nanos(ran),
        ticks("/proc/thread-self/stat", &[14])?,
        ticks("/proc/self/stat", &[15, 16])?,
    ])
}

/// Memory of this process in KiB: `VmRSS` (resident) or `VmHWM` (the most that was).
fn memory(which: &str) -> Result<i64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(which))
        .with_context(|| format!("no {which}"))?;
    let number = line.trim_start_matches(':').trim_end_matches("kB");
    Ok(number.trim().parse()?)
}

/// Service number `n`, its last endpoint of this generation.
fn view(n: u32, endpoints: u32, generation: u32) -> ServiceView {
    let ip = |net: u32, host: u32| IpAddr::V4(Ipv4Addr::from_bits((net << 24) + host));
    let endpoint = |index: u32| Endpoint {
        ip: match index + 1 == endpoints {
            true => ip(11 + generation, n * endpoints + index),
            false => ip(10, n * endpoints + index),
        },
        port: 8080,
        is_local: false,
        ipvs_weight: None,
    };
    let to = |masquerade| Delivery::To {
        endpoints: EndpointList::Cluster,
        masquerade,
    };
    ServiceView {
        name: ObjectName::new("default", format!("service-{n}")),
        created: None,
        cluster_ips: vec![ip(172, n)],
        conflicts: Vec::new(),
        health_check: None,
        ipvs_scheduler: None,
        ports: vec![ServicePortView {
            port_name: "http".into(),
            protocol: Protocol::Tcp,
            family: Family::V4,
            cluster_endpoints: (0..endpoints).map(endpoint).collect(),
            flow_endpoints: Vec::new(),
            local_endpoints: Vec::new(),
            affinity: None,
            addresses: vec![ServiceAddress {
                kind: AddressKind::ClusterIp,
                ip: Some(ip(172, n)),
                port: 80,
                source_ranges: None,
                from_pods: to(false),
                from_host: to(true),
                from_outside: to(true),
            }],
        }],
    }
}
