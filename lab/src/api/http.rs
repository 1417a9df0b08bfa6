//! Requests and answers: who may ask, what is asked, in which encoding it is answered.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::Value;

use super::discovery;
use super::fault::{Chunks, Fault, Verb};
use super::list;
use super::query::{Encoding, ListOptions, Target, parse_query};
use super::render;
use super::resource::Resource;
use super::select::Selector;
use super::state::{Request, State};
use super::status::Status;
use super::store::Forgotten;
use super::stream::{self as watch, WatchRequest};
use super::write::Part;

/// The body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The largest body that a write may have.
const MAX_BODY: usize = 3 << 20;

/// How long a watch lasts that names no time.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);

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
    request: http::Request<Incoming>,
) -> Result<Response<Body>, HungUp> {
    let asked = Asked::new(&state, by_certificate, &request);
    let index = state.note(asked.note.clone());
    let fault = asked.fault(&state);
    match &fault {
        Some(Fault::HangUp) => return Err(HungUp),
        Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
        _ => {}
    }
    let answer = match fault {
        Some(Fault::Status { code, retry_after }) => {
            let mut response = refusal(&Status::of_code(code), asked.encoding.unwrap_or(Encoding::Json));
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
        fault => {
            let mut response = match asked.serve(&state, request).await {
                Ok(response) => response,
                Err(status) => refusal(&status, asked.encoding.unwrap_or(Encoding::Json)),
            };
            if let Some(Fault::ContentType(other)) = fault {
                let other = header::HeaderValue::from_static(other);
                response.headers_mut().insert(header::CONTENT_TYPE, other);
            }
            match fault {
                Some(fault) => response.map(|body| chunked(fault.spoil(chunks(body)))),
                None => response,
            }
        }
    };
    state.note_status(index, answer.status().as_u16());
    Ok(answer)
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
    fn new(state: &State, by_certificate: bool, request: &http::Request<Incoming>) -> Self {
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
        if self.note.method != "GET" || (target.name.is_some() && !self.note.is_watch()) {
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
        request: http::Request<Incoming>,
    ) -> Result<Response<Body>, Status> {
        let path = self.note.path.as_str();
        if self.authentication == Authentication::Wrong {
            return Err(Status::unauthorized());
        }
        if discovery::is_health(path) {
            return Ok(full(
                StatusCode::OK,
                "text/plain; charset=utf-8",
                Bytes::from_static(b"ok"),
            ));
        }
        if self.authentication == Authentication::Anonymous && path != "/version" {
            let verb = if self.note.is_watch() { "watch" } else { "list" };
            let resource = self.target.as_ref().map(|target| (target.resource, verb));
            return Err(Status::anonymous(resource, path));
        }
        if let Some(document) = discovery::document(path) {
            return Ok(full(
                StatusCode::OK,
                "application/json",
                document.to_string().into(),
            ));
        }
        if is_events(path) && request.method() != Method::GET {
            return take_event(request).await;
        }
        let target = self.target.as_ref().ok_or_else(Status::no_such_path)?;
        let encoding = self.encoding.ok_or_else(Status::not_acceptable)?;
        let part = match target.subresource.as_deref() {
            None => Part::Main,
            Some("status") if target.resource.has_status() => Part::Status,
            Some(_) => return Err(Status::no_such_path()),
        };
        let (resource, namespace) = (target.resource, target.namespace.as_deref().unwrap_or_default());
        let method = request.method().clone();
        match (&method, target.name.as_deref()) {
            (&Method::GET, name) if name.is_none() || self.note.is_watch() => {
                self.collection(state, target, encoding)
            }
            (&Method::GET, Some(name)) => {
                let object = state.cluster().get(resource, namespace, name)?;
                Ok(whole(StatusCode::OK, render::object(&object, encoding), encoding))
            }
            (&Method::DELETE, Some(name)) => {
                let object = state.cluster().delete(resource, namespace, name)?;
                let body = if resource == Resource::EndpointSlices {
                    render::status(&Status::deleted(resource, name, &object.uid), encoding)
                } else {
                    render::object(&object, encoding)
                };
                Ok(whole(StatusCode::OK, body, encoding))
            }
            (&Method::POST, None) => {
                let object = read_object(request).await?;
                let object = state.cluster().create(resource, namespace, object, part)?;
                Ok(whole(
                    StatusCode::CREATED,
                    render::object(&object, encoding),
                    encoding,
                ))
            }
            (&Method::PUT, Some(name)) => {
                let object = read_object(request).await?;
                let object = state.cluster().replace(resource, namespace, name, object, part)?;
                Ok(whole(StatusCode::OK, render::object(&object, encoding), encoding))
            }
            (&Method::PATCH, Some(name)) => {
                let patch = read_patch(request).await?;
                let object = state.cluster().merge(resource, namespace, name, &patch, part)?;
                Ok(whole(StatusCode::OK, render::object(&object, encoding), encoding))
            }
            _ => Err(Status::failure(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            )),
        }
    }

    /// A list or a watch.
    fn collection(
        &self,
        state: &Arc<State>,
        target: &Target,
        encoding: Encoding,
    ) -> Result<Response<Body>, Status> {
        let options = ListOptions::parse(&self.note.query)?;
        let (streaming_lists, bookmark_interval) = {
            let settings = state.settings();
            (settings.streaming_lists, settings.bookmark_interval)
        };
        options.validate(streaming_lists)?;
        let (resource, namespace) = (target.resource, target.namespace.as_deref());
        let (labels, fields) = (&options.label_selector, &options.field_selector);
        let mut selector = Selector::parse(resource, namespace, labels, fields)?;
        if let Some(name) = &target.name {
            selector = selector.named(name);
        }
        if !options.watch {
            let list = list::list(&state.cluster().store, resource, &selector, &options)?;
            let body = render::list(resource, &list.meta, &list.items, encoding);
            return Ok(whole(StatusCode::OK, body, encoding));
        }

        let asked = options
            .version()
            .map_err(|message| Status::failure(StatusCode::INTERNAL_SERVER_ERROR, "", message))?
            .unwrap_or_default();
        let subscribed = {
            let store = &mut state.cluster().store;
            list::begin(store, &options, asked).and_then(|(begin, after)| {
                let expired = |Forgotten(oldest)| Status::expired_watch(asked, oldest);
                Ok((store.watch(resource, begin).map_err(expired)?, after))
            })
        };
        let body = match subscribed {
            Err(status) => watch::failed(&status, encoding),
            Ok((subscription, after)) => {
                let request = WatchRequest {
                    resource,
                    selector,
                    encoding,
                    bookmarks: options.allow_watch_bookmarks,
                    initial_end: options.send_initial_events == Some(true),
                    after,
                    timeout: options.timeout.unwrap_or(DEFAULT_TIMEOUT),
                    bookmark_interval,
                };
                watch::watch(state.clone(), request, subscription)
            }
        };
        Ok(response(
            StatusCode::OK,
            encoding.stream_content_type(),
            chunked(body),
        ))
    }
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> String {
    let values = headers.get_all(name).iter();
    let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

fn is_events(path: &str) -> bool {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    matches!(
        parts.as_slice(),
        ["api", "v1", "namespaces", _, "events", ..]
            | ["apis", "events.k8s.io", "v1", "namespaces", _, "events", ..]
    )
}

/// Takes an event in and gives it back as it came: nobody asks for it again.
async fn take_event(request: http::Request<Incoming>) -> Result<Response<Body>, Status> {
    let code = if request.method() == Method::POST {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let content_type = header_text(request.headers(), header::CONTENT_TYPE);
    let protobuf = content_type.starts_with(Encoding::Protobuf.content_type());
    let encoding = if protobuf {
        Encoding::Protobuf
    } else {
        Encoding::Json
    };
    Ok(full(code, encoding.content_type(), read_body(request).await?))
}

async fn read_body(request: http::Request<Incoming>) -> Result<Bytes, Status> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|error| Status::bad_request(format!("reading the request's body: {error}")))?;
    Ok(body.to_bytes())
}

/// The object of a POST or PUT: JSON or YAML.
async fn read_object(request: http::Request<Incoming>) -> Result<Value, Status> {
    let content_type = header_text(request.headers(), header::CONTENT_TYPE);
    if content_type.starts_with(Encoding::Protobuf.content_type()) {
        return Err(unsupported(
            "the in-process API takes objects in as JSON or YAML only",
        ));
    }
    let body = read_body(request).await?;
    super::manifest::parse_one(&body).map_err(|error| Status::bad_request(format!("{error:#}")))
}

/// A merge patch, or an apply patch, which is taken as one.
async fn read_patch(request: http::Request<Incoming>) -> Result<Value, Status> {
    match header_text(request.headers(), header::CONTENT_TYPE).as_str() {
        "application/merge-patch+json" | "application/apply-patch+yaml" => read_object(request).await,
        other => Err(unsupported(&format!(
            "the in-process API takes merge patches only, not {other}"
        ))),
    }
}

fn unsupported(message: &str) -> Status {
    let code = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Status::failure(code, "UnsupportedMediaType", message)
}

fn refusal(status: &Status, encoding: Encoding) -> Response<Body> {
    let mut response = whole(status.code(), render::status(status, encoding), encoding);
    if let Some(seconds) = status.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn whole(code: StatusCode, body: Bytes, encoding: Encoding) -> Response<Body> {
    full(code, encoding.content_type(), body)
}

fn full(code: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let never = |never: Infallible| match never {};
    response(code, content_type, Full::new(body).map_err(never).boxed_unsync())
}

fn response(code: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    let uncached = header::HeaderValue::from_static("no-cache, private");
    headers.insert(header::CACHE_CONTROL, uncached);
    response
}

fn chunked(chunks: Chunks) -> Body {
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

fn chunks(body: Body) -> Chunks {
    let next = |mut body: Body| async move {
        let frame = body.frame().await?;
        Some((frame.map(|frame| frame.into_data().unwrap_or_default()), body))
    };
    stream::unfold(body, next).boxed()
}
