//! Configuration files as fuzzing makes them.

use super::file::{API_VERSION, KIND};
use super::{Loaded, Mode, build};
use crate::cli::{Command, Flags, parse};

/// Reads a file. One that does not begin with what it is gets that first, so that more of it is read.
///
/// # Panics
/// When the complete file that is written of an accepted one is not accepted, or says something else.
pub(crate) fn read(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let headed = if text.starts_with("apiVersion") {
        text.to_owned()
    } else {
        format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}")
    };
    let Ok(Command::Run(flags)) = parse(["--config=x".to_owned()]) else {
        panic!("the command line is refused");
    };
    for mode in [Mode::Nftables, Mode::Iptables] {
        if let Some(loaded) = load(&headed, &flags, mode) {
            let written = written(&loaded);
            let Some(again) = load(&written, &flags, mode) else {
                panic!("refused: {written}");
            };
            assert_eq!(again.config, loaded.config, "{written}");
            assert_eq!(self::written(&again), written);
        }
    }
}

fn load(text: &str, flags: &Flags, mode: Mode) -> Option<Loaded> {
    build(Some(text), flags, || (mode, String::new())).ok()
}

fn written(loaded: &Loaded) -> String {
    assert!(loaded.in_effect().is_ok(), "what is in effect cannot be told");
    match loaded.complete_text() {
        Ok(text) => text,
        Err(error) => panic!("cannot be written: {error}"),
    }
}
