//! What a guest is made of: a kernel's package, and the first file system with everything that runs inside.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cpio::{Archive, Entry};
use super::modules::{self, Module};
use super::{Guest, init};

/// Programs that a lab, the kube-proxies in it and tests start.
const PROGRAMS: &[&str] = &["ip", "nft", "ipvsadm", "ipset", "curl"];
/// The variants of iptables, whose programs exist for two families and several tasks each.
const IPTABLES: &[&str] = &["", "-nft", "-legacy"];
/// What may be read by those programs, where the machine has it: names of protocols and services.
const TABLES: &[&str] = &["/etc/protocols", "/etc/services"];

/// A kernel, as Debian packages it, unpacked into a folder.
#[derive(Clone, Debug)]
pub struct Kernel {
    package: PathBuf,
    version: String,
}

impl Kernel {
    /// The kernel that `tools/kernel` unpacked for this repository.
    ///
    /// # Errors
    /// When it has not, or the folder holds something else.
    pub fn unpacked() -> Result<Self> {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/kernel"));
        Self::at(folder).context("run tools/kernel, which fetches a kernel")
    }

    fn at(package: &Path) -> Result<Self> {
        let boot = package.join("boot");
        let tried = || format!("find a kernel in {}", boot.display());
        for entry in fs::read_dir(&boot).with_context(tried)? {
            let name = entry?.file_name();
            if let Some(version) = name.to_string_lossy().strip_prefix("vmlinuz-") {
                return Ok(Self {
                    package: package.canonicalize()?,
                    version: version.to_owned(),
                });
            }
        }
        Err(anyhow::anyhow!("there is none")).with_context(tried)
    }

    /// Its version, as `uname -r` prints it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The file that is booted.
    pub(super) fn file(&self) -> PathBuf {
        self.package
            .join("boot")
            .join(format!("vmlinuz-{}", self.version))
    }

    /// Writes the first file system: this program and the guest's, what those start, modules, and what `init` wants to
    /// know. Everything has the path that it has here.
    pub(super) fn pack(&self, to: &File, guest: &Guest) -> Result<()> {
        let command = [&[guest.program.display().to_string()], &guest.arguments[..]].concat();
        let mut archive = Archive::default();
        for (path, entry) in [
            ("/dev/console", Entry::Device(5, 1)),
            ("/dev/null", Entry::Device(1, 3)),
            (init::COMMAND, Entry::Text(command.join("\n"))),
        ] {
            archive.put(Path::new(path), entry);
        }
        for folder in init::FOLDERS {
            archive.put(Path::new(folder), Entry::Folder);
        }
        let mut lines = String::new();
        for Module { file, parameters } in modules::find(&self.package, &self.version)? {
            lines += &format!("{} {parameters}\n", file.display());
            archive.put(&file, Entry::Copy(file.clone()));
        }
        archive.put(Path::new(init::MODULES), Entry::Text(lines));
        let mut linked = programs()?;
        linked.extend([env::current_exe()?, guest.program.clone()]);
        linked.extend(iptables_extensions()?);
        for file in &guest.files {
            if file.is_dir() {
                put_folder(&mut archive, file)?;
            } else {
                linked.insert(file.clone());
            }
        }
        linked.extend(libraries(&linked)?);
        for path in linked {
            archive.put(&path, Entry::Copy(path.clone()));
        }
        for table in TABLES.iter().map(Path::new).filter(|table| table.exists()) {
            archive.put(table, Entry::Copy(table.to_owned()));
        }
        let mut to = BufWriter::new(to);
        archive.write(&mut to)?;
        std::io::Write::flush(&mut to).context("pack the first file system")
    }
}

/// Where the programs are that run inside.
fn programs() -> Result<BTreeSet<PathBuf>> {
    let mut names: Vec<_> = PROGRAMS.iter().map(|&name| name.to_owned()).collect();
    for family in ["iptables", "ip6tables"] {
        for variant in IPTABLES {
            names.extend(["", "-save", "-restore"].map(|task| format!("{family}{variant}{task}")));
        }
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let find = |name: String| {
        let found = env::split_paths(&path).map(|folder| folder.join(&name));
        let found = found
            .filter(|file| file.is_absolute())
            .find(|file| file.is_file());
        found.with_context(|| format!("find the program {name}: install it, as tools/packages does"))
    };
    names.into_iter().map(find).collect()
}

/// The matches and targets of iptables, which its programs and `nft` load as they need them.
fn iptables_extensions() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in fs::read_dir("/usr/lib").context("read /usr/lib")? {
        let folder = folder?.path().join("xtables");
        if folder.is_dir() {
            for file in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
                files.push(file?.path());
            }
        }
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "so"));
    ensure!(
        !files.is_empty(),
        "there is no iptables extension in /usr/lib/*/xtables"
    );
    Ok(files)
}

/// The shared libraries of programs, by the path at which each is looked for, and the loader.
fn libraries(of: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").args(of).output().context("start ldd")?;
    // A program that needs no library makes it fail, which is none.
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text.lines().filter(|line| line.starts_with('\t'));
    let paths = paths.filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    let paths: BTreeSet<_> = paths.map(PathBuf::from).collect();
    Ok(paths.into_iter().collect())
}

fn put_folder(archive: &mut Archive, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            put_folder(archive, &path)?;
        } else {
            archive.put(&path, Entry::Copy(path.clone()));
        }
    }
    Ok(())
}
