//! The end of the program as servers meet it: who was accepted is answered, and nobody else is accepted.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// Who was accepted and says nothing is waited for no longer than this.
const GRACE: Duration = Duration::from_secs(1);

/// The program's end of it.
#[derive(Debug)]
pub struct End {
    told: watch::Sender<bool>,
    /// Nothing is ever sent: it is closed when the last server has finished.
    finished: mpsc::Receiver<Infallible>,
}

/// The servers' end: each holds one until it has finished.
#[derive(Clone, Debug)]
pub struct Ending {
    told: watch::Receiver<bool>,
    _busy: mpsc::Sender<Infallible>,
}

/// Both ends.
pub fn ending() -> (End, Ending) {
    let (told, hears) = watch::channel(false);
    let (busy, finished) = mpsc::channel(1);
    let ending = Ending {
        told: hears,
        _busy: busy,
    };
    (End { told, finished }, ending)
}

impl End {
    /// Tells the servers, which run meanwhile, and waits until all have finished, for a while.
    pub async fn finish(mut self) {
        self.told.send_replace(true);
        // None is sent, so it ends with the last sender.
        let _ = tokio::time::timeout(GRACE, self.finished.recv()).await;
    }
}

impl Ending {
    /// Waits for the end of the program.
    pub(super) async fn begins(&mut self) {
        if self.told.wait_for(|told| *told).await.is_err() {
            // Nobody is left who could say so.
            std::future::pending::<()>().await;
        }
    }
}
