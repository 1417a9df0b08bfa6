//! What the nftables dataplane costs by itself, without API and model: programs so many Services with so many
//! endpoints each in a network namespace of its own and prints the times. `kernel` is the time spent in system
//! calls, which no program that writes the same elements can go below.
//!
//! ```text
//! cargo run --release --example nftables_cost -- 10000 10
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kube_proxy::dataplane::nftables::{Config, Nftables};
use kube_proxy::dataplane::{CommitReport, Dataplane as _, LocalTraffic};
use kube_proxy::model::object::{Family, ObjectName, Protocol};
use kube_proxy::model::view::{
    AddressKind, Delivery, Endpoint, EndpointList, ServiceAddress, ServicePortView, ServiceView,
};
use lab::net::Namespace;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u32>());
    let services = args.next().transpose()?.unwrap_or(10_000);
    let endpoints = args.next().transpose()?.unwrap_or(10);
    let namespace = Namespace::create("cost")?;
    namespace.enter(|| measure(services, endpoints))?
}

fn measure(services: u32, endpoints: u32) -> Result<()> {
    let views: Vec<ServiceView> = (0..services).map(|n| view(n, endpoints, 0)).collect();
    let base = memory("VmRSS")?;
    let mut dataplane = dataplane();
    report("plan", 1, || {
        views
            .iter()
            .for_each(|view| dataplane.update(&view.name, Some(view)));
        Ok(())
    })?;
    report("program from nothing", 1, || commit(&mut dataplane))?;
    let (resident, most) = (memory("VmRSS")? - base, memory("VmHWM")? - base);
    println!("resident: {resident} KiB more than before, {most} KiB at most");
    let flips = 1000.min(services);
    report("flip one endpoint", flips, || {
        for n in 0..flips {
            let view = view(n, endpoints, 1);
            dataplane.update(&view.name, Some(&view));
            commit(&mut dataplane)?;
        }
        Ok(())
    })?;
    let additions = 100;
    report("add a Service", additions, || {
        for n in services..services + additions {
            let view = view(n, endpoints, 0);
            dataplane.update(&view.name, Some(&view));
            commit(&mut dataplane)?;
        }
        Ok(())
    })?;
    report("add and remove an endpoint", additions, || {
        for n in 0..additions {
            let view = view(n, endpoints + n % 2, 0);
            dataplane.update(&view.name, Some(&view));
            commit(&mut dataplane)?;
        }
        Ok(())
    })?;
    let mut successor = self::dataplane();
    views
        .iter()
        .for_each(|view| successor.update(&view.name, Some(view)));
    report("take over", 1, || commit(&mut successor))
}

fn dataplane() -> Nftables {
    let pods = "10.0.0.0/8"
        .parse()
        .map_or(LocalTraffic::Unknown, LocalTraffic::Cidr);
    Nftables::new(Config {
        local_traffic: [pods, LocalTraffic::Unknown],
        ..Config::default()
    })
}

fn commit(dataplane: &mut Nftables) -> Result<()> {
    let mut report = CommitReport::default();
    dataplane.commit(&mut report)?;
    anyhow::ensure!(report.refused.is_empty(), "refused: {:?}", report.refused);
    Ok(())
}

/// Runs something that does `times` things and prints what one of them took.
fn report(what: &str, times: u32, run: impl FnOnce() -> Result<()>) -> Result<()> {
    let (start, kernel) = (Instant::now(), kernel_time()?);
    run()?;
    let (took, kernel) = (start.elapsed() / times, (kernel_time()? - kernel) / times);
    println!("{what}: {took:.1?}, of which kernel {kernel:.1?}");
    Ok(())
}

/// System time of this thread, to ten milliseconds.
fn kernel_time() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat")?;
    let ticks = stat.split_whitespace().nth(14).context("no system time")?;
    Ok(Duration::from_millis(ticks.parse::<u64>()? * 10))
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
