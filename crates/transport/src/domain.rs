//! Asking a partner's domain for its key statement. What the answer means is the exchange's to say.

use std::sync::Arc;
use std::time::Duration;

use countersign_event::names::Authority;
use countersign_exchange::{
    DOMAIN_STATEMENT_BYTES_MAX, DomainProof, Exchange, ExchangeError, FoundAtDomain,
    key_statement_url,
};

use crate::web::{Dial, Fetched, Web, WebOptions};

/// How long a domain may take for its whole answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How domains are asked: certified by the roots of the web, at public addresses, without redirects.
#[must_use]
pub fn domain_web() -> WebOptions {
    WebOptions {
        time_max: ANSWER,
        body_bytes_max: DOMAIN_STATEMENT_BYTES_MAX as u64,
        redirects_max: 0,
        https_only: true,
        dial: Dial::Public,
        roots: None,
    }
}

/// Asks a partner's domain, and keeps what was found.
///
/// # Errors
/// As [`Exchange::note_domain`].
pub async fn check_domain(
    exchange: &Arc<Exchange>,
    web: &Web,
    partner: &Authority,
) -> Result<DomainProof, ExchangeError> {
    let fetched = match key_statement_url(partner) {
        None => Err("it has no domain".to_owned()),
        Some(url) => web.get(url).await.map_err(|error| error.to_string()),
    };
    let found = match fetched {
        Ok(Fetched {
            status: 200, body, ..
        }) => FoundAtDomain::Page(body),
        Ok(fetched) => FoundAtDomain::Status(fetched.status),
        Err(why) => FoundAtDomain::Nothing(why),
    };
    exchange.note_domain(partner, &found).await
}
