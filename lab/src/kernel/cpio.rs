//! The archive that a kernel unpacks into its first file system: cpio, in the form called `newc`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Folder,
    /// A copy of this file of the host, executable.
    Copy(PathBuf),
    /// A file with this content.
    Text(String),
    /// A character device, by its major and minor number.
    Device(u32, u32),
}

/// Entries by their absolute paths.
#[derive(Debug, Default)]
pub(super) struct Archive(BTreeMap<PathBuf, Entry>);

impl Archive {
    /// Puts something at an absolute path, in the place of what was there, and makes the folders above it.
    pub(super) fn put(&mut self, path: &Path, entry: Entry) {
        for folder in path.ancestors().skip(1).filter(|above| above.parent().is_some()) {
            self.0.entry(folder.to_owned()).or_insert(Entry::Folder);
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// Writes all of it. A folder sorts before what is in it, as the kernel wants it.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        for (number, (path, entry)) in (1..).zip(&self.0) {
            let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy();
            write_entry(to, number, &name, entry)
                .map_err(|error| io::Error::new(error.kind(), format!("pack {}: {error}", path.display())))?;
        }
        write_header(to, 0, "TRAILER!!!", 0, 0, (0, 0))
    }
}

fn write_entry(to: &mut impl Write, number: u32, name: &str, entry: &Entry) -> io::Result<()> {
    let (folder, file, device) = (0o040_755, 0o100_755, 0o020_666);
    match entry {
        Entry::Folder => write_header(to, number, name, folder, 0, (0, 0)),
        Entry::Device(major, minor) => write_header(to, number, name, device, 0, (*major, *minor)),
        Entry::Text(text) => {
            let length = length(text.len() as u64)?;
            write_header(to, number, name, file, length, (0, 0))?;
            to.write_all(text.as_bytes())?;
            pad(to, length)
        }
        Entry::Copy(path) => {
            let mut source = File::open(path)?;
            let length = length(source.metadata()?.len())?;
            write_header(to, number, name, file, length, (0, 0))?;
            if io::copy(&mut source, to)? != u64::from(length) {
                return Err(io::Error::other("its length changed meanwhile"));
            }
            pad(to, length)
        }
    }
}

fn write_header(
    to: &mut impl Write,
    number: u32,
    name: &str,
    mode: u32,
    length: u32,
    device: (u32, u32),
) -> io::Result<()> {
    let name_length = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
    // Inode, mode, user, group, links, time, length, device of the file (two), device that it is (two), length of the
    // name, and a checksum that this form does not use.
    let fields = [
        number,
        mode,
        0,
        0,
        1,
        0,
        length,
        0,
        0,
        device.0,
        device.1,
        name_length,
        0,
    ];
    let fields: String = fields.iter().map(|field| format!("{field:08x}")).collect();
    write!(to, "070701{fields}{name}\0")?;
    pad(to, 6 + 13 * 8 + name_length)
}

/// Everything begins at a multiple of four bytes.
fn pad(to: &mut impl Write, length: u32) -> io::Result<()> {
    let missing = length.next_multiple_of(4) - length;
    (0..missing).try_for_each(|_| to.write_all(&[0]))
}

fn length(length: u64) -> io::Result<u32> {
    u32::try_from(length).map_err(|_| io::Error::other("it is larger than 4 GB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_lists_folders_before_their_files_and_pads_everything() {
        let mut archive = Archive::default();
        archive.put(Path::new("/b/c/d"), Entry::Text("hello".to_owned()));
        archive.put(Path::new("/dev/null"), Entry::Device(1, 3));
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        let header = |number: u32, mode: u32, length: u32, device: (u32, u32), name: u32| {
            let (major, minor) = device;
            let zero = "0".repeat(8);
            format!("070701{number:08x}{mode:08x}{zero}{zero}00000001{zero}{length:08x}{zero}{zero}")
                + &format!("{major:08x}{minor:08x}{name:08x}{zero}")
        };
        let expected = header(1, 0o40755, 0, (0, 0), 2)
            + "b\0"
            + &header(2, 0o40755, 0, (0, 0), 4)
            + "b/c\0\0\0"
            + &header(3, 0o100_755, 5, (0, 0), 6)
            + "b/c/d\0hello\0\0\0"
            + &header(4, 0o40755, 0, (0, 0), 4)
            + "dev\0\0\0"
            + &header(5, 0o20666, 0, (1, 3), 9)
            + "dev/null\0\0"
            + &header(0, 0, 0, (0, 0), 11)
            + "TRAILER!!!\0\0\0\0";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }
}
