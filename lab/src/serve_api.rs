//! `lab api`: the in-process Kubernetes API by itself, to try any kube-proxy or kubectl on.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use lab::api::{Credential, QuickService, QuickSlice, Server};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Listen on this address and port
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))]
    listen: SocketAddr,
    /// Begin with the objects of these YAML or JSON files
    #[arg(long, value_name = "PATH")]
    manifests: Vec<PathBuf>,
    /// Begin with so many Services
    #[arg(long, default_value_t = 0)]
    services: u16,
    /// Endpoints of each of them
    #[arg(long, default_value_t = 10)]
    endpoints: u8,
}

/// Serves until Ctrl-C.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let address = arguments.listen;
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    let server = Server::builder().listener(listener).start()?;
    for path in &arguments.manifests {
        server.apply_file(path)?;
    }
    for number in 0..arguments.services {
        put(&server, number, arguments.endpoints);
    }
    println!("serving  {}", server.url());
    let kubeconfig = server.kubeconfig(Credential::Token)?;
    println!(
        "try      kubectl --kubeconfig {} get services",
        kubeconfig.display()
    );
    wait_for_signal()?;
    Ok(ExitCode::SUCCESS)
}

/// Waits for Ctrl-C or SIGTERM.
fn wait_for_signal() -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}

/// A Service of 10.128.0.0/16 with endpoints of 10.192.0.0/10.
fn put(server: &Server, number: u16, endpoints: u8) {
    let [high, low] = number.to_be_bytes();
    let name = format!("service-{number}");
    server.put_service(&QuickService {
        namespace: "default",
        name: &name,
        cluster_ip: [10, 128, high, low].into(),
        port: 80,
        node_port: 0,
    });
    let first = u32::from_be_bytes([10, 192, 0, 0]) + u32::from(number) * u32::from(endpoints);
    let addresses: Vec<_> = (first..first + u32::from(endpoints))
        .map(|address| address.to_be_bytes().into())
        .collect();
    server.put_slice(&QuickSlice {
        namespace: "default",
        name: &name,
        service: &name,
        endpoints: &addresses,
        port: 8080,
        node: "node-1",
    });
}
