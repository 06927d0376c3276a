//! `GET /v1/tasks/{task}/events`: server-sent events.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{Path, State},
    http::HeaderName,
    response::{
        IntoResponse,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use tokio::sync::{broadcast, watch};
use unsaid_protocol::{Event, TaskId};

use super::{
    openapi::{EventForm, OfTask, Refusals},
    problem::Refused,
};
use crate::{
    clock::Clock,
    relay::Relay,
    snapshot::{Numbered, Snapshot},
};

/// How long a browser waits before it connects again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// Proxies that know this header do not hold events back.
const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

/// Sends the current state, then every event. A reader that falls behind is sent the current state again.
#[utoipa::path(get, path = "/tasks/{task}/events", tag = "task", params(("task" = TaskId, Path, description = "The task's id")), responses(
    (status = 200, description = "Server-sent events `round`, `published` and `evaluated`, without end", body = EventForm,
        content_type = "text/event-stream"),
    Refusals<OfTask>,
))]
pub async fn events(
    State(relay): State<Arc<Relay>>,
    Path(task): Path<String>,
) -> Result<impl IntoResponse, Refused> {
    let task = relay.task(&task)?;
    let mut reader = Reader {
        // In this order: an event between the two is in both, and dropped by its number.
        events: task.outlook.events.subscribe(),
        snapshot: task.outlook.snapshot.clone(),
        stopping: relay.stopping(),
        clock: relay.clock.clone(),
        queue: VecDeque::new(),
        seen: 0,
    };
    reader.catch_up();
    let keep_alive = KeepAlive::new().interval(relay.options.keep_alive);
    Ok((
        [UNBUFFERED],
        Sse::new(reader.into_stream()).keep_alive(keep_alive),
    ))
}

struct Reader {
    events: broadcast::Receiver<Numbered>,
    snapshot: watch::Receiver<Snapshot>,
    stopping: watch::Receiver<bool>,
    clock: Arc<dyn Clock>,
    queue: VecDeque<Event>,
    seen: u64,
}

impl Reader {
    fn catch_up(&mut self) {
        let snapshot = self.snapshot.borrow();
        self.seen = snapshot.seq;
        self.queue = snapshot.greeting(self.clock.now_ms()).into();
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            let received = tokio::select! {
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
                received = self.events.recv() => received,
            };
            match received {
                Ok(Numbered { seq, event }) if seq > self.seen => {
                    self.seen = seq;
                    self.queue.push_back(event);
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => self.catch_up(),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    fn into_stream(self) -> impl Stream<Item = Result<sse::Event, Infallible>> {
        stream::unfold(self, |mut reader| async {
            let event = reader.next().await?;
            let sent = sse::Event::default()
                .event(event.name())
                .data(event.data())
                .retry(RECONNECT_AFTER);
            Some((Ok(sent), reader))
        })
    }
}
