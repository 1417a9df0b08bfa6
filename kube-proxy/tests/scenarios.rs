//! Plays every scenario of `lab/scenarios/` with the real binary, in every mode and family: one test each, named
//! `FILE::MODE::FAMILY`. They need root, and fail without it.

use std::path::PathBuf;
use std::process::ExitCode;

use lab::scenario::{Play, Player, folder, leave_out_impossible, plays};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let player = Player {
        program: PathBuf::from(env!("CARGO_BIN_EXE_kube-proxy")),
        on_failure: None,
    };
    let mut plays = match plays(folder(), None) {
        Ok(plays) => plays,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    leave_out_impossible(&mut plays);
    let trial = |play: Play| {
        let player = player.clone();
        Trial::test(play.name(), move || {
            let result = player.play(&play);
            result.map_err(|failure| Failed::from(failure.to_string()))
        })
    };
    let trials = plays.into_iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
