//! Waiting for conditions that have no event.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Result;

/// A busy machine with two slow cores needs a tenth of it.
pub(crate) const TIMEOUT: Duration = Duration::from_mins(3);

/// Even with steady progress the wait ends after this time.
const LONGEST: Duration = Duration::from_mins(10);

/// The interval of polling.
const POLL: Duration = Duration::from_millis(500);

/// Waits until something holds and returns its value. The timeout starts again whenever the error changes,
/// since that is progress.
pub(crate) async fn until<T, F>(what: &str, mut holds: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let began = Instant::now();
    let (mut since, mut last) = (began, String::new());
    loop {
        match holds().await {
            Ok(answer) => return Ok(answer),
            Err(instead) if TIMEOUT < since.elapsed() || LONGEST < began.elapsed() => {
                return Err(instead.context(format!("waited in vain until {what}")));
            }
            Err(instead) => {
                if instead.to_string() != last {
                    (since, last) = (Instant::now(), instead.to_string());
                }
                tokio::time::sleep(POLL).await;
            }
        }
    }
}
