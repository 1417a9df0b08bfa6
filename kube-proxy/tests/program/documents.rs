//! What the documents say about tests: that they are there.

use std::fs;
use std::path::Path;

#[test]
fn the_tests_and_scenarios_that_prove_compatibility_are_there() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(package.join("../docs/compatibility.md")).unwrap();
    let mut proofs = 0;
    for quoted in text.split('`').skip(1).step_by(2) {
        if let Some((file, name)) = quoted.split_once(".rs::") {
            let source = fs::read_to_string(package.join(format!("{file}.rs")));
            let source = source.unwrap_or_else(|error| panic!("{quoted}: {error}"));
            let is_there = [format!("fn {name}("), format!("const {name}:")]
                .iter()
                .any(|definition| source.contains(definition));
            assert!(is_there, "{quoted}");
        } else if quoted.starts_with("lab/scenarios/") && quoted.ends_with(".yaml") {
            assert!(package.join("..").join(quoted).exists(), "{quoted}");
        } else {
            continue;
        }
        proofs += 1;
    }
    assert!(proofs > 50, "{proofs} are named");
}
