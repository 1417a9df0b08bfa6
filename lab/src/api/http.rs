//! A request from its headers to its answer: who asks, for what, in which encoding, and which fault befalls it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};

use super::answer::{Body, chunked, chunks, full, refusal};
use super::discovery;
use super::fault::{Fault, Verb};
use super::query::{Encoding, Target, parse_query};
use super::state::{Request, State};
use super::status::Status;
use super::verbs::{self, Call};

/// The request was meant to be left without an answer.
#[derive(Debug, thiserror::Error)]
#[error("hung up by a fault")]
pub(crate) struct HungUp;

/// Answers one request.
///
/// # Errors
/// When a fault says that the connection is to be closed instead.
pub(crate) async fn answer(
    state: Arc<State>,
    by_certificate: bool,
    request: http::Request<Body>,
) -> Result<Response<Body>, HungUp> {
    let asked = Asked::new(&state, by_certificate, &request);
    let index = state.note(asked.note.clone());
    let fault = asked.fault(&state);
    match &fault {
        Some(Fault::HangUp) => return Err(HungUp),
        Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
        Some(Fault::Forget) => {
            let store = &mut state.cluster().store;
            store.advance();
            store.compact();
        }
        _ => {}
    }
    let encoding = asked.encoding.unwrap_or(Encoding::Json);
    let answer = if let Some(Fault::Status { code, retry_after }) = fault {
        let mut response = refusal(&Status::of_code(code), encoding);
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    } else {
        let served = asked.serve(&state, request).await;
        let response = served.unwrap_or_else(|status| refusal(&status, encoding));
        match fault {
            Some(fault) => spoil(response, fault),
            None => response,
        }
    };
    state.note_status(index, answer.status().as_u16());
    Ok(answer)
}

fn spoil(mut response: Response<Body>, fault: Fault) -> Response<Body> {
    if let Fault::ContentType(other) = fault {
        let other = header::HeaderValue::from_static(other);
        response.headers_mut().insert(header::CONTENT_TYPE, other);
    }
    response.map(|body| chunked(fault.spoil(chunks(body))))
}

/// A request, taken apart.
struct Asked {
    note: Request,
    target: Option<Target>,
    /// `None`: nothing that is acceptable can be sent.
    encoding: Option<Encoding>,
    authentication: Authentication,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Authentication {
    Known,
    Anonymous,
    Wrong,
}

impl Asked {
    fn new(state: &State, by_certificate: bool, request: &http::Request<Body>) -> Self {
        let text = |name| header_text(request.headers(), name);
        let path = request.uri().path();
        let target = Target::parse(path);
        let note = Request {
            at: Instant::now(),
            method: request.method().to_string(),
            path: path.to_owned(),
            query: parse_query(request.uri().query().unwrap_or_default()),
            accept: text(header::ACCEPT),
            authorization: text(header::AUTHORIZATION),
            user_agent: text(header::USER_AGENT),
            resource: target.as_ref().map(|target| target.resource),
            status: 0,
        };
        let settings = state.settings();
        let token = note.authorization.strip_prefix("Bearer ");
        let authentication = match token {
            Some(token) if settings.tokens.iter().any(|known| known == token.trim()) => Authentication::Known,
            Some(_) => Authentication::Wrong,
            None if by_certificate => Authentication::Known,
            None => Authentication::Anonymous,
        };
        Self {
            encoding: Encoding::negotiate(Some(&note.accept), settings.protobuf),
            note,
            target,
            authentication,
        }
    }

    /// The fault that befalls it; only lists and watches are befallen.
    fn fault(&self, state: &State) -> Option<Fault> {
        let target = self.target.as_ref()?;
        if self.note.method != "GET" || target.name.is_some() {
            return None;
        }
        let verb = if self.note.is_watch() {
            Verb::Watch
        } else {
            Verb::List
        };
        state.faults().take(target.resource, verb)
    }

    async fn serve(
        &self,
        state: &Arc<State>,
        request: http::Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let path = self.note.path.as_str();
        if self.authentication == Authentication::Wrong {
            return Err(Status::unauthorized());
        }
        if discovery::is_health(path) {
            let ok = Bytes::from_static(b"ok");
            return Ok(full(StatusCode::OK, "text/plain; charset=utf-8", ok));
        }
        if self.authentication == Authentication::Anonymous && path != "/version" {
            let verb = if self.note.is_watch() { "watch" } else { "list" };
            let resource = self.target.as_ref().map(|target| (target.resource, verb));
            return Err(Status::anonymous(resource, path));
        }
        if let Some(document) = discovery::document(path) {
            let document = document.to_string().into();
            return Ok(full(StatusCode::OK, Encoding::Json.content_type(), document));
        }
        if verbs::is_unreadable_event(path, &request) {
            return verbs::take_event(request).await;
        }
        let target = self.target.as_ref().ok_or_else(Status::no_such_path)?;
        let call = Call {
            state,
            target,
            query: &self.note.query,
            encoding: self.encoding.ok_or_else(Status::not_acceptable)?,
        };
        call.run(self.note.is_watch(), request).await
    }
}

/// All values of a header, commas between; empty when there is none.
pub(crate) fn header_text(headers: &HeaderMap, name: header::HeaderName) -> String {
    let values = headers.get_all(name).iter();
    let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}
