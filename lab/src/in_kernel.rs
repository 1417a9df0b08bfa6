//! `lab kernel`: runs a command of this program, or any other program, on another kernel.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use lab::kernel::{Guest, Kernel};
use lab::scenario::folder;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Take this program or folder along, under its own path, beside the scenarios and the kube-proxy beside this program
    #[arg(long, value_name = "PATH")]
    with: Vec<PathBuf>,
    /// Run this program, instead of a command of this one
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// The command to run, with its arguments, such as: scenarios cluster-ip-tcp
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let mut files = vec![folder().to_owned()];
    files.extend(super::kube_proxy(None).ok());
    for path in &arguments.with {
        let found = path.canonicalize();
        files.push(found.with_context(|| format!("find {}", path.display()))?);
    }
    let program = match arguments.program {
        None => std::env::current_exe()?,
        Some(path) => path
            .canonicalize()
            .with_context(|| format!("find {}", path.display()))?,
    };
    let guest = Guest {
        kernel: Kernel::unpacked()?,
        program,
        arguments: arguments.command,
        files,
    };
    eprintln!(
        "booting Linux {}, emulated: this takes a while",
        guest.kernel.version()
    );
    let end = guest.run(|line| println!("{line}"))?;
    Ok(ExitCode::from(end.code))
}
