//! Files and flags, and the configuration or the refusal that they make.

mod defaults;
mod fields;
mod flags;
mod garbage;
mod manifests;
mod modes;
mod notes;
mod refused;
mod values;
mod written;

use super::*;
use crate::cli::{Command, parse};

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn flags(line: &str) -> Flags {
    match parse(line.split_whitespace().map(str::to_owned)) {
        Ok(Command::Run(flags)) => *flags,
        other => panic!("{line}: {other:?}"),
    }
}

/// A kernel that has all that nftables mode needs.
fn any_kernel() -> (Mode, String) {
    (Mode::Nftables, "it has all that is needed".to_owned())
}

/// One that has not.
fn old_kernel() -> (Mode, String) {
    (Mode::Iptables, "it lacks numgen".to_owned())
}

fn of_flags(line: &str) -> Result<Loaded, ConfigError> {
    build(None, &flags(line), any_kernel)
}

fn of_file(body: &str, line: &str) -> Result<Loaded, ConfigError> {
    build(
        Some(&format!("{HEAD}{body}")),
        &flags(&format!("--config=x {line}")),
        any_kernel,
    )
}

/// The API server without a setting.
fn api() -> ClientOptions {
    ClientOptions {
        content_type: "application/vnd.kubernetes.protobuf".to_owned(),
        ..ClientOptions::default()
    }
}
