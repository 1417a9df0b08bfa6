//! What can be done with a resource: get, list, watch, create, update, patch, delete.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use super::answer::{Body, chunked, full, response, whole};
use super::http::header_text;
use super::list;
use super::manifest;
use super::object::Object;
use super::query::{Encoding, ListOptions, Target};
use super::render;
use super::resource::Resource;
use super::select::Selector;
use super::state::State;
use super::status::Status;
use super::store::Forgotten;
use super::stream::{self, WatchRequest};
use super::write::Part;

/// The largest body that a write may have.
const MAX_BODY: usize = 3 << 20;

/// How long a watch lasts that names no time.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);

/// A request to a resource.
pub(crate) struct Call<'a> {
    pub(crate) state: &'a Arc<State>,
    pub(crate) target: &'a Target,
    pub(crate) query: &'a [(String, String)],
    pub(crate) encoding: Encoding,
}

impl Call<'_> {
    /// Does what the method says.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) async fn run(
        &self,
        watch: bool,
        request: http::Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let part = match self.target.subresource.as_deref() {
            None => Part::Main,
            Some("status") if self.target.resource.has_status() => Part::Status,
            Some(_) => return Err(Status::no_such_path()),
        };
        let resource = self.target.resource;
        let namespace = self.target.namespace.as_deref().unwrap_or_default();
        let method = request.method().clone();
        match (&method, self.target.name.as_deref()) {
            (&Method::GET, None) if watch => self.watch(),
            (&Method::GET, None) => self.list(),
            (&Method::GET, Some(name)) => {
                let object = self.state.cluster().get(resource, namespace, name)?;
                Ok(self.object(StatusCode::OK, &object))
            }
            (&Method::DELETE, Some(name)) => {
                let object = self.state.cluster().delete(resource, namespace, name)?;
                Ok(self.deleted(&object))
            }
            (&Method::POST, None) if resource.namespaced() != namespace.is_empty() => {
                let object = read_object(request).await?;
                let object = self.state.cluster().create(resource, namespace, object, part)?;
                Ok(self.object(StatusCode::CREATED, &object))
            }
            (&Method::PUT, Some(name)) => {
                let object = read_object(request).await?;
                let mut cluster = self.state.cluster();
                let (created, object) = cluster.put(resource, namespace, name, object, part)?;
                let code = if created {
                    StatusCode::CREATED
                } else {
                    StatusCode::OK
                };
                Ok(self.object(code, &object))
            }
            (&Method::PATCH, Some(name)) => {
                let patch = read_patch(request).await?;
                let mut cluster = self.state.cluster();
                let object = cluster.merge(resource, namespace, name, &patch, part)?;
                Ok(self.object(StatusCode::OK, &object))
            }
            _ => Err(Status::failure(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            )),
        }
    }

    fn object(&self, code: StatusCode, object: &Object) -> Response<Body> {
        whole(code, render::object(object, self.encoding), self.encoding)
    }

    /// Most kinds answer with the object, EndpointSlices with a Status.
    fn deleted(&self, object: &Object) -> Response<Body> {
        if object.resource != Resource::EndpointSlices {
            return self.object(StatusCode::OK, object);
        }
        let status = Status::deleted(object.resource, &object.name, &object.uid);
        whole(
            StatusCode::OK,
            render::status(&status, self.encoding),
            self.encoding,
        )
    }

    /// The options and the selector of a list or watch.
    fn options(&self) -> Result<(ListOptions, Selector), Status> {
        let options = ListOptions::parse(self.query)?;
        options.validate(self.state.settings().streaming_lists)?;
        let (labels, fields) = (&options.label_selector, &options.field_selector);
        let namespace = self.target.namespace.as_deref();
        let selector = Selector::parse(self.target.resource, namespace, labels, fields)?;
        Ok((options, selector))
    }

    fn list(&self) -> Result<Response<Body>, Status> {
        let (options, selector) = self.options()?;
        let resource = self.target.resource;
        let cached = self.state.settings().list_cache;
        let list = list::list(&self.state.cluster().store, resource, &selector, &options, cached)?;
        let body = render::list(resource, &list.meta, &list.items, self.encoding);
        Ok(whole(StatusCode::OK, body, self.encoding))
    }

    /// Once the options are known to be good, a watch that cannot be served fails within its stream.
    fn watch(&self) -> Result<Response<Body>, Status> {
        let (options, selector) = self.options()?;
        let resource = self.target.resource;
        let asked = options
            .version()
            .map_err(|message| Status::failure(StatusCode::INTERNAL_SERVER_ERROR, "", message))?
            .unwrap_or_default();
        let subscribed = {
            let store = &mut self.state.cluster().store;
            list::begin(store, &options, asked).and_then(|(begin, after)| {
                let expired = |Forgotten(oldest)| Status::expired_watch(asked, oldest);
                Ok((store.watch(resource, begin).map_err(expired)?, after))
            })
        };
        let body = match subscribed {
            Err(status) => stream::failed(&status, self.encoding),
            Ok((subscription, after)) => {
                let request = WatchRequest {
                    resource,
                    selector,
                    encoding: self.encoding,
                    bookmarks: options.allow_watch_bookmarks,
                    initial_end: options.send_initial_events == Some(true),
                    after,
                    timeout: options.timeout.unwrap_or(DEFAULT_TIMEOUT),
                    bookmark_interval: self.state.settings().bookmark_interval,
                };
                stream::watch(self.state.clone(), request, subscription)
            }
        };
        let content_type = self.encoding.stream_content_type();
        Ok(response(StatusCode::OK, content_type, chunked(body)))
    }
}

/// Whether an event is to be written in a form that is not kept: one of core/v1, or protobuf.
pub(crate) fn is_unreadable_event(path: &str, request: &http::Request<Body>) -> bool {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let protobuf = || header_text(request.headers(), header::CONTENT_TYPE).contains("protobuf");
    let is_event = match parts.as_slice() {
        ["api", "v1", "namespaces", _, "events", ..] => true,
        ["apis", "events.k8s.io", "v1", "namespaces", _, "events", ..] => protobuf(),
        _ => false,
    };
    is_event && request.method() != Method::GET
}

/// Takes an event in and gives it back as it came: nobody asks for it again.
pub(crate) async fn take_event(request: http::Request<Body>) -> Result<Response<Body>, Status> {
    let created = request.method() == Method::POST;
    let code = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let encoding = if is_protobuf(&request) {
        Encoding::Protobuf
    } else {
        Encoding::Json
    };
    Ok(full(code, encoding.content_type(), read_body(request).await?))
}

fn is_protobuf(request: &http::Request<Body>) -> bool {
    let content_type = header_text(request.headers(), header::CONTENT_TYPE);
    content_type.starts_with(Encoding::Protobuf.content_type())
}

async fn read_body(request: http::Request<Body>) -> Result<Bytes, Status> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|error| Status::bad_request(format!("reading the request's body: {error}")))?;
    Ok(body.to_bytes())
}

/// The object of a POST or PUT: JSON or YAML.
async fn read_object(request: http::Request<Body>) -> Result<Value, Status> {
    // The real server takes protobuf; nobody but upstream's own controllers sends it.
    if is_protobuf(&request) {
        return Err(unsupported_media_type());
    }
    let body = read_body(request).await?;
    manifest::parse_one(&body).map_err(|error| Status::bad_request(format!("{error:#}")))
}

/// A merge patch, or an apply patch, which is taken as one. The real server knows two more kinds.
async fn read_patch(request: http::Request<Body>) -> Result<Value, Status> {
    match header_text(request.headers(), header::CONTENT_TYPE).as_str() {
        "application/merge-patch+json" | "application/apply-patch+yaml" => read_object(request).await,
        _ => Err(unsupported_media_type()),
    }
}

fn unsupported_media_type() -> Status {
    let message = "415: Unsupported Media Type";
    Status::failure(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UnsupportedMediaType",
        message,
    )
}
