//! Writes Events to the API server, with the fields that upstream's kube-proxy gives them.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;
use tokio::time::Duration;
use tracing::{debug, warn};

use super::Timing;
use super::connection::Connection;
use super::failure::Failure;
use crate::events::{Event, Regarding};

/// So often an Event is tried while the server is out of order.
const TRIES: u32 = 12;
/// The pause between two tries, in units of the shortest pause of the source: 10 s beside 200 ms.
const PAUSE: u32 = 50;

/// Brings Events to the server, in order, until nobody can record one any more.
pub(super) async fn write(
    connection: Arc<Connection>,
    timing: Timing,
    node_name: &str,
    mut events: Receiver<Event>,
) {
    let hostname = nix::unistd::gethostname().unwrap_or_default();
    let instance = format!("kube-proxy-{}", hostname.to_string_lossy());
    let mut refused = false;
    while let Some(event) = events.recv().await {
        let namespace = match &event.regarding {
            Regarding::Node => "default",
            Regarding::Service(service) => &service.namespace,
        };
        let url = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        let body = Bytes::from(object(&event, node_name, &instance, Timestamp::now()).to_string());
        match post(&connection, timing, &url, body).await {
            Ok(()) => {}
            // Missing rights, usually: the same for all that follow.
            Err(err) if !std::mem::replace(&mut refused, true) => {
                warn!(reason = event.reason, %err, "Unable to write event; it is left out, and this is said once");
            }
            Err(err) => debug!(reason = event.reason, %err, "Unable to write event"),
        }
    }
}

/// One Event. A server that is out of order is asked again, as long as client-go would.
async fn post(connection: &Connection, timing: Timing, url: &str, body: Bytes) -> Result<(), Failure> {
    let mut tries = 1;
    loop {
        let posted = connection.post(url, body.clone());
        let answer = match tokio::time::timeout(timing.list, posted).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Stalled {
                during: "an Event is written",
                after: timing.list,
            }),
        };
        let failure = match answer {
            Ok(StatusCode::CREATED | StatusCode::OK) => return Ok(()),
            // It was written, and the answer lost.
            Ok(StatusCode::CONFLICT) if tries > 1 => return Ok(()),
            Ok(code) if code.is_server_error() || code == StatusCode::TOO_MANY_REQUESTS => {
                Failure::of_code(code)
            }
            Ok(code) => return Err(Failure::of_code(code)),
            Err(failure) => failure,
        };
        if tries == TRIES {
            return Err(failure);
        }
        tries += 1;
        tokio::time::sleep(pause(timing)).await;
    }
}

fn pause(timing: Timing) -> Duration {
    timing.first_retry * PAUSE
}

/// The Event as events.k8s.io/v1 has it.
fn object(event: &Event, node_name: &str, instance: &str, now: Timestamp) -> Value {
    let (kind, namespace, name) = match &event.regarding {
        Regarding::Node => ("Node", "", node_name),
        Regarding::Service(service) => ("Service", &*service.namespace, &*service.name),
    };
    let mut regarding = json!({"apiVersion": "v1", "kind": kind, "name": name});
    let mut own_namespace = "default";
    if !namespace.is_empty() {
        regarding["namespace"] = namespace.into();
        own_namespace = namespace;
    }
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        // A name per moment, as client-go makes them.
        "metadata": {"name": format!("{name}.{:x}", now.as_nanosecond()), "namespace": own_namespace},
        "eventTime": format!("{now:.6}"),
        "reportingController": "kube-proxy",
        "reportingInstance": instance,
        "action": event.action,
        "reason": event.reason,
        "regarding": regarding,
        "note": event.note,
        "type": event.event_type.as_str(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::EventType;
    use crate::model::object::ObjectName;

    #[test]
    fn an_event_has_upstreams_fields() {
        let event = Event {
            regarding: Regarding::Service(ObjectName::new("shop", "web")),
            event_type: EventType::Warning,
            reason: "FailedToStartServiceHealthcheck",
            action: "Listen",
            note: "no".to_owned(),
        };
        let now = "2026-01-02T03:04:05.123456789Z".parse().unwrap();
        let expected = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": "web.1886caf223f1ff15", "namespace": "shop"},
            "eventTime": "2026-01-02T03:04:05.123456Z",
            "reportingController": "kube-proxy",
            "reportingInstance": "kube-proxy-host",
            "action": "Listen",
            "reason": "FailedToStartServiceHealthcheck",
            "regarding": {"apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "web"},
            "note": "no",
            "type": "Warning",
        });
        assert_eq!(object(&event, "node-1", "kube-proxy-host", now), expected);
        let node = Event {
            regarding: Regarding::Node,
            ..event
        };
        let object = object(&node, "node-1", "kube-proxy-host", now);
        assert_eq!(
            object["regarding"],
            json!({"apiVersion": "v1", "kind": "Node", "name": "node-1"})
        );
        assert_eq!(object["metadata"]["namespace"], "default");
    }
}
