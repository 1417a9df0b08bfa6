//! Answers and bodies, whatever they hold.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

use super::fault::Chunks;
use super::query::Encoding;
use super::render;
use super::status::Status;

/// The body of every answer, and of every request.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A refusal, with what the Status says of a retry.
pub(crate) fn refusal(status: &Status, encoding: Encoding) -> Response<Body> {
    let mut response = whole(status.code(), render::status(status, encoding), encoding);
    if let Some(seconds) = status.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// An object, a list or a Status.
pub(crate) fn whole(code: StatusCode, body: Bytes, encoding: Encoding) -> Response<Body> {
    full(code, encoding.content_type(), body)
}

/// Bytes of any type.
pub(crate) fn full(code: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let never = |never: Infallible| match never {};
    response(code, content_type, Full::new(body).map_err(never).boxed_unsync())
}

/// An answer with the headers that all have.
pub(crate) fn response(code: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
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

/// A body that comes in pieces.
pub(crate) fn chunked(chunks: Chunks) -> Body {
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// The pieces of a body.
pub(crate) fn chunks(body: Body) -> Chunks {
    let next = |mut body: Body| async move {
        let frame = body.frame().await?;
        Some((frame.map(|frame| frame.into_data().unwrap_or_default()), body))
    };
    stream::unfold(body, next).boxed()
}
