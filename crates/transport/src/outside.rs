//! Heads out to witnesses that are no partners, over HTTP (C2SP tlog-witness). What is due and what an answer means is the exchange's to say.

use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::sha256;
use countersign_exchange::{Exchange, OutsideWitness, Said, Submission, WitnessId};
use tokio::time::{sleep, timeout};

use crate::web::{Dial, Fetched, Web, WebError, WebOptions};

/// How often it is looked whether heads are due: no head is shown more often than once a second.
const LOOK: Duration = Duration::from_millis(500);

/// The longest rest where nothing grows.
const REST: Duration = Duration::from_secs(60);

/// The longest wait after a witness could not be reached.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How long a witness may take for its whole answer: it syncs a disk.
const ANSWER: Duration = Duration::from_secs(10);

/// Bytes of an answer: a line for each key of the witness, or a note with the lines of several.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// What a refusal is called that names the size held (C2SP tlog-witness).
const SIZE_TYPE: &str = "text/x.tlog.size";

/// Shows one witness our heads, one at a time, as long as the node runs. Nothing waits for it.
pub(crate) async fn submit_outside(exchange: Arc<Exchange>, witness: OutsideWitness) {
    let id = witness.id();
    let vkey = witness.vkey.to_string();
    let web = Web::new(&WebOptions {
        time_max: ANSWER,
        body_bytes_max: ANSWER_BYTES_MAX,
        redirects_max: 0,
        https_only: false,
        dial: Dial::Any,
        roots: None,
    });
    let mut backoff = LOOK;
    // Whose turn it is, where several are due: each gets its own before one gets another.
    let mut turn = 0;
    loop {
        let mut shown = exchange.shown_to(&id);
        let one = shown
            .first()
            .filter(|_| shown.len() == 1)
            .map(|log| log.watch());
        let streams = shown.len().max(1);
        shown.rotate_left(turn % streams);
        let due = exchange.submissions(&id, &shown, 1);
        let Some(submission) = due.first() else {
            match one {
                Some(mut head) if exchange.has_shown(&id, &shown) => {
                    let _ = timeout(REST, head.changed()).await;
                }
                _ => sleep(LOOK).await,
            }
            continue;
        };
        let at = shown
            .iter()
            .position(|log| *log.origin() == submission.origin);
        turn = (turn + at.unwrap_or(0) + 1) % streams;
        match submit(&exchange, &id, (&web, &witness, &vkey), submission).await {
            Ok(()) => backoff = LOOK,
            Err(error) => {
                tracing::debug!(witness = %id, %error, "an outside witness did not answer");
                exchange.give_up_submissions(&id, Some(&format!("no answer: {error}")));
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

async fn submit(
    exchange: &Arc<Exchange>,
    id: &WitnessId,
    (web, witness, vkey): (&Web, &OutsideWitness, &str),
    submission: &Submission,
) -> Result<(), WebError> {
    let posted = web.post(witness.add_checkpoint_url(), submission.body.clone());
    let said = [said(posted.await?)];
    let failed = |error: &dyn std::fmt::Display| WebError::Failed(error.to_string());
    let submissions = std::slice::from_ref(submission);
    let taken = exchange.take_cosignatures(id, vkey, submissions, &said);
    if !taken.await.map_err(|error| failed(&error))? {
        return Ok(());
    }
    // A number is signed by nobody. What it shows as cosigned last carries our own signature, or it proves nothing.
    let hash = hex::encode(sha256(submission.origin.as_str().as_bytes()));
    let shown = web.get(witness.monitoring_url(&hash)).await;
    if let Ok(Fetched {
        status: 200, body, ..
    }) = shown
    {
        let name = witness.vkey.name();
        let heard = exchange.hear_outside(name, &submission.origin, &body);
        heard.map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// A refusal that names the size held says so by its type.
fn said(fetched: Fetched) -> Said {
    let named = fetched.content_type.split(';').next().map(str::trim);
    let is_size = named.is_some_and(|named| named.eq_ignore_ascii_case(SIZE_TYPE));
    Said {
        status: fetched.status,
        body: match fetched.status {
            409 if !is_size => Vec::new(),
            _ => fetched.body,
        },
    }
}
