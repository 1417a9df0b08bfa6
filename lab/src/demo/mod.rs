//! `lab demo`: the main job, shown live. A Service with endpoints on two nodes, real requests to each of its
//! addresses, a table of who answered, and what happens to the traffic while endpoints and kube-proxies come and go.

mod look;
mod screen;
mod stage;
mod story;
mod table;
mod terminal;
#[cfg(test)]
mod tests;
mod traffic;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::interrupt;
use screen::Screen;
use stage::Stage;

/// How the demo is to run.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The kube-proxy to show.
    pub program: PathBuf,
    /// How long each chapter is looked at.
    pub look: Duration,
    /// Leave everything up at the end, until Ctrl-C.
    pub keep: bool,
}

impl Demo {
    /// Shows it; needs root. Everything is removed when this returns, also after Ctrl-C.
    ///
    /// # Errors
    /// When the lab cannot be set up, or the kube-proxy does not do its work.
    pub fn run(&self) -> Result<()> {
        interrupt::watch()?;
        let mut screen = Screen::new();
        let mut stage = Stage::set(self.program.clone())?;
        let told = story::tell(&mut stage, &mut screen, self.look);
        screen.close();
        match told {
            Ok(summary) => {
                println!("{summary}");
                if self.keep {
                    look::around(&stage)?;
                }
            }
            Err(error) if interrupt::happened() => {
                // Whatever failed did so because of it.
                println!("\nInterrupted; everything is removed. ({error:#})");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
