//! Who passes on the bytes of a session.

use std::pin::{Pin, pin};

use tokio::task::JoinHandle;

/// What passes on a session's bytes.
pub(super) enum Pump {
    /// The task that asks passes on the bytes of question and answer: waking another one for each takes
    /// longer.
    Here(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// A task does.
    Away(JoinHandle<()>),
    /// One of the two sides hung up.
    Over,
}

impl Pump {
    /// What is asked, while the pump passes it on.
    pub(super) async fn beside<T>(&mut self, asked: impl Future<Output = T>) -> T {
        let Self::Here(pump) = self else { return asked.await };
        let mut asked = pin!(asked);
        tokio::select! {
            biased;
            answer = &mut asked => return answer,
            () = pump => (),
        }
        // sqlx is told, too.
        *self = Self::Over;
        asked.await
    }

    /// Waits for the end of both sides.
    pub(super) async fn end(self) {
        match self {
            Self::Here(pump) => pump.await,
            Self::Away(pump) => _ = pump.await,
            Self::Over => (),
        }
    }
}

impl std::fmt::Debug for Pump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pump").finish_non_exhaustive()
    }
}
