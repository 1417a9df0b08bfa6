//! `lab`: the test bench's program. Parses the command line and hands over.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use lab::bench::Programming;

mod scenarios;
mod serve_api;

/// Network namespaces as nodes, pods and clients, with real kube-proxies on the nodes. Needs root.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Lab {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the in-process Kubernetes API by itself, for any kube-proxy or kubectl.
    Api(serve_api::Arguments),
    /// Play the scenarios: one behaviour of kube-proxy each, with real packets.
    Scenarios(scenarios::Arguments),
    /// Measure a kube-proxy from outside.
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// How fast, and at what cost, changes of the cluster reach packets.
    Programming(Programming),
}

fn main() -> Result<ExitCode> {
    match Lab::parse().command {
        Command::Api(arguments) => serve_api::run(&arguments),
        Command::Scenarios(arguments) => scenarios::run(&arguments),
        Command::Bench(Bench::Programming(arguments)) => {
            let program = kube_proxy(arguments.kube_proxy.as_ref())?;
            arguments.run(&program)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The kube-proxy that was asked for, or the one built beside this program.
fn kube_proxy(asked: Option<&PathBuf>) -> Result<PathBuf> {
    let path = match asked {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("kube-proxy"),
    };
    let found = path.canonicalize();
    found.with_context(|| {
        format!(
            "find {}: build kube-proxy, or name one by --kube-proxy",
            path.display()
        )
    })
}
