//! A running source over real files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;

use super::super::{Manifests, run};
use super::Listener;
use crate::metrics::Metrics;
use crate::model::change::{Change, Kind};

struct Running {
    changes: Receiver<Change>,
    listener: Listener,
    metrics: Arc<Metrics>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    fn start(path: &Path) -> Self {
        let (sender, changes) = channel(16);
        let metrics = Arc::new(Metrics::new().unwrap());
        let manifests = Manifests {
            path: path.to_owned(),
            service_cluster_ip_range: vec!["10.96.0.0/16".parse().unwrap()],
            node_name: "node-1".into(),
        };
        let counted = Arc::clone(&metrics);
        let task = tokio::spawn(run(manifests, counted, sender));
        Self {
            changes,
            listener: Listener::default(),
            metrics,
            task,
        }
    }

    /// Takes changes until the listener knows exactly these Services, by name and address.
    async fn knows(&mut self, what: &str, expected: &[&str]) {
        let patience = tokio::time::sleep(Duration::from_secs(10));
        tokio::pin!(patience);
        loop {
            let lines = self.listener.lines();
            if lines == expected {
                return;
            }
            tokio::select! {
                change = self.changes.recv() => self.listener.take(change.unwrap()),
                () = &mut patience => panic!("{what}: {lines:?} instead of {expected:?}"),
            }
        }
    }

    /// Takes changes for a while; the number of those that say something.
    async fn hears(&mut self, while_: Duration) -> usize {
        let before = self.listener.changes;
        let _ = tokio::time::timeout(while_, async {
            while let Some(change) = self.changes.recv().await {
                self.listener.take(change);
            }
        })
        .await;
        self.listener.changes - before
    }
}

fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n"
    )
}

const A: &str = "service default/a: 10.0.0.1 80/TCP";
const A2: &str = "service default/a: 10.0.0.2 80/TCP";
const B: &str = "service default/b: 10.0.0.3 80/TCP";

#[tokio::test]
async fn the_first_state_comes_as_lists() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    let mut running = Running::start(dir.path());
    let mut order = Vec::new();
    while order.len() < 9 {
        order.push(running.changes.recv().await.unwrap());
    }
    let kinds = [Kind::Node, Kind::ServiceCidr, Kind::Service, Kind::EndpointSlice];
    assert_eq!(order[..4], kinds.map(Change::ListStart));
    assert!(matches!(&order[4], Change::Service(service) if *service.name.name == *"a"));
    assert_eq!(order[5..], kinds.map(Change::ListDone));
}

#[tokio::test]
async fn an_empty_folder_is_a_first_state_and_a_missing_one_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path());
    assert_eq!(running.changes.recv().await, Some(Change::ListStart(Kind::Node)));
    let late = dir.path().join("late");
    let mut running = Running::start(&late);
    let nothing = tokio::time::timeout(Duration::from_millis(100), running.changes.recv()).await;
    assert!(nothing.is_err(), "nothing is known yet: {nothing:?}");
    fs::create_dir(&late).unwrap();
    fs::write(late.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    running.knows("the folder came", &[A]).await;
}

#[tokio::test]
async fn files_of_a_folder_come_change_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("a.yaml"), service("a", "10.0.0.1")).unwrap();
    let mut running = Running::start(dir.path());
    running.knows("start", &[A]).await;
    fs::write(at("b.yml"), service("b", "10.0.0.3")).unwrap();
    running.knows("a file came", &[A, B]).await;
    fs::write(at("a.yaml"), service("a", "10.0.0.2")).unwrap();
    running.knows("written in place", &[A2, B]).await;
    fs::write(at("new"), service("a", "10.0.0.1")).unwrap();
    fs::rename(at("new"), at("a.yaml")).unwrap();
    running.knows("renamed over", &[A, B]).await;
    fs::rename(at("b.yml"), at("b.txt")).unwrap();
    running.knows("renamed to what is no manifest", &[A]).await;
    fs::write(at("notes.txt"), service("c", "10.0.0.9")).unwrap();
    fs::write(at(".hidden.yaml"), service("c", "10.0.0.9")).unwrap();
    fs::create_dir(at("folder.yaml")).unwrap();
    assert_eq!(running.hears(Duration::from_millis(300)).await, 0);
    fs::remove_file(at("a.yaml")).unwrap();
    running.knows("deleted", &[]).await;
}

#[tokio::test]
async fn saving_by_deleting_and_writing_anew_interrupts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, service("a", "10.0.0.1")).unwrap();
    for path in [dir.path(), &file] {
        let mut running = Running::start(path);
        running.knows("start", &[A]).await;
        fs::remove_file(&file).unwrap();
        assert_eq!(running.hears(Duration::from_millis(50)).await, 0, "not gone yet");
        fs::write(&file, service("a", "10.0.0.1")).unwrap();
        assert_eq!(
            running.hears(Duration::from_millis(500)).await,
            0,
            "nothing had changed"
        );
    }
}

#[tokio::test]
async fn a_file_cut_to_nothing_while_it_is_rewritten_takes_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, service("a", "10.0.0.1")).unwrap();
    let mut running = Running::start(dir.path());
    running.knows("start", &[A]).await;
    let mut writer = fs::File::create(&file).unwrap();
    fs::write(dir.path().join("b.yaml"), service("b", "10.0.0.3")).unwrap();
    running.knows("another file came meanwhile", &[A, B]).await;
    std::io::Write::write_all(&mut writer, service("a", "10.0.0.2").as_bytes()).unwrap();
    drop(writer);
    running.knows("closed", &[A2, B]).await;
}

#[tokio::test]
async fn a_config_map_swap_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (version, ip) in [("..1", "10.0.0.1"), ("..2", "10.0.0.2")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a.yaml"), service("a", ip)).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/a.yaml", at("a.yaml")).unwrap();
    let paths: [PathBuf; 2] = [at(""), at("a.yaml")];
    let mut both = paths.map(|path| Running::start(&path));
    for running in &mut both {
        running.knows("start", &[A]).await;
    }
    symlink("..2", at("..tmp")).unwrap();
    fs::rename(at("..tmp"), at("..data")).unwrap();
    fs::remove_dir_all(at("..1")).unwrap();
    for running in &mut both {
        running.knows("swapped", &[A2]).await;
    }
}

#[tokio::test]
async fn a_folder_that_vanishes_takes_nothing_away_and_counts_anew_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("m");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    let mut running = Running::start(&folder);
    running.knows("start", &[A]).await;
    fs::rename(&folder, dir.path().join("away")).unwrap();
    assert_eq!(running.hears(Duration::from_millis(400)).await, 0);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("b.yaml"), service("b", "10.0.0.3")).unwrap();
    running.knows("back with another file", &[B]).await;
}

#[tokio::test]
async fn a_broken_file_is_counted_and_right_again_when_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, service("a", "10.0.0.1")).unwrap();
    let mut running = Running::start(&file);
    running.knows("start", &[A]).await;
    for broken in [
        b"kind: [".as_slice(),
        b"\xff\xfe\x00",
        b"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: 1}\n",
    ] {
        fs::write(&file, broken).unwrap();
        assert_eq!(running.hears(Duration::from_millis(150)).await, 0);
        assert_eq!(running.metrics.manifests_broken.get(), 1);
    }
    fs::write(&file, service("a", "10.0.0.2")).unwrap();
    running.knows("mended", &[A2]).await;
    assert_eq!(running.metrics.manifests_broken.get(), 0);
}

#[tokio::test]
async fn a_file_that_could_not_be_read_is_read_when_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    symlink("missing", &file).unwrap();
    let mut running = Running::start(dir.path());
    assert_eq!(running.hears(Duration::from_millis(100)).await, 0);
    assert_eq!(running.metrics.manifests_broken.get(), 1);
    fs::write(dir.path().join("missing"), service("a", "10.0.0.1")).unwrap();
    running.knows("its target came", &[A]).await;
    assert_eq!(running.metrics.manifests_broken.get(), 0);
}
