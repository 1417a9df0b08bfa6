//! Notices that the configuration file says something else, and decides what that means. What cannot be used is
//! refused, and the old configuration stays. Another verbosity takes effect at once. For everything else the program
//! ends, like upstream's, and is started again by whoever runs it, because a new configuration may need everything built
//! anew. Unlike upstream's, this watch also sees the swap of symbolic links by which a ConfigMap is updated.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::bail;
use serde_json::Value;
use tracing::{error, info};

use super::{Config, Loaded, build};
use crate::cli::Flags;
use crate::logging::{self, Levels};
use crate::path_watch::PathWatch;

/// The configuration that is in effect, and what it takes to judge another.
#[derive(Debug)]
pub struct Current {
    /// The file and its text; none when flags alone count.
    pub file: Option<(PathBuf, String)>,
    /// The flags, which stand beside the file.
    pub flags: Flags,
    /// What they make.
    pub config: Config,
    /// What is written to the log.
    pub levels: Levels,
    /// What others are told of the configuration.
    pub told: Arc<Mutex<Value>>,
}

/// What another text of the file means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Everything goes on.
    GoOn,
    /// Everything must be built anew.
    StartAnew,
}

/// Follows the file; for ever when there is none.
///
/// # Errors
/// When the program must be started anew to follow it.
pub async fn changed(mut current: Current) -> anyhow::Result<Infallible> {
    match current.file.take() {
        Some((path, text)) => follow(&path, text, |text| current.judge(text)).await,
        None => std::future::pending().await,
    }
}

impl Current {
    fn judge(&mut self, text: &str) -> Verdict {
        let mode = self.config.mode;
        // If the choice of the mode is left to this program, it was made.
        let new = match build(Some(text), &self.flags, || (mode, String::new())) {
            Ok(new) => new,
            Err(err) => {
                error!(%err, "The configuration file was changed to one that cannot be used; going on with the old one");
                return Verdict::GoOn;
            }
        };
        if new.config == self.config {
            info!("The configuration file was changed, and means the same as before");
            return Verdict::GoOn;
        }
        let logging = logging::Options {
            format: self.config.logging.format,
            ..new.config.logging.clone()
        };
        let relogged = Config {
            logging: logging.clone(),
            ..self.config.clone()
        };
        if new.config != relogged {
            return Verdict::StartAnew;
        }
        self.config = relogged;
        self.levels.set(logging.verbosity, logging.modules);
        self.tell(&new);
        info!(
            verbosity = logging.verbosity,
            "The configuration file was changed: logging is as it says now"
        );
        Verdict::GoOn
    }

    fn tell(&self, new: &Loaded) {
        if let Ok(told) = new.in_effect() {
            *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
        }
    }
}

async fn follow(
    path: &Path,
    mut text: String,
    mut judge: impl FnMut(&str) -> Verdict,
) -> anyhow::Result<Infallible> {
    let mut watch = PathWatch::new(path);
    loop {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        // A file that is gone or half written says nothing yet.
        if !watch.is_being_written(&real)
            && let Ok(now) = std::fs::read_to_string(path)
            && !now.is_empty()
            && now != text
        {
            if judge(&now) == Verdict::StartAnew {
                bail!("content of the proxy server's configuration file was updated");
            }
            text = now;
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
        let mut watching = Box::pin(follow(&path, "one".to_owned(), |_| Verdict::StartAnew));
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

    #[test]
    fn what_cannot_be_used_is_refused_and_what_can_be_changed_at_once_is() {
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        let text = |body: &str| format!("{head}{body}");
        let line = ["--config=x".to_owned(), "--hostname-override=n".to_owned()];
        let Ok(crate::cli::Command::Run(flags)) = crate::cli::parse(line) else {
            panic!("flags")
        };
        let choose = || (crate::config::Mode::Iptables, String::new());
        let loaded = build(Some(&text("clusterCIDR: 10.0.0.0/8")), &flags, choose).unwrap();
        let told = Arc::new(Mutex::new(loaded.in_effect().unwrap()));
        let mut current = Current {
            file: None,
            flags: *flags,
            config: loaded.config,
            levels: Levels::new(&logging::Options::default()),
            told: Arc::clone(&told),
        };
        let verbosity = || told.lock().unwrap()["logging"]["verbosity"].clone();
        for (body, verdict, told) in [
            ("# another word\nclusterCIDR: 10.0.0.0/8", Verdict::GoOn, 0),
            ("clusterCIDR: 10.0.0.0/80", Verdict::GoOn, 0),
            ("clusterCIDR: [", Verdict::GoOn, 0),
            (
                "clusterCIDR: 10.0.0.0/8\nlogging: {verbosity: 4}",
                Verdict::GoOn,
                4,
            ),
            (
                "clusterCIDR: 10.0.0.0/8\nlogging: {verbosity: 3}\noomScoreAdj: 0",
                Verdict::StartAnew,
                4,
            ),
            (
                "clusterCIDR: 10.0.0.0/8\nlogging: {format: json, verbosity: 4}",
                Verdict::StartAnew,
                4,
            ),
            ("clusterCIDR: 11.0.0.0/8", Verdict::StartAnew, 4),
            (
                "clusterCIDR: 10.0.0.0/8\nlogging: {verbosity: 2}",
                Verdict::GoOn,
                2,
            ),
        ] {
            assert_eq!(current.judge(&text(body)), verdict, "{body}");
            assert_eq!(verbosity(), told, "{body}");
        }
    }
}
