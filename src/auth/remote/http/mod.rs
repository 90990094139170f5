//! Users from a web service, which verifies passwords or hands out stored ones.
//!
//! Two forms of one question: that of nginx's mail proxy (`ngx_mail_auth_http_module`),
//! for services that exist, and one in JSON that can say more.

mod json;
mod nginx;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use zeroize::Zeroizing;

use super::web::Web;
use super::{Answer, Attributes, Question, Trust};
use crate::auth::directory::Failure;

/// A web service, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// Where it is: `http` or `https`, with a host.
    pub url: Uri,
    /// How it is asked.
    pub form: HttpForm,
    /// A header that goes with each request, such as a key; its value is marked as
    /// sensitive.
    pub header: Option<(HeaderName, HeaderValue)>,
    /// Whose certificate it may show.
    pub trust: Trust,
    /// How many requests are under way at a time.
    pub connections: u32,
}

/// How a web service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpForm {
    /// As nginx's mail proxy asks.
    Nginx,
    /// An object in, an object out.
    Json,
}

/// A web service that is asked for users.
pub(super) struct Http {
    web: Web,
    options: HttpOptions,
}

impl Http {
    /// Connects when it is asked. To be called in the context of a runtime.
    pub(super) fn new(options: &HttpOptions) -> Self {
        Self {
            web: Web::new(options.trust.client(), options.connections),
            options: options.clone(),
        }
    }

    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, Failure> {
        let uri = self.options.url.clone();
        let request = match self.options.form {
            HttpForm::Nginx => nginx::request(uri, question),
            HttpForm::Json => json::request(uri, question),
        };
        let Some(mut request) = request else {
            return Ok(Answer::Unknown);
        };
        if let Some((name, value)) = &self.options.header {
            request.headers_mut().insert(name, value.clone());
        }
        let answer = self.web.send(request).await?;
        let status = answer.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Failure::Unreachable(format!("HTTP status {status}")));
        }
        if status != StatusCode::OK {
            return Err(Failure::Refused(format!("HTTP status {status}")));
        }
        match self.options.form {
            HttpForm::Nginx => nginx::answer(&answer, question),
            HttpForm::Json => json::answer(answer.body()),
        }
    }
}
