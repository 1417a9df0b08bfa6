//! Names under `/run/netns` for a lab that people want to look around in with `ip netns exec`. Nothing else in
//! the host's own namespace is touched, and the lab itself needs no names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Lab, Namespace};

const FOLDER: &str = "/run/netns";

/// Published names; they go with this value.
#[derive(Debug)]
pub struct Names {
    lab: String,
    published: Vec<PathBuf>,
}

impl Names {
    /// Publishes every namespace of a lab, and removes names that a lab left whose process is dead.
    ///
    /// # Errors
    /// When the folder or the mounts cannot be made.
    pub fn publish(lab: &Lab) -> Result<Self> {
        fs::create_dir_all(FOLDER).with_context(|| format!("make {FOLDER}"))?;
        sweep();
        let mut names = Self {
            lab: lab.name().to_owned(),
            published: Vec::new(),
        };
        for namespace in lab.namespaces() {
            names
                .add(namespace)
                .with_context(|| format!("give {} a name", namespace.name()))?;
        }
        Ok(names)
    }

    /// The published name of a member of the lab, or of its `fabric`.
    ///
    /// # Errors
    /// When the lab has no such member.
    pub fn of(&self, member: &str) -> Result<String> {
        let name = format!("{}-{member}", self.lab);
        let published = self.published.iter().any(|path| path.ends_with(&name));
        published
            .then_some(name)
            .with_context(|| format!("the lab has no {member}"))
    }

    fn add(&mut self, namespace: &Namespace) -> Result<()> {
        let path = Path::new(FOLDER).join(namespace.name());
        File::create(&path)?;
        self.published.push(path.clone());
        let nothing = None::<&str>;
        mount(
            Some(namespace.path().as_str()),
            &path,
            nothing,
            MsFlags::MS_BIND,
            nothing,
        )?;
        Ok(())
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.published.iter().for_each(|path| remove(path));
    }
}

fn remove(path: &Path) {
    // Either fails only when somebody else removed it already.
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(path);
}

/// Removes the names of labs whose process is dead.
fn sweep() {
    let Ok(entries) = fs::read_dir(FOLDER) else {
        return;
    };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let process = name.strip_prefix("lab-").and_then(|rest| rest.split('-').next());
        let process = process.and_then(|id| id.parse::<u32>().ok());
        if process.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            remove(&path);
        }
    }
}
