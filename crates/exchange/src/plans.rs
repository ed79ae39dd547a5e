//! The plans that our streams are offered under.

use std::sync::Arc;

use countersign_event::documents::{Plans, PlansError};
use countersign_event::ledger::LedgerRecord;

use crate::pipeline::consume::plan_filter;
use crate::{Exchange, ExchangeError, StreamError};

/// Why plans are not taken.
#[derive(Debug, thiserror::Error)]
pub enum SetPlansError {
    /// The node failed, or there is no such stream.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// They cannot be offered.
    #[error(transparent)]
    Plans(#[from] PlansError),
}

impl Exchange {
    /// Declares the plans of a stream of ours, all at once. Agreements hold their own plan: none of them changes.
    ///
    /// # Errors
    /// [`SetPlansError`].
    pub async fn set_plans(
        self: &Arc<Self>,
        stream: &str,
        plans: Plans,
    ) -> Result<(), SetPlansError> {
        plans.check()?;
        for plan in &plans.plans {
            plan_filter(plan)?;
        }
        let log = self.own_stream(stream).map_err(ExchangeError::from)?;
        let names_fields = plans.plans.iter().any(|plan| plan.fields.is_some());
        if names_fields && !log.settings().fields {
            let name = stream.parse().map_err(StreamError::from);
            let name = name.map_err(ExchangeError::from)?;
            return Err(ExchangeError::from(StreamError::NotFields { name }).into());
        }
        if self.plans(log.origin()) == plans {
            return Ok(());
        }
        let record = LedgerRecord::Plans {
            stream: log.origin().clone(),
            plans: plans.plans,
        };
        self.record_and_wait(None, record).await?;
        Ok(())
    }

    /// The plans of a stream of ours.
    #[must_use]
    pub fn plans(&self, stream: &countersign_event::names::Origin) -> Plans {
        self.registry()
            .plans
            .get(stream)
            .cloned()
            .unwrap_or_default()
    }
}
