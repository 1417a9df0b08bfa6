//! `--keep`: everything stays up, with the commands to look around.

use anyhow::Result;

use super::stage::Stage;
use crate::interrupt;
use crate::net::Names;

/// Gives the namespaces names, prints commands, and waits for Ctrl-C.
pub(super) fn around(stage: &Stage) -> Result<()> {
    let names = Names::publish(&stage.lab)?;
    let inside = |member: &str| names.of(member).map(|name| format!("ip netns exec {name}"));
    let (node, pod, client, fabric) = (
        inside("node-1")?,
        inside("pod")?,
        inside("client-1")?,
        inside("fabric")?,
    );
    println!("\n  The lab stays up until Ctrl-C. Look around from another terminal, as root:\n");
    for (command, what) in [
        (
            format!("{node} nft list table ip kube-proxy"),
            "the rules of node-1",
        ),
        (format!("{node} nft monitor"), "every change to them"),
        (
            format!("{pod} curl -s http://10.96.0.10"),
            "ClusterIP, from a pod",
        ),
        (
            format!("{pod} curl -s http://[fd00:10:96::10]"),
            "the same in IPv6",
        ),
        (
            format!("{node} curl -s http://192.168.50.11:30080"),
            "NodePort, from the host",
        ),
        (
            format!("{client} curl -s http://203.0.113.10"),
            "load balancer, from outside",
        ),
        (
            format!("{node} curl -s http://127.0.0.1:10249/metrics"),
            "kube-proxy's metrics",
        ),
        (
            format!(
                "{fabric} kubectl --kubeconfig {} edit endpointslice my-app-ipv4",
                stage.kubeconfig()?.display()
            ),
            "change the endpoints",
        ),
    ] {
        println!("    # {what}\n    {command}");
    }
    while !interrupt::happened() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    println!("\n  Everything is removed.");
    Ok(())
}
