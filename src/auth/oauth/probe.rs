//! Reading the keys, or asking the issuer, once: for tools that tell an operator whether
//! tokens could be verified.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;

use super::{Authority, OauthOptions, OauthSource, Verifier};
use crate::auth::directory::Failure;
use crate::auth::{DirectoryError, Token};

/// A token that is nobody's.
const NOBODYS: &str = "popcore-check";

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthProbe {
    /// The place, and what is there.
    found: String,
}

/// Reads the keys, or asks about a token that is nobody's. BLOCKING, for at most the
/// time-out.
pub fn probe_oauth(options: &OauthOptions) -> Result<OauthProbe, DirectoryError> {
    let began = Instant::now();
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| DirectoryError::Failed {
        directory: super::LABEL.into(),
        failure: Failure::Refused(error.to_string()),
    })?;
    let found = runtime.block_on(async {
        match Authority::new(options).verifier {
            Verifier::Keys(ring) => {
                let keys = ring.read().await?;
                Ok(keys.to_string())
            }
            Verifier::Service(service) => {
                let token = Token::new(NOBODYS).expect("a token");
                service.ask(&token, 0).await?;
                let took = began.elapsed().as_millis();
                Ok(format!("it answers, in {took} ms"))
            }
        }
    })?;
    Ok(OauthProbe {
        found: format!("{}: {found}", options.source),
    })
}

impl fmt::Display for OauthProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found)
    }
}

/// The place, without any secret, and when it is asked.
impl fmt::Display for OauthSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = |f: &mut fmt::Formatter<'_>, place: &dyn fmt::Display, refresh: &Duration| {
            write!(f, "keys in {place}, read every {refresh:?}")
        };
        match self {
            Self::File { path, refresh } => keys(f, &path.display(), refresh),
            Self::Web { uri, refresh, .. } => keys(f, uri, refresh),
            Self::Introspection { uri, client, .. } => {
                write!(f, "introspection at {uri} as {client}")
            }
        }
    }
}
