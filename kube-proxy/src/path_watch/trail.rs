//! Follows a path through every folder and symbolic link that it leads over.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// The way to a path's end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trail {
    /// Folder and name of each step. Where one of these names comes, goes or changes, the path may lead
    /// elsewhere. Ends at the first name that does not exist.
    pub(super) steps: Vec<(PathBuf, OsString)>,
    /// Where the path ends, without any link; `None` when it does not exist.
    pub(super) end: Option<PathBuf>,
}

/// Follows an absolute path.
pub(super) fn follow(path: &Path) -> Trail {
    let mut trail = Trail::default();
    let mut here = PathBuf::from("/");
    let mut ahead = backwards(path);
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        trail.steps.push((here.clone(), name));
        let Ok(meta) = next.symlink_metadata() else {
            return trail;
        };
        if !meta.is_symlink() {
            here = next;
            continue;
        }
        links += 1;
        let Some(target) = std::fs::read_link(&next).ok().filter(|_| links <= MOST_LINKS) else {
            return trail;
        };
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        ahead.extend(backwards(&target));
    }
    trail.end = Some(here);
    trail
}

/// The names of a path, last one first.
fn backwards(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}
