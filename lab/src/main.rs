//! `lab`: the test bench's program. Parses the command line and hands over.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use lab::demo::Demo;

use lab::bench::Programming;

mod in_kernel;
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
    /// Show the main job live: a Service on two nodes, real requests, endpoints that come and go.
    Demo(DemoArguments),
    /// Run a command of this program on another kernel: an emulated guest with the one that tools/kernel fetched.
    Kernel(in_kernel::Arguments),
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

#[derive(Debug, Args)]
struct DemoArguments {
    /// The program to show [default: the kube-proxy beside this program]
    #[arg(long, value_name = "PATH")]
    kube_proxy: Option<PathBuf>,
    /// Leave everything up at the end, and print commands to look around
    #[arg(long)]
    keep: bool,
}

fn main() -> Result<ExitCode> {
    lab::kernel::init::enter();
    match Lab::parse().command {
        Command::Api(arguments) => serve_api::run(&arguments),
        Command::Demo(arguments) => {
            let demo = Demo {
                program: kube_proxy(arguments.kube_proxy.as_ref())?,
                look: Duration::from_millis(2800),
                keep: arguments.keep,
            };
            demo.run().map(|()| ExitCode::SUCCESS)
        }
        Command::Kernel(arguments) => in_kernel::run(arguments),
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
