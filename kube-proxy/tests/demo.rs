//! The demo, hurried: the whole way from the API to packets, without a failed request.

use std::time::Duration;

use lab::demo::Demo;

#[test]
fn the_demo_runs_to_its_end_without_a_failed_request() {
    let demo = Demo {
        program: env!("CARGO_BIN_EXE_kube-proxy").into(),
        look: Duration::from_millis(100),
        keep: false,
    };
    demo.run().unwrap();
}
