//! The benchmark, small: so that it cannot rot. How fast anything is, is nobody's business here.

use std::path::Path;

use lab::bench::{ApiKind, Programming};
use lab::scenario::Mode;
use serde_json::Value;

#[test]
fn a_small_benchmark_comes_to_its_end_and_has_every_figure() {
    for mode in [Mode::Nftables, Mode::Iptables, Mode::IptablesLegacy] {
        let options = Programming {
            services: 50,
            endpoints: 3,
            kube_proxy: None,
            mode,
            against: None,
            against_mode: None,
            api: vec![ApiKind::InProcess],
            starts: 2,
            moves: 5,
            moves_for: 60,
            give_up: 60,
            restore_for: 60,
            idle: 1,
            sample: 8,
            rest: 0,
            json: false,
        };
        let report = options
            .measure(Path::new(env!("CARGO_BIN_EXE_kube-proxy")))
            .unwrap();
        assert_eq!(report.failures(), Vec::<String>::new());
        let table = report.to_string();
        assert!(
            table.contains(&format!("50 Services x 3 endpoints, {mode},")),
            "{table}"
        );
        let report = serde_json::to_value(&report).unwrap();
        let restores = match mode {
            Mode::Nftables => [].as_slice(),
            _ => &[
                "/apis/0/candidates/0/restores/all/done/took",
                "/apis/0/candidates/0/restores/one/took",
            ],
        };
        let missing: Vec<_> = [
            "/apis/0/floor/protobuf/median",
            "/apis/0/floor/json_bytes",
            "/apis/0/floor/event/median",
            "/apis/0/candidates/0/binary",
            "/apis/0/candidates/0/starts/0/done/all",
            "/apis/0/candidates/0/starts/1/done/cpu",
            "/apis/0/candidates/0/synced/rss",
            "/apis/0/candidates/0/moves/done/latency/p99",
            "/apis/0/candidates/0/moves/done/cpu",
            "/apis/0/candidates/0/moved/peak",
            "/apis/0/candidates/0/restart/done/moved",
            "/apis/0/candidates/0/restart/done/cpu",
            "/apis/0/candidates/0/idle/rss",
        ]
        .iter()
        .chain(restores)
        .filter(|path| {
            let figure = report.pointer(path).and_then(Value::as_f64);
            figure.is_none_or(|figure| figure <= 0.0)
        })
        .collect();
        assert!(missing.is_empty(), "{mode}: {missing:?} in {report:#}");
        let moves = report.pointer("/apis/0/candidates/0/moves/done/latency/count");
        assert_eq!(moves, Some(&5.into()));
    }
}
