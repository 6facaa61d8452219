//! Decides which task copies the bytes of a session.

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

use super::proxy::Proxy;

/// Runs the proxy of a session.
pub(super) enum Forwarder {
    /// The task that sends a query also runs the proxy: waking another task for each message would take
    /// longer.
    Inline(Box<Proxy>, Arc<ClientWaker>),
    /// A separate task runs it.
    Spawned(JoinHandle<()>),
    /// One of the two sides has closed the connection.
    Closed,
}

impl Forwarder {
    pub(super) fn inline(proxy: Proxy) -> Self {
        Self::Inline(Box::new(proxy), Arc::default())
    }

    /// Runs a query of sqlx together with the proxy.
    pub(super) async fn run_with<T>(&mut self, query: impl Future<Output = T>) -> T {
        let Self::Inline(proxy, client) = self else { return query.await };
        let mut query = pin!(query);
        client.mark_woken();
        let waker = Waker::from(Arc::clone(client));
        let answer = poll_fn(|cx| {
            client.task.register(cx.waker());
            if client.take_woken() {
                if let Poll::Ready(answer) = query.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Poll::Ready(Some(answer));
                }
                proxy.client_ran();
            }
            proxy.poll(cx).map(|()| None)
        });
        if let Some(answer) = answer.await {
            return answer;
        }
        // Dropping the proxy closes the socket, so that sqlx ends the query with an error.
        *self = Self::Closed;
        query.await
    }

    /// Moves the proxy to a separate task, where it runs with or without a query.
    pub(super) fn spawn(&mut self) {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Inline(proxy, _) => match proxy.registered() {
                Ok(mut proxy) => Self::Spawned(tokio::spawn(poll_fn(move |cx| {
                    let polled = proxy.poll(cx);
                    // A listener mostly waits.
                    proxy.rest();
                    polled
                }))),
                Err(error) => {
                    tracing::debug!(%error, "cannot register a connection with the runtime");
                    Self::Closed
                }
            },
            other => other,
        };
    }

    /// Frees buffers, if no query runs.
    pub(super) fn rest(&mut self) {
        if let Self::Inline(proxy, _) = self {
            proxy.rest();
        }
    }

    /// Waits until both sides have closed the connection.
    pub(super) async fn end(self) {
        match self {
            Self::Inline(mut proxy, _) => {
                proxy.client_closed();
                poll_fn(|cx| proxy.poll(cx)).await;
            }
            Self::Spawned(forwarder) => _ = forwarder.await,
            Self::Closed => (),
        }
    }
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").finish_non_exhaustive()
    }
}

/// The waker of sqlx within a shared task. The network wakes the task for the proxy alone; an event for sqlx
/// sets `woken` as well.
#[derive(Default)]
pub(super) struct ClientWaker {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl ClientWaker {
    fn mark_woken(&self) {
        self.woken.store(true, Ordering::Release);
    }

    fn take_woken(&self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }
}

impl Wake for ClientWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mark_woken();
        self.task.wake();
    }
}
