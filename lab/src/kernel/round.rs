//! Scenarios played in guests, shared out among several that run beside each other.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Guest, Kernel};
use crate::scenario::{Play, Player, folder, plays};

/// What the inside tells the outside, a line each.
#[derive(Debug, Serialize, Deserialize)]
struct Played {
    name: String,
    /// In the guest's time.
    seconds: f64,
    failure: Option<String>,
}

/// Scenarios under way in guests.
#[derive(Debug)]
pub struct Round(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    results: HashMap<String, Result<(), String>>,
    /// What of each guest that has ended is to be said of plays without a result.
    ended: HashMap<usize, String>,
    guest_of: HashMap<String, usize>,
}

impl Round {
    /// Starts so many guests for these plays. Inside, this program is started with `inside` and names of plays as its
    /// arguments, and must call [`play`].
    ///
    /// # Errors
    /// When there is no kernel to boot.
    pub fn start(names: &[String], guests: usize, kube_proxy: &Path, inside: &str) -> Result<Self> {
        let (kernel, program) = (Kernel::unpacked()?, std::env::current_exe()?);
        let shared = Arc::new(Shared::default());
        for number in 0..guests {
            let share: Vec<_> = names.iter().skip(number).step_by(guests).cloned().collect();
            let place = |name: &String| (name.clone(), number);
            shared.progress().guest_of.extend(share.iter().map(place));
            let guest = Guest {
                kernel: kernel.clone(),
                program: program.clone(),
                arguments: [&[inside.to_owned()], &share[..]].concat(),
                files: vec![folder().to_owned(), kube_proxy.to_owned()],
            };
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let end = match guest.run(|line| shared.heard(line)) {
                    Ok(end) => format!("the guest's program ended with {}, without playing it", end.code),
                    Err(error) => format!("{error:#}"),
                };
                shared.progress().ended.insert(number, end);
                shared.changed.notify_all();
            });
        }
        Ok(Self(shared))
    }

    /// Waits for the result of a play.
    ///
    /// # Errors
    /// How the play failed, or why it was not played.
    pub fn result(&self, name: &str) -> Result<(), String> {
        let mut progress = self.0.progress();
        loop {
            if let Some(result) = progress.results.get(name) {
                return result.clone();
            }
            let Some(guest) = progress.guest_of.get(name) else {
                return Err(format!("nobody plays {name}"));
            };
            if let Some(end) = progress.ended.get(guest) {
                return Err(end.clone());
            }
            let woken = self.0.changed.wait(progress);
            progress = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Played {
                name,
                seconds,
                failure,
            }) => {
                let result =
                    failure.map_or(Ok(()), |failure| Err(format!("after {seconds:.1} s: {failure}")));
                self.progress().results.insert(name, result);
                self.changed.notify_all();
            }
            // A panic, say.
            Err(_) => eprintln!("a guest says: {line}"),
        }
    }
}

/// Plays inside a guest, for the [`Round`] outside.
///
/// # Errors
/// When there is no such play, or nobody listens.
pub fn play(names: &[String], kube_proxy: &Path) -> Result<ExitCode> {
    let all = plays(folder(), None)?;
    let player = Player {
        program: kube_proxy.to_owned(),
        on_failure: None,
    };
    for name in names {
        let play = find(&all, name)?;
        let start = Instant::now();
        let failure = player.play(play).err().map(|failure| failure.to_string());
        let played = Played {
            name: name.clone(),
            seconds: start.elapsed().as_secs_f64(),
            failure,
        };
        println!("{}", serde_json::to_string(&played)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn find<'a>(all: &'a [Play], name: &str) -> Result<&'a Play> {
    let found = all.iter().find(|play| play.name() == name);
    found.with_context(|| format!("there is no play {name}"))
}
