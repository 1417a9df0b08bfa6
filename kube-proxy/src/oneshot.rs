//! What the program can be asked to do instead of being a proxy: write its configuration, remove what proxies left, or
//! only what needs more privileges than a proxy has. None of it needs an API server.

use std::path::Path;

use anyhow::{Context as _, Result};
use tracing::info;

use crate::cli::Flags;
use crate::config::{ChooseMode, Config, Loaded, Mode};
use crate::dataplane::{self, leftovers};
use crate::node::sysctl;

/// Whether the mode has no consequence for what the flags ask for, so that the kernel need not be asked about it; or the
/// kernel must not be asked.
fn needs_no_mode(flags: &Flags) -> bool {
    flags.write_config_to.is_some() || flags.cleanup || flags.plan.is_some_and(|plan| !plan.diff)
}

/// How the mode is chosen if none is configured.
pub fn choose_mode(flags: &Flags) -> ChooseMode {
    if needs_no_mode(flags) {
        || (Mode::Nftables, String::new())
    } else {
        dataplane::choose_mode
    }
}

/// Logs which mode was chosen and why, if the choice was left to this program.
pub fn log_chosen_mode(flags: &Flags, loaded: &Loaded) {
    if let Some(reason) = &loaded.why_this_mode
        && !needs_no_mode(flags)
    {
        info!(mode = %loaded.config.mode, reason, "No proxy mode is configured");
    }
}

/// Does what the flags ask for; whether they ask for anything.
///
/// # Errors
/// When it cannot be done.
pub fn run(flags: &Flags, loaded: &Loaded) -> Result<bool> {
    if let Some(path) = &flags.write_config_to {
        write(path, loaded).map(|()| true)
    } else if flags.cleanup {
        leftovers::remove_all()
            .context("encountered an error while tearing down rules")
            .map(|()| true)
    } else if flags.init_only {
        initialize(&loaded.config)?;
        info!("Initialized; not proxying, because of --init-only");
        Ok(true)
    } else {
        Ok(false)
    }
}

fn write(path: &Path, loaded: &Loaded) -> Result<()> {
    let text = loaded.complete_text().context("cannot write the configuration")?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    info!(file = %path.display(), "Wrote configuration");
    Ok(())
}

/// Makes the settings of the kernel that need more privileges than a proxy has. A proxy that has them makes those of the
/// mode with its first rules, for `route_localnet` is not to be on for longer than there is a rule to guard it.
fn initialize(config: &Config) -> Result<()> {
    sysctl::set_conntrack(&config.conntrack);
    dataplane::prepare(config)?;
    Ok(())
}
