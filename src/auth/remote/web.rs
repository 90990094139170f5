//! An HTTP client for answers that are small: bounded in octets, without redirections,
//! cookies or proxies.

use std::error::Error;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use crate::auth::directory::Failure;
use crate::limits;

/// A client that keeps its connections.
pub(in crate::auth) struct Web(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Web {
    /// Connects to nothing yet. To be called in a runtime's context.
    pub(in crate::auth) fn new(tls: ClientConfig, connections: u32) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(connections as usize)
            .pool_idle_timeout(limits::WEB_IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self(client)
    }

    /// The answer to a request, with a body of [`limits::WEB_BODY`] octets at most.
    pub(in crate::auth) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, Failure> {
        let answer = self.0.request(request).await;
        let answer = answer.map_err(|error| Failure::Unreachable(causes(&error)))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, limits::WEB_BODY).collect().await;
        let body = body.map_err(|error| Failure::Unreachable(causes(&*error)))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// An error with what caused it, which is what an operator needs: the outermost says no
/// more than that a request failed.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
