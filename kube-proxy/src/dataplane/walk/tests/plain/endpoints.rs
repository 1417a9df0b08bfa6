//! Which endpoints serve whom.

use super::Endpoint;
use crate::model::object::{Hints, SliceEndpoint};
use crate::model::testing;

/// It may serve, if not at first.
pub(super) fn is_usable(held: &SliceEndpoint) -> bool {
    held.ready || (held.serving && held.terminating)
}

/// The endpoints for traffic that may go anywhere: ready ones as their hints want it, else the terminating ones
/// that still serve.
pub(super) fn in_cluster<'a>(endpoints: &[Endpoint<'a>], zone: Option<&str>) -> Vec<Endpoint<'a>> {
    let none = Hints::default();
    let hints = |endpoint: &Endpoint<'a>| endpoint.held.hints.as_deref().cloned().unwrap_or(none.clone());
    let named = |names: &[std::sync::Arc<str>], name: &str| names.iter().any(|other| **other == *name);
    let for_this_node = |endpoint: &Endpoint<'a>| named(&hints(endpoint).nodes, testing::NODE);
    let for_this_zone =
        |endpoint: &Endpoint<'a>| zone.is_some_and(|zone| named(&hints(endpoint).zones, zone));
    let all: Vec<_> = endpoints
        .iter()
        .copied()
        .filter(|endpoint| endpoint.held.ready)
        .collect();
    let hinted_nodes = all.iter().all(|endpoint| !hints(endpoint).nodes.is_empty());
    let hinted_zones = all.iter().all(|endpoint| !hints(endpoint).zones.is_empty());
    let ready: Vec<_> = if hinted_nodes && all.iter().any(for_this_node) {
        all.into_iter().filter(for_this_node).collect()
    } else if hinted_zones && all.iter().any(for_this_zone) {
        all.into_iter().filter(for_this_zone).collect()
    } else {
        all
    };
    or_terminating(ready, endpoints)
}

/// The endpoints of this node; hints do not matter.
pub(super) fn on_this_node<'a>(endpoints: &[Endpoint<'a>]) -> Vec<Endpoint<'a>> {
    let here: Vec<_> = endpoints
        .iter()
        .copied()
        .filter(|endpoint| endpoint.is_here)
        .collect();
    let ready = here
        .iter()
        .copied()
        .filter(|endpoint| endpoint.held.ready)
        .collect();
    or_terminating(ready, &here)
}

fn or_terminating<'a>(ready: Vec<Endpoint<'a>>, all: &[Endpoint<'a>]) -> Vec<Endpoint<'a>> {
    match ready.is_empty() {
        false => ready,
        true => {
            let serving = all.iter().copied();
            serving
                .filter(|endpoint| endpoint.held.serving && endpoint.held.terminating)
                .collect()
        }
    }
}
