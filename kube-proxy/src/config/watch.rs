//! Notices that the configuration file says something else. Like upstream, the program then ends and is
//! started again by whoever runs it, because a new configuration may need everything built anew. Unlike
//! upstream's, this watch also sees the swap of symbolic links by which a ConfigMap is updated.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::path_watch::PathWatch;

/// Waits until the file holds another text than the one that was loaded; for ever when there is no file.
///
/// # Errors
/// When it does.
pub async fn changed(file: Option<(PathBuf, String)>) -> anyhow::Result<Infallible> {
    match file {
        Some((path, text)) => text_changed(&path, &text).await,
        None => std::future::pending().await,
    }
}

async fn text_changed(path: &Path, text: &str) -> anyhow::Result<Infallible> {
    let mut watch = PathWatch::new(path);
    loop {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        // A file that is gone or half written says nothing yet.
        if !watch.is_being_written(&real)
            && std::fs::read_to_string(path).is_ok_and(|now| !now.is_empty() && now != text)
        {
            bail!("content of the proxy server's configuration file was updated");
        }
        watch.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn only_another_text_is_a_change_however_it_came() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (version, text) in [("..1", "one"), ("..2", "one"), ("..3", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("config.conf"), text).unwrap();
        }
        let swap = |version: &str| {
            symlink(version, at("..tmp")).unwrap();
            fs::rename(at("..tmp"), at("..data")).unwrap();
        };
        swap("..1");
        symlink("..data/config.conf", at("config.conf")).unwrap();
        let path = at("config.conf");
        let mut watching = Box::pin(text_changed(&path, "one"));
        let mut within =
            async |millis| tokio::time::timeout(Duration::from_millis(millis), &mut watching).await;
        assert!(within(100).await.is_err());
        swap("..2");
        assert!(within(100).await.is_err(), "the same text");
        fs::remove_file(at("..data")).unwrap();
        assert!(within(100).await.is_err(), "gone");
        swap("..3");
        let error = within(5000).await.unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "content of the proxy server's configuration file was updated"
        );
    }
}
