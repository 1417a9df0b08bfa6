//! How one virtual server gets from what the kernel holds to what is wanted, step by step. Pure.

use std::collections::BTreeMap;

use super::entry::{Scheduler, Server, Settings, Weight};
use super::plan::has;
use crate::dataplane::nftables::Backend;

/// A virtual server as the kernel holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) settings: Settings,
    /// It has the flags that we would give it, and counts each client for itself.
    pub(super) is_usual: bool,
    pub(super) endpoints: BTreeMap<Backend, Weight>,
}

/// One change to a virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    NewServer(Settings),
    SetServer(Settings),
    DeleteServer,
    NewEndpoint(Backend, Weight),
    SetEndpoint(Backend, Weight),
    DeleteEndpoint(Backend),
}

/// The steps to what is wanted, in order: what comes before what goes, so that there is no moment without endpoints.
/// Endpoints are not deleted, but left without new connections; [`leaves`] tells which.
pub(super) fn steps(held: Option<&Held>, wanted: Option<&Server>, lacking: &[Scheduler]) -> Vec<Step> {
    let mut steps = Vec::new();
    let Some(wanted) = wanted else {
        if let Some(held) = held {
            let receiving = held.endpoints.iter().filter(|(_, weight)| **weight != 0);
            steps.extend(receiving.map(|(backend, _)| Step::SetEndpoint(*backend, 0)));
            if held.endpoints.is_empty() {
                steps.push(Step::DeleteServer);
            }
        }
        return steps;
    };
    let settings = possible(&wanted.settings, lacking);
    match held {
        None => steps.push(Step::NewServer(settings)),
        Some(held) if held.settings != settings || !held.is_usual => steps.push(Step::SetServer(settings)),
        Some(_) => {}
    }
    let none = BTreeMap::new();
    let held = held.map_or(&none, |held| &held.endpoints);
    // What gets fewer connections waits until others get more.
    let mut lowered = Vec::new();
    for (backend, weight) in &wanted.endpoints {
        let step = Step::SetEndpoint(*backend, *weight);
        match held.get(backend) {
            None => steps.push(Step::NewEndpoint(*backend, *weight)),
            Some(held) if held < weight => steps.push(step),
            Some(held) if held > weight => lowered.push(step),
            Some(_) => {}
        }
    }
    steps.extend(lowered);
    for (backend, weight) in held {
        if !has(&wanted.endpoints, backend) && *weight != 0 {
            steps.push(Step::SetEndpoint(*backend, 0));
        }
    }
    steps
}

/// The endpoints that stay only for what they have begun. One that keeps flows may stay for as long as that is so: how
/// long a flow of UDP goes on, nobody can tell.
pub(super) fn leaves<'a>(held: &'a Held, wanted: Option<&'a Server>) -> impl Iterator<Item = &'a Backend> {
    let stays = |wanted: &Server, backend| {
        has(&wanted.endpoints, backend) || wanted.keeping.binary_search(backend).is_ok()
    };
    held.endpoints
        .keys()
        .filter(move |backend| wanted.is_none_or(|wanted| !stays(wanted, backend)))
}

/// What the kernel holds after a step.
pub(super) fn after(held: Option<Held>, step: &Step) -> Option<Held> {
    match step {
        Step::NewServer(settings) => Some(Held {
            settings: settings.clone(),
            is_usual: true,
            endpoints: BTreeMap::new(),
        }),
        Step::DeleteServer => None,
        Step::SetServer(settings) => held.map(|held| Held {
            settings: settings.clone(),
            is_usual: true,
            ..held
        }),
        Step::NewEndpoint(backend, weight) | Step::SetEndpoint(backend, weight) => held.map(|mut held| {
            held.endpoints.insert(*backend, *weight);
            held
        }),
        Step::DeleteEndpoint(backend) => held.map(|mut held| {
            held.endpoints.remove(backend);
            held
        }),
    }
}

/// The settings without a scheduler that the kernel lacks.
fn possible(settings: &Settings, lacking: &[Scheduler]) -> Settings {
    let mut settings = settings.clone();
    if lacking.contains(&settings.scheduler) {
        settings.scheduler = Scheduler::round_robin();
    }
    settings
}
