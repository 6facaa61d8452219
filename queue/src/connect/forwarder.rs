//! Who passes on the bytes of a session.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;
use tokio::task::JoinHandle;

use super::flow::Flow;

/// What passes on a session's bytes.
pub(super) enum Forwarder {
    /// The task that asks passes on the bytes of question and answer: waking another one for each takes
    /// longer.
    Here(Box<Flow>, Arc<Turn>),
    /// A task does.
    Away(JoinHandle<()>),
    /// One of the two sides hung up.
    Over,
}

impl Forwarder {
    pub(super) fn here(flow: Flow) -> Self {
        Self::Here(Box::new(flow), Arc::default())
    }

    /// What is asked, while the forwarder passes it on.
    pub(super) async fn run_with<T>(&mut self, asked: impl Future<Output = T>) -> T {
        let Self::Here(flow, turn) = self else { return asked.await };
        let mut asked = pin!(asked);
        turn.begin();
        let waker = Waker::from(Arc::clone(turn));
        let answer = poll_fn(|cx| {
            turn.task.register(cx.waker());
            if turn.take() {
                if let Poll::Ready(answer) = asked.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Poll::Ready(Some(answer));
                }
                flow.note_client();
            }
            flow.poll(cx).map(|()| None)
        });
        if let Some(answer) = answer.await {
            return answer;
        }
        // sqlx is told, too.
        *self = Self::Over;
        asked.await
    }

    /// From now on a task passes on the bytes, whether something is asked or not.
    pub(super) fn away(&mut self) {
        *self = match std::mem::replace(self, Self::Over) {
            Self::Here(flow, _) => match flow.watched() {
                Ok(mut flow) => Self::Away(tokio::spawn(async move { poll_fn(|cx| flow.poll(cx)).await })),
                Err(error) => {
                    tracing::debug!(%error, "a connection cannot be watched");
                    Self::Over
                }
            },
            other => other,
        };
    }

    /// Waits for the end of both sides.
    pub(super) async fn end(self) {
        match self {
            Self::Here(mut flow, _) => {
                flow.note_end();
                poll_fn(|cx| flow.poll(cx)).await;
            }
            Self::Away(forwarder) => _ = forwarder.await,
            Self::Over => (),
        }
    }
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pump").finish_non_exhaustive()
    }
}

/// Whose turn it is in a task: the network wakes the flow alone, and what wakes sqlx sets `due`.
#[derive(Default)]
pub(super) struct Turn {
    due: AtomicBool,
    task: AtomicWaker,
}

impl Turn {
    fn begin(&self) {
        self.due.store(true, Ordering::Release);
    }

    fn take(&self) -> bool {
        self.due.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.begin();
        self.task.wake();
    }
}
