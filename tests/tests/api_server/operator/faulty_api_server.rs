//! A proxy in front of the real API server that injects faults.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt, TryStreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::sync::watch;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, Failure>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Calm,
    /// Every third request is refused, and every second write: too many requests, an internal error, a
    /// conflict.
    Storm,
    /// No request is answered.
    Away,
    /// Watches send nothing until this ends.
    Late,
    /// Watches end, and none can resume.
    Expired,
    /// A list that asks for one object is not answered until this ends.
    Silent,
    /// The CRD is deleted: a watch of `TaskQueues` gets the answer 404.
    Undefined,
}

/// The proxy between an operator and its API server.
#[derive(Clone)]
pub(crate) struct Faults {
    mode: Arc<watch::Sender<Mode>>,
    refused: Arc<AtomicU64>,
    /// The paths of all watches.
    watched: Arc<Mutex<BTreeSet<String>>>,
    dice: Arc<Mutex<fastrand::Rng>>,
}

impl Faults {
    pub(crate) fn new(mode: Mode) -> Self {
        let dice = Arc::new(Mutex::new(fastrand::Rng::with_seed(4711)));
        Self {
            mode: Arc::new(watch::Sender::new(mode)),
            refused: Arc::default(),
            watched: Arc::default(),
            dice,
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether this path was ever watched.
    pub(crate) fn has_watched(&self, path: &str) -> bool {
        self.watched.lock().unwrap().contains(path)
    }

    /// Waits until this many more requests were refused.
    pub(crate) async fn wait_for_refusals(&self, more: u64) {
        let end = self.refused() + more;
        super::harness::until("it sends another request", || {
            if self.refused() >= end { Ok(()) } else { Err(self.refused().to_string()) }
        })
        .await;
    }

    /// The client, through the proxy.
    pub(crate) fn between(&self, client: Client) -> Client {
        let faults = self.clone();
        let namespace = client.default_namespace().to_owned();
        let service = tower::service_fn(move |request| {
            let (faults, client) = (faults.clone(), client.clone());
            async move { faults.answer(client, request).await }
        });
        Client::new(service, namespace)
    }

    async fn answer(&self, client: Client, request: Request<Body>) -> Result<Answer, Failure> {
        let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        if watches {
            self.watched.lock().unwrap().insert(request.uri().path().to_owned());
        }
        let mode = *self.mode.borrow();
        let dice = self.dice.lock().unwrap().u8(0..6);
        match (mode, dice) {
            (Mode::Away, _) => return Err(self.refuse("connection refused").into()),
            (Mode::Storm, 0) => return Ok(self.status(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests")),
            (Mode::Storm, 1) => {
                return Ok(self.status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
            }
            (Mode::Storm, 2) if !request.method().is_safe() => {
                return Ok(self.status(StatusCode::CONFLICT, "Conflict"));
            }
            (Mode::Undefined, _)
                if request.method().is_safe() && request.uri().path().ends_with("/taskqueues") =>
            {
                return Ok(self.status(StatusCode::NOT_FOUND, "NotFound"));
            }
            (Mode::Silent, _) if request.uri().query().is_some_and(|query| query.contains("limit=1")) => {
                let _ = self.mode.subscribe().wait_for(|mode| *mode != Mode::Silent).await;
            }
            (Mode::Expired, _) if watches => return Ok(self.status(StatusCode::GONE, "Expired")),
            _ => (),
        }
        let (head, body) = client.send(request).await?.into_parts();
        let mut modes = self.mode.subscribe();
        let over = async move {
            // A request that was let through completes; streams end when the faults start.
            let _ = modes
                .wait_for(|mode| watches && matches!(mode, Mode::Away | Mode::Expired | Mode::Undefined))
                .await;
        };
        let delayed = self.mode.subscribe();
        let body = body.into_data_stream().then(move |data| {
            let mut delayed = delayed.clone();
            async move {
                let _ = delayed.wait_for(|mode| !(watches && *mode == Mode::Late)).await;
                data
            }
        });
        let data = body.map_ok(Frame::data).map_err(Into::into).take_until(Box::pin(over));
        Ok(Response::from_parts(head, UnsyncBoxBody::new(StreamBody::new(data))))
    }

    fn refuse(&self, why: &'static str) -> &'static str {
        self.refused.fetch_add(1, Ordering::Relaxed);
        why
    }

    fn status(&self, code: StatusCode, reason: &'static str) -> Answer {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
            "reason": self.refuse(reason), "message": format!("a fault: {reason}"),
        });
        let body = Full::new(Bytes::from(status.to_string())).map_err(|never| match never {});
        let mut answer = Response::new(UnsyncBoxBody::new(body));
        *answer.status_mut() = code;
        answer
    }
}
