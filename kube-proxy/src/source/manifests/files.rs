//! Which files count, and how to tell that one changed.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A larger file is not read: nobody writes such a manifest on purpose.
const LARGEST: u64 = 512 << 20;

/// The file itself, or the manifests of a folder in order of name. Hidden ones (editors' and the kubelet's)
/// do not count, nor do folders within it.
pub(super) fn list(root: &Path) -> io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(root)?.is_dir() {
        return Ok(vec![root.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let manifest = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json");
        // A link that leads nowhere counts: reading it says so.
        if manifest && !hidden && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What tells two states of a file apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// The state of the file that a path leads to.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        Ok(Self {
            place: (meta.dev(), meta.ino()),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

/// The text of a file; the inner error says why what was read is none.
pub(super) fn read(path: &Path, stamp: &Stamp) -> io::Result<Result<String, String>> {
    if stamp.size > LARGEST {
        let reason = format!(
            "the file has {} bytes; the most that is read is {LARGEST}",
            stamp.size
        );
        return Ok(Err(reason));
    }
    Ok(String::from_utf8(std::fs::read(path)?).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line}: the file is not UTF-8 text")
    }))
}
