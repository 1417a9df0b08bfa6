//! Ctrl-C, SIGTERM and a closed terminal: noticed, not deadly, so that everything can be removed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static HAPPENED: AtomicBool = AtomicBool::new(false);

/// Begins to notice.
pub(crate) fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("watch for Ctrl-C")?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    drop(entered);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hangup.recv() => {} }
            HAPPENED.store(true, Ordering::Relaxed);
        });
    });
    Ok(())
}

/// Whether it came.
pub(crate) fn happened() -> bool {
    HAPPENED.load(Ordering::Relaxed)
}

/// # Errors
/// When it came.
pub(crate) fn check() -> Result<()> {
    if happened() {
        bail!("stopped by a signal");
    }
    Ok(())
}

/// Sleeps, in pieces after each of which `meanwhile` runs.
///
/// # Errors
/// When it came, or `meanwhile` failed.
pub(crate) fn sleep(time: Duration, mut meanwhile: impl FnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        meanwhile()?;
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(100)));
    }
}
