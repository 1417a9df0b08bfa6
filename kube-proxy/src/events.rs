//! Events: what an operator reads in `kubectl describe` of this Node or of a Service. Whoever notices something
//! records it and goes on; the source brings it to the API server, if there is one.

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::{debug, warn};

use crate::config::Mode;
use crate::model::object::ObjectName;

/// So many Events may wait for an API server that does not answer; what comes after them is lost.
const WAITING: usize = 64;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// To what.
    pub regarding: Regarding,
    /// Whether anybody should worry.
    pub event_type: EventType,
    /// Why it is told, in one word that machines read.
    pub reason: &'static str,
    /// What was being done, likewise.
    pub action: &'static str,
    /// The same for people; may be empty.
    pub note: String,
}

/// The object of an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Regarding {
    /// This Node.
    Node,
    /// A Service.
    Service(ObjectName),
}

/// `type` of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Somebody should look at it.
    Warning,
}

impl EventType {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Takes Events from any thread.
#[derive(Clone, Debug)]
pub struct Recorder(Sender<Event>);

impl Recorder {
    /// Records an Event. Never waits.
    pub fn record(&self, event: Event) {
        if let Err(lost) = self.0.try_send(event) {
            debug!(%lost, "Nobody takes an Event");
        }
    }

    /// Records that this Node's proxy has started, and what is to be said about its mode.
    pub fn started(&self, mode: Mode) {
        self.record(Event {
            regarding: Regarding::Node,
            event_type: EventType::Normal,
            reason: "Starting",
            action: "StartKubeProxy",
            note: String::new(),
        });
        if mode == Mode::Ipvs {
            let note = "Kubernetes deprecates the IPVS mode of kube-proxy; nftables takes its place";
            warn!("{note}");
            self.warn_of_start("IPVSDeprecation", note.to_owned());
        }
    }

    /// Records a warning about this Node's start.
    pub fn warn_of_start(&self, reason: &'static str, note: String) {
        self.record(Event {
            regarding: Regarding::Node,
            event_type: EventType::Warning,
            reason,
            action: "StartKubeProxy",
            note,
        });
    }
}

/// Both ends: for those who notice, and for the source.
pub fn recorder() -> (Recorder, Receiver<Event>) {
    let (sender, receiver) = channel(WAITING);
    (Recorder(sender), receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_told_and_that_ipvs_is_deprecated() {
        for (mode, reasons) in [
            (Mode::Nftables, vec!["Starting"]),
            (Mode::Ipvs, vec!["Starting", "IPVSDeprecation"]),
        ] {
            let (recorder, mut recorded) = recorder();
            recorder.started(mode);
            let told = std::iter::from_fn(|| recorded.try_recv().ok());
            assert_eq!(told.map(|event| event.reason).collect::<Vec<_>>(), reasons);
        }
    }
}
