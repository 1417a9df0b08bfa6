//! Settings of the kernel that are made once, at the start. Each is written only if it differs, so that a proxy with few
//! privileges can follow one that was started with `--init-only`. Upstream ends where a setting cannot be written; here
//! it is reported, for a node with another timeout still serves.

use std::io;
use std::path::Path;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::config::Conntrack;
use crate::conntrack;

/// More tracked connections than this are not asked for, however many processors there are.
const MOST_CONNECTIONS: u64 = 1 << 20;

/// Makes the settings of conntrack.
pub fn set_conntrack(wanted: &Conntrack) {
    // What cannot be loaded has no settings, which is reported for each of them.
    if !Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists()
        && let Err(err) = conntrack::load()
    {
        debug!(%err, "The kernel does not load conntrack");
    }
    conntrack_below(Path::new("/"), wanted);
}

/// Sets `/proc/sys/NAME`.
///
/// # Errors
/// When it has another value and cannot be written.
pub(crate) fn set(name: &str, value: u64) -> io::Result<()> {
    set_file(&Path::new("/proc/sys").join(name), value)
}

fn conntrack_below(root: &Path, wanted: &Conntrack) {
    let max = most_connections(wanted, processors(root));
    let seconds = |duration: Duration| duration.as_secs();
    let settings = [
        ("max", max),
        ("tcp_timeout_established", seconds(wanted.tcp_established_timeout)),
        ("tcp_timeout_close_wait", seconds(wanted.tcp_close_wait_timeout)),
        ("tcp_be_liberal", u64::from(wanted.tcp_be_liberal)),
        ("udp_timeout", seconds(wanted.udp_timeout)),
        ("udp_timeout_stream", seconds(wanted.udp_stream_timeout)),
        ("acct", u64::from(wanted.count_bytes)),
    ];
    for (name, value) in settings.into_iter().filter(|(_, value)| *value > 0) {
        report(
            &root.join(format!("proc/sys/net/netfilter/nf_conntrack_{name}")),
            value,
        );
    }
    // The table that they are in has to grow along.
    let buckets = root.join("sys/module/nf_conntrack/parameters/hashsize");
    if read(&buckets).is_some_and(|there| there < max / 4) {
        report(&buckets, max / 4);
    }
}

fn report(file: &Path, value: u64) {
    if let Err(err) = set_file(file, value) {
        let setting = file.display();
        warn!(%setting, value, %err, "A setting of conntrack could not be made; going on without");
    }
}

fn set_file(file: &Path, value: u64) -> io::Result<()> {
    if read(file) == Some(value) {
        return Ok(());
    }
    std::fs::write(file, value.to_string())?;
    info!(setting = %file.display(), value, "Set sysctl");
    Ok(())
}

fn read(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// `nf_conntrack_max`; 0 to leave it.
fn most_connections(wanted: &Conntrack, processors: u64) -> u64 {
    let number = |number: i32| u64::try_from(number).unwrap_or_default();
    match number(wanted.max_per_core) * processors {
        0 => 0,
        // Also where the least is more, as upstream.
        scaled if scaled > MOST_CONNECTIONS => MOST_CONNECTIONS,
        scaled => scaled.max(number(wanted.min)),
    }
}

/// The processors of the machine: not those that this process may use, which are fewer in a container.
fn processors(root: &Path) -> u64 {
    let online = std::fs::read_to_string(root.join("sys/devices/system/cpu/online"));
    let counted = online.ok().and_then(|online| count(online.trim()));
    let usable = || std::thread::available_parallelism().map_or(1, |usable| usable.get() as u64);
    counted.filter(|&counted| counted > 0).unwrap_or_else(usable)
}

/// How many there are in a list such as `0-3,5`.
fn count(list: &str) -> Option<u64> {
    list.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            Some(last.checked_sub(first)? + 1)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use lab::net::Namespace;

    use super::*;

    fn conntrack(max_per_core: i32, min: i32) -> Conntrack {
        Conntrack {
            max_per_core,
            min,
            tcp_established_timeout: Duration::from_secs(3600),
            tcp_close_wait_timeout: Duration::ZERO,
            tcp_be_liberal: false,
            udp_timeout: Duration::from_millis(7900),
            udp_stream_timeout: Duration::ZERO,
            count_bytes: false,
        }
    }

    #[test]
    fn the_number_of_connections_follows_the_processors_within_bounds() {
        for (max_per_core, min, processors, max) in [
            (32_768, 131_072, 2, 131_072),
            (32_768, 131_072, 8, 262_144),
            (32_768, 131_072, 128, 1 << 20),
            (0, 131_072, 8, 0),
            (1, 0, 2, 2),
            (1 << 20, 1 << 22, 2, 1 << 20),
        ] {
            let wanted = conntrack(max_per_core, min);
            assert_eq!(
                most_connections(&wanted, processors),
                max,
                "{wanted:?} {processors}"
            );
        }
        for (list, processors) in [
            ("0", Some(1)),
            ("0-3,5", Some(5)),
            ("0,2-3", Some(3)),
            ("", None),
            ("3-0", None),
        ] {
            assert_eq!(count(list), processors, "{list}");
        }
    }

    /// The files of a machine with three processors.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("sys/devices/system/cpu/online", "0-1,3\n");
        write("sys/module/nf_conntrack/parameters/hashsize", "65536\n");
        for (name, value) in [
            ("max", "65536\n"),
            ("tcp_timeout_established", "432000\n"),
            ("tcp_timeout_close_wait", "60\n"),
            ("tcp_be_liberal", "1\n"),
            ("udp_timeout", "30\n"),
            ("acct", "0\n"),
        ] {
            write(&format!("proc/sys/net/netfilter/nf_conntrack_{name}"), value);
        }
        root
    }

    #[test]
    fn settings_are_made_if_they_are_asked_for_and_the_table_grows_with_the_connections() {
        let root = machine();
        let read = |name: &str| {
            let path = format!("proc/sys/net/netfilter/nf_conntrack_{name}");
            fs::read_to_string(root.path().join(path)).unwrap()
        };
        let buckets = || fs::read_to_string(root.path().join("sys/module/nf_conntrack/parameters/hashsize"));
        conntrack_below(root.path(), &conntrack(32_768, 131_072));
        assert_eq!(read("max"), "131072");
        assert_eq!(buckets().unwrap(), "65536\n");
        assert_eq!(read("tcp_timeout_established"), "3600");
        assert_eq!(read("udp_timeout"), "7");
        assert_eq!(read("tcp_timeout_close_wait"), "60\n", "zero leaves it");
        assert_eq!(read("tcp_be_liberal"), "1\n", "it is never set to 0");
        assert_eq!(read("acct"), "0\n");
        let counting = Conntrack {
            count_bytes: true,
            ..conntrack(200_000, 0)
        };
        conntrack_below(root.path(), &counting);
        assert_eq!(read("acct"), "1");
        assert_eq!(read("max"), "600000");
        assert_eq!(buckets().unwrap(), "150000");
    }

    #[test]
    fn what_is_as_it_should_be_is_not_written_and_what_cannot_be_written_keeps_nothing_else() {
        let root = machine();
        let at = |name: &str| {
            root.path()
                .join(format!("proc/sys/net/netfilter/nf_conntrack_{name}"))
        };
        // No one can write to a directory.
        fs::remove_file(at("max")).unwrap();
        fs::create_dir(at("max")).unwrap();
        fs::write(at("udp_timeout"), "7\n").unwrap();
        conntrack_below(root.path(), &conntrack(1, 1));
        assert_eq!(fs::read_to_string(at("udp_timeout")).unwrap(), "7\n");
        assert_eq!(fs::read_to_string(at("tcp_timeout_established")).unwrap(), "3600");
    }

    #[test]
    fn the_question_that_loads_conntrack_is_one_that_the_kernel_answers() {
        let namespace = Namespace::create("conntrack").unwrap();
        namespace.enter(conntrack::load).unwrap().unwrap();
    }

    #[test]
    fn a_namespace_takes_the_settings_that_are_its_own() {
        let namespace = Namespace::create("sysctl").unwrap();
        namespace.enter(|| set_conntrack(&conntrack(0, 0))).unwrap();
        let read =
            |name: &str| namespace.run("cat", &[&format!("/proc/sys/net/netfilter/nf_conntrack_{name}")]);
        assert_eq!(read("udp_timeout").unwrap(), "7\n");
        assert_eq!(read("tcp_timeout_established").unwrap(), "3600\n");
    }
}
