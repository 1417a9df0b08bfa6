//! Who we are, and a server that says no.

use kube_proxy::source::api::ClientOptions;
use lab::api::{Credential, Fault, Resource, Rule, StreamFault};

use crate::observer::eventually;
use crate::stage::{Stage, TIMING, service};

fn with(stage: &Stage, credential: Credential) -> ClientOptions {
    ClientOptions {
        kubeconfig: Some(stage.server().kubeconfig(credential).expect("a kubeconfig")),
        ..ClientOptions::default()
    }
}

#[test]
fn tokens_token_files_and_client_certificates_let_us_in() {
    for credential in [
        Credential::Token,
        Credential::TokenFile,
        Credential::ClientCertificate,
    ] {
        let stage = Stage::in_process();
        stage.apply(&service("a", "", ""));
        let observer = stage.observe_with(with(&stage, credential), TIMING);
        assert_eq!(observer.first_state().service_names(), ["a"], "{credential:?}");
        let asked = stage.server().requests_for(Resource::Services);
        let by_token = credential != Credential::ClientCertificate;
        let authorization = if by_token { "Bearer lab-token" } else { "" };
        assert_eq!(asked[0].authorization, authorization, "{credential:?}");
    }
}

#[test]
fn a_rotated_token_is_read_from_its_file() {
    let stage = Stage::in_process();
    let server = stage.server();
    let observer = stage.observe_with(with(&stage, Credential::TokenFile), TIMING);
    observer.first_state();
    server.set_token("the-next").expect("a new token");
    server.disconnect();
    stage.apply(&service("a", "", ""));
    observer.until("the Service", |observed| observed.service("a").is_some());
    let asked = server.requests_for(Resource::Services);
    let last = asked.last().expect("a request");
    assert_eq!(
        (last.authorization.as_str(), last.status),
        ("Bearer the-next", 200)
    );
}

#[test]
fn a_token_that_is_no_longer_valid_is_tried_until_it_is_valid_again() {
    let stage = Stage::in_process();
    let server = stage.server();
    stage.apply(&service("a", "", ""));
    let observer = stage.observe();
    let before = observer.first_state();
    server.set_token("another").expect("a new token");
    server.disconnect();
    eventually("refusals", || observer.failures("services", "status") > 2);
    let asked = server.requests_for(Resource::Services);
    assert_eq!(asked.last().map(|request| request.status), Some(401));
    assert_eq!(
        observer.now().services,
        before.services,
        "what is known stays in force"
    );
    server.set_token("lab-token").expect("the old token");
    stage.delete(Resource::Services, "a");
    observer.until("the deletion", |observed| observed.service("a").is_none());
}

#[test]
fn a_server_that_refuses_is_asked_again_and_what_is_known_stays() {
    for code in [401, 403, 429, 500, 503] {
        let stage = Stage::in_process();
        let server = stage.server();
        stage.apply(&service("a", "", ""));
        let observer = stage.observe();
        let before = observer.first_state();
        let refusal = Fault::Status {
            code,
            retry_after: None,
        };
        server.inject(Rule::new(refusal));
        server.disconnect();
        eventually("refusals", || observer.failures("services", "status") > 2);
        assert_eq!(observer.now().services, before.services, "{code}");
        stage.delete(Resource::Services, "a");
        server.clear_faults();
        let observed = observer.until("the deletion", |observed| observed.service("a").is_none());
        assert!(observed.service_names().is_empty(), "{code}");
    }
}

#[test]
fn a_first_list_that_is_refused_is_asked_for_until_it_is_granted() {
    let stage = Stage::in_process();
    stage.apply(&service("a", "", ""));
    let refusal = Fault::Status {
        code: 403,
        retry_after: None,
    };
    stage
        .server()
        .inject(Rule::new(refusal).on(Resource::EndpointSlices));
    let observer = stage.observe();
    eventually("refusals", || observer.failures("endpointslices", "status") > 2);
    assert!(!observer.now().is_complete());
    stage.server().clear_faults();
    assert!(observer.first_state().is_complete());
}

#[test]
fn as_long_as_the_server_asks_to_wait_it_is_not_asked_again() {
    let stage = Stage::in_process();
    let server = stage.server();
    let observer = stage.observe();
    observer.first_state();
    let busy = Fault::Status {
        code: 429,
        retry_after: Some(1),
    };
    server.inject(Rule::new(busy).on(Resource::Services).times(1));
    server.clear_requests();
    server.spoil_watches(Resource::Services, StreamFault::End);
    stage.apply(&service("a", "", ""));
    observer.until("the Service", |observed| observed.service("a").is_some());
    let asked = server.requests_for(Resource::Services);
    let refused = asked.iter().find(|request| request.status == 429);
    let granted = asked.iter().find(|request| request.status == 200);
    let (refused, granted) = (refused.expect("a refusal"), granted.expect("a grant"));
    assert!(granted.at.duration_since(refused.at) >= std::time::Duration::from_secs(1));
}
