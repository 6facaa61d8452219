//! Waiting for what no event tells of.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Result;

/// A machine with two slow cores that does something else besides takes a tenth of it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// What goes on and on comes to nothing, either.
const LONGEST: Duration = Duration::from_mins(10);

/// How often something is looked at that cannot be waited for.
const POLL: Duration = Duration::from_millis(200);

/// Waits until something holds; what it answers then. As long as what it is instead changes, it is on its
/// way.
pub(crate) async fn until<T, F>(what: &str, mut holds: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let began = Instant::now();
    let (mut since, mut last) = (began, String::new());
    loop {
        match holds().await {
            Ok(answer) => return Ok(answer),
            Err(instead) if PATIENCE < since.elapsed() || LONGEST < began.elapsed() => {
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
