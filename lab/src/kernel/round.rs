//! Scenarios played in guests, and unit tests run there, shared out among several that run beside each other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{End, Guest, Kernel, unit_tests};
use crate::interrupt;
use crate::scenario::{Player, folder, plays};

/// What the inside tells the outside, a line each.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    Begun {
        name: String,
    },
    Played {
        name: String,
        /// In the guest's time.
        seconds: f64,
        failure: Option<String>,
    },
}

/// What is played with.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The kube-proxy of the scenarios.
    pub kube_proxy: PathBuf,
    /// The program of the unit tests, if there are any among the plays.
    pub unit_tests: Option<PathBuf>,
}

/// Scenarios under way in guests.
#[derive(Debug)]
pub struct Round(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    results: Mutex<HashMap<String, Result<(), String>>>,
    changed: Condvar,
}

impl Round {
    /// Starts so many guests for these plays and unit tests. Inside, this program is started with `inside`, the path of the
    /// unit tests (or nothing) and names as its arguments, and must call [`play`] with all that follows `inside`. Where a guest ends early, the play under way has failed, and a new guest
    /// goes on with those that come after it.
    ///
    /// # Errors
    /// When there is no kernel to boot.
    pub fn start(names: &[String], guests: usize, programs: &Programs, inside: &str) -> Result<Self> {
        let (kernel, program) = (Kernel::unpacked()?, std::env::current_exe()?);
        let shared = Arc::new(Shared::default());
        for number in 0..guests {
            let share: Vec<_> = names.iter().skip(number).step_by(guests).cloned().collect();
            let guest = Guest {
                kernel: kernel.clone(),
                program: program.clone(),
                arguments: Vec::new(),
                files: [folder().to_owned(), programs.kube_proxy.clone()]
                    .into_iter()
                    .chain(programs.unit_tests.clone())
                    .collect(),
            };
            let unit_tests = programs.unit_tests.as_ref();
            let unit_tests = unit_tests.map_or_else(String::new, |path| path.display().to_string());
            let (shared, inside) = (Arc::clone(&shared), [inside.to_owned(), unit_tests]);
            let boot = move |names: &[String], heard: &mut dyn FnMut(&str)| {
                let arguments = [&inside, names].concat();
                let guest = Guest {
                    arguments,
                    ..guest.clone()
                };
                guest.run(heard)
            };
            thread::spawn(move || play_all(share, boot, |name, result| shared.tell(name, result)));
        }
        Ok(Self(shared))
    }

    /// Waits for the result of a play, one of those that it was started with.
    ///
    /// # Errors
    /// How the play failed, or why it was not played.
    pub fn result(&self, name: &str) -> Result<(), String> {
        let mut results = self.0.results();
        loop {
            if let Some(result) = results.get(name) {
                return result.clone();
            }
            let woken = self.0.changed.wait(results);
            results = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn results(&self) -> MutexGuard<'_, HashMap<String, Result<(), String>>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, name: String, result: Result<(), String>) {
        self.results().insert(name, result);
        self.changed.notify_all();
    }
}

/// Plays all of a share, in as many guests as it takes, and tells the result of each. `boot` runs one guest.
fn play_all(
    mut left: Vec<String>,
    mut boot: impl FnMut(&[String], &mut dyn FnMut(&str)) -> Result<End>,
    mut tell: impl FnMut(String, Result<(), String>),
) {
    while !left.is_empty() {
        let (mut under_way, mut played) = (None, Vec::new());
        let end = boot(&left, &mut |line| match serde_json::from_str(line) {
            Ok(Said::Begun { name }) => under_way = Some(name),
            Ok(Said::Played {
                name,
                seconds,
                failure,
            }) => {
                under_way = None;
                played.push(name.clone());
                let failure = failure.map(|failure| format!("after {seconds:.1} s: {failure}"));
                tell(name, failure.map_or(Ok(()), Err));
            }
            // A panic, say.
            Err(_) => eprintln!("a guest says: {line}"),
        });
        let why = match end {
            Ok(end) => format!("the guest's program ended with {}", end.code),
            Err(error) => format!("{error:#}"),
        };
        if let Some(name) = under_way {
            played.push(name.clone());
            tell(name, Err(format!("this was under way when {why}")));
        }
        left.retain(|name| !played.contains(name));
        // A guest that came to nothing would do so again.
        if played.is_empty() || interrupt::happened() {
            for name in left.drain(..) {
                tell(name, Err(format!("not played: {why}")));
            }
        }
    }
}

/// What is tested in a guest and is neither a scenario nor a unit test: a name, and what panics unless all is as it should
/// be. A panic ends the guest, and the outside shows what it says.
pub type Other = (&'static str, fn());

/// Plays inside a guest, for the [`Round`] outside: the arguments behind its `inside`. Those names that `others` have are
/// no plays, and what is neither is a unit test.
///
/// # Errors
/// When there is no such play, or nobody listens.
pub fn play(arguments: &[String], kube_proxy: &Path, others: &[Other]) -> Result<ExitCode> {
    let (unit_tests, names) = arguments.split_first().context("no path of unit tests")?;
    let all = plays(folder(), None)?;
    let player = Player {
        program: kube_proxy.to_owned(),
        on_failure: None,
    };
    for name in names {
        say(&Said::Begun { name: name.clone() })?;
        let start = Instant::now();
        let other = others.iter().find(|(other, _)| other == name);
        let failure = match (other, all.iter().find(|play| play.name() == *name)) {
            (Some((_, test)), _) => {
                test();
                None
            }
            (None, Some(play)) => player.play(play).err().map(|failure| failure.to_string()),
            (None, None) => {
                ensure!(!unit_tests.is_empty(), "there is no play {name}");
                let ran = unit_tests::run(Path::new(unit_tests), name);
                ran.err().map(|error| format!("{error:#}"))
            }
        };
        say(&Said::Played {
            name: name.clone(),
            seconds: start.elapsed().as_secs_f64(),
            failure,
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn say(said: &Said) -> Result<()> {
    println!("{}", serde_json::to_string(said)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use anyhow::bail;

    use super::*;

    /// The results of plays a to e, when guests play as `guest` says: what they say, and how they end. Each is told the
    /// plays that it is started with.
    fn results(mut guest: impl FnMut(&str, &mut dyn FnMut(Said)) -> Result<End>) -> BTreeMap<String, String> {
        let share = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let mut results = BTreeMap::new();
        play_all(
            share,
            |names, heard| {
                guest(&names.concat(), &mut |said| {
                    heard(&serde_json::to_string(&said).unwrap());
                })
            },
            |name, result| {
                let text = result.map_or_else(|error| error, |()| "ok".to_owned());
                assert_eq!(results.insert(name, text), None, "told twice");
            },
        );
        results
    }

    fn begun(name: char) -> Said {
        Said::Begun {
            name: name.to_string(),
        }
    }

    fn played(name: char, failure: Option<&str>) -> Said {
        Said::Played {
            name: name.to_string(),
            seconds: 1.0,
            failure: failure.map(str::to_owned),
        }
    }

    #[test]
    fn a_guest_that_ends_early_costs_the_play_under_way_and_no_other() {
        let mut boots = Vec::new();
        let results = results(|names, say| {
            boots.push(names.to_owned());
            for name in names.chars() {
                say(begun(name));
                match name {
                    'b' => return Ok(End { code: 101 }),
                    'd' => bail!("the guest ended without a verdict"),
                    _ => say(played(name, (name == 'c').then_some("no answer"))),
                }
            }
            Ok(End { code: 0 })
        });
        assert_eq!(boots, ["abcde", "cde", "e"]);
        let of = |name: &str| results[name].as_str();
        assert_eq!((of("a"), of("e")), ("ok", "ok"));
        assert_eq!(
            of("b"),
            "this was under way when the guest's program ended with 101"
        );
        assert_eq!(of("c"), "after 1.0 s: no answer");
        assert_eq!(
            of("d"),
            "this was under way when the guest ended without a verdict"
        );
    }

    #[test]
    fn between_two_plays_a_guest_may_end_at_nobodys_cost() {
        let results = results(|names, say| {
            let name = names.chars().next().unwrap();
            say(begun(name));
            say(played(name, None));
            bail!("no verdict")
        });
        assert_eq!(results.len(), 5);
        assert!(results.values().all(|result| result == "ok"), "{results:?}");
    }

    #[test]
    fn a_guest_that_comes_to_no_play_is_not_booted_again() {
        let mut boots = 0;
        let results = results(|_, _| {
            boots += 1;
            bail!("the kernel does not boot")
        });
        assert_eq!(boots, 1);
        assert_eq!(results.len(), 5);
        let expected = "not played: the kernel does not boot";
        assert!(results.values().all(|result| result == expected), "{results:?}");
    }
}
