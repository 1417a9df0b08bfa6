//! What a kube-proxy finds on a machine: manifests, and the programs of iptables with their parts, some of which may
//! be missing.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::net::Namespace;
use tempfile::TempDir;

use super::running::PROGRAM;

/// A Service with one address, a node port unless that is 0, and these endpoints.
pub(crate) fn service(name: &str, ip: &str, node_port: u16, endpoints: &[&str]) -> String {
    let (family, kind) = match ip.contains(':') {
        true => ("IPv6", "ClusterIP"),
        false => ("IPv4", "NodePort"),
    };
    let node_port = match node_port {
        0 => String::new(),
        port => format!(", nodePort: {port}"),
    };
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|ip| format!("{{addresses: ['{ip}']}}"))
        .collect();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{type: {kind}, clusterIP: '{ip}', ipFamilies: [{family}], ports: [{{port: 80{node_port}}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\n\
         metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         ports: [{{name: '', port: 8080}}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    )
}

/// A folder of manifests, and the argument that names it.
pub(crate) struct Manifests {
    dir: TempDir,
    pub(crate) argument: String,
}

impl Manifests {
    pub(crate) fn new(objects: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let argument = format!("--manifests={}", dir.path().display());
        let manifests = Self { dir, argument };
        manifests.write(objects);
        manifests
    }

    /// One Service of each family, with one endpoint each.
    pub(crate) fn plain() -> Self {
        Self::new(&[
            service("web", "10.96.0.10", 30080, &["10.244.0.9"]),
            service("web-6", "fd00:96::10", 0, &["fd00:10:244::9"]),
        ])
    }

    /// Lets every user read them.
    pub(crate) fn open_to_all(&self) {
        for (path, mode) in [
            (self.dir.path().to_owned(), 0o755),
            (self.dir.path().join("objects.yaml"), 0o644),
        ] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    pub(crate) fn write(&self, objects: &[String]) {
        fs::write(self.dir.path().join("objects.yaml"), objects.concat()).unwrap();
    }
}

/// A folder of programs to be found by: those of iptables, but not those for which `instead` has a text; these are
/// scripts of that text, or are missing when it is empty.
pub(crate) fn programs(instead: impl Fn(&str) -> Option<&'static str>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = std::env::var("PATH").unwrap();
    for name in ["iptables", "ip6tables"]
        .iter()
        .flat_map(|base| ["", "-nft", "-legacy"].map(|variant| format!("{base}{variant}")))
        .flat_map(|program| ["", "-save", "-restore"].map(|suffix| format!("{program}{suffix}")))
    {
        let at = dir.path().join(&name);
        match instead(&name) {
            None => {
                let found = path
                    .split(':')
                    .map(|dir| Path::new(dir).join(&name))
                    .find(|file| file.exists());
                symlink(found.unwrap_or_else(|| panic!("{name} is not installed")), at).unwrap();
            }
            Some("") => {}
            Some(script) => {
                fs::write(&at, format!("#!/bin/sh\n{script}\n")).unwrap();
                fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
    }
    dir
}

/// A folder with the extensions of iptables but these.
pub(crate) fn extensions_without(missing: &[&str]) -> TempDir {
    let of = |dir: &str| {
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    let mut places: Vec<PathBuf> = of("/usr/lib").collect();
    places.extend(["/usr/lib", "/usr/lib64", "/lib"].map(PathBuf::from));
    let place = places
        .into_iter()
        .map(|place| place.join("xtables"))
        .find(|place| place.join("libxt_tcp.so").exists())
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    for extension in of(&place.display().to_string()) {
        let name = extension.file_name().unwrap().to_string_lossy().into_owned();
        if !missing
            .iter()
            .any(|missing| name == format!("libxt_{missing}.so"))
        {
            symlink(&extension, dir.path().join(name)).unwrap();
        }
    }
    dir
}

/// kubelet's mark, which tells that the node uses the legacy variant.
pub(crate) fn use_legacy(namespace: &Namespace) {
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        let arguments = ["-w", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT"];
        namespace.run(program, &arguments).unwrap();
    }
}

/// The program with this variable in its environment.
pub(crate) fn with_variable(namespace: &Namespace, name: &str, value: &Path) -> Command {
    let mut command = namespace.command(PROGRAM);
    command.env(name, value);
    command
}
