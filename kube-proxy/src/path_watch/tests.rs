//! Every way to change a file that people and programs have, in a folder of its own.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;

use super::*;

/// Whether a change is told within a generous time.
async fn told(watch: &mut PathWatch) -> bool {
    tokio::time::timeout(Duration::from_secs(5), watch.changed())
        .await
        .is_ok()
}

/// Whether nothing is told for a while.
async fn quiet(watch: &mut PathWatch) -> bool {
    tokio::time::timeout(Duration::from_millis(150), watch.changed())
        .await
        .is_err()
}

#[tokio::test]
async fn a_file_is_watched_through_writing_renaming_deleting_and_making_anew() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, "1").unwrap();
    let mut watch = PathWatch::new(&file);
    let steps: &[(&str, &dyn Fn())] = &[
        ("written in place", &|| fs::write(&file, "2").unwrap()),
        ("renamed over", &|| {
            fs::write(dir.path().join("new"), "3").unwrap();
            fs::rename(dir.path().join("new"), &file).unwrap();
        }),
        ("written after that", &|| fs::write(&file, "4").unwrap()),
        ("deleted", &|| fs::remove_file(&file).unwrap()),
        ("made anew", &|| fs::write(&file, "5").unwrap()),
        ("replaced by a link", &|| {
            fs::remove_file(&file).unwrap();
            fs::write(dir.path().join("target"), "6").unwrap();
            symlink("target", &file).unwrap();
        }),
        ("the link's target written", &|| {
            fs::write(dir.path().join("target"), "7").unwrap();
        }),
    ];
    for (what, step) in steps {
        step();
        assert!(told(&mut watch).await, "{what}");
        assert!(quiet(&mut watch).await, "{what}: told once");
    }
}

#[tokio::test]
async fn other_files_in_the_folder_wake_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, "1").unwrap();
    let mut watch = PathWatch::new(&file);
    fs::write(dir.path().join("b.yaml"), "1").unwrap();
    fs::remove_file(dir.path().join("b.yaml")).unwrap();
    assert!(quiet(&mut watch).await);
}

#[tokio::test]
async fn a_swap_of_links_as_the_kubelet_makes_it_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (version, text) in [("..1", "one"), ("..2", "two")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a.yaml"), text).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/a.yaml", at("a.yaml")).unwrap();
    for path in [at("a.yaml"), at("")] {
        let mut watch = PathWatch::new(&path);
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert!(told(&mut watch).await, "{}", path.display());
        assert_eq!(fs::read_to_string(at("a.yaml")).unwrap(), "two");
        symlink("..1", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert!(told(&mut watch).await, "{} back", path.display());
        fs::write(at("..1/a.yaml"), "one more").unwrap();
        assert!(told(&mut watch).await, "{} behind the links", path.display());
    }
}

#[tokio::test]
async fn a_folder_is_watched_even_before_it_exists_and_after_it_was_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("some/where");
    let mut watch = PathWatch::new(&folder);
    let steps: &[(&str, &dyn Fn())] = &[
        ("the folder above made", &|| {
            fs::create_dir(dir.path().join("some")).unwrap();
        }),
        ("made", &|| fs::create_dir(&folder).unwrap()),
        ("a file made", &|| fs::write(folder.join("a"), "1").unwrap()),
        ("a file written", &|| fs::write(folder.join("a"), "2").unwrap()),
        ("a file deleted", &|| fs::remove_file(folder.join("a")).unwrap()),
        ("moved away", &|| {
            fs::rename(&folder, dir.path().join("away")).unwrap();
        }),
        ("made anew", &|| fs::create_dir(&folder).unwrap()),
        ("a file made in the new one", &|| {
            fs::write(folder.join("b"), "1").unwrap();
        }),
        ("all deleted", &|| {
            fs::remove_dir_all(dir.path().join("some")).unwrap();
        }),
    ];
    for (what, step) in steps {
        step();
        assert!(told(&mut watch).await, "{what}");
    }
    assert!(quiet(&mut watch).await);
}

#[tokio::test]
async fn a_file_that_is_being_written_is_told_when_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("a.yaml");
    fs::write(&path, "1").unwrap();
    let mut watch = PathWatch::new(dir.path());
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(b"half").unwrap();
    assert!(quiet(&mut watch).await);
    assert!(watch.is_being_written(&path));
    assert!(watch.look_again().is_some());
    drop(file);
    assert!(told(&mut watch).await);
    assert!(!watch.is_being_written(&path));
    assert_eq!(watch.take_written(), HashSet::from([path]));
    assert!(watch.take_written().is_empty());
}

#[test]
fn links_that_lead_in_a_circle_end() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    symlink("b", dir.path().join("a")).unwrap();
    symlink("a", dir.path().join("b")).unwrap();
    assert_eq!(follow(&dir.path().join("a")).end, None);
    symlink("sub/../missing/./y", dir.path().join("c")).unwrap();
    let trail = follow(&dir.path().join("c"));
    assert_eq!(trail.end, None);
    assert_eq!(trail.steps.last().unwrap().1, "missing");
}
