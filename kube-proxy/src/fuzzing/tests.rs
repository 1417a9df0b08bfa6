//! What fuzzing found and kept is read at every test.

use std::path::Path;

#[test]
fn all_that_fuzzing_kept_is_read_as_it_should_be() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let targets = [
        ("objects", super::objects as fn(&[u8])),
        ("config", super::config),
        ("manifests", super::manifests),
        ("netlink", super::netlink),
    ];
    for (name, target) in targets {
        let mut files = 0;
        for file in corpus.join(name).read_dir().unwrap() {
            let path = file.unwrap().path();
            // A test that panics shows what it printed.
            println!("{}", path.display());
            target(&std::fs::read(&path).unwrap());
            files += 1;
        }
        assert!(files > 0, "no file for {name}");
    }
}
