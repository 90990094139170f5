//! Which request gets which answer. No IO.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::Sources;

/// The type of the text that `observe` writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Answers one request. Bodies are of no interest and are not read.
pub(super) fn answer<B>(request: &Request<B>, sources: &Sources) -> Response<Full<Bytes>> {
    let known = matches!(request.uri().path(), "/metrics" | "/healthz");
    if !known {
        let text = "there is /metrics and /healthz\n";
        return response(StatusCode::NOT_FOUND, PLAIN, text);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, allowed);
        return refusal;
    }
    if request.uri().path() == "/metrics" {
        return response(StatusCode::OK, OPEN_METRICS, (sources.metrics)());
    }
    if sources.health.draining() {
        response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "draining\n")
    } else {
        response(StatusCode::OK, PLAIN, "ok\n")
    }
}

fn response(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
