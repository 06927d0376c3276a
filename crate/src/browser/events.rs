//! Events to the page, and from the relay.

use futures_util::StreamExt;
use gloo_net::eventsource::futures::EventSource;
use serde::Serialize;
use unsaid_protocol::Event;
use wasm_bindgen::JsValue;

use crate::{ClientError, SessionEvent, abort::Abort, feed::Feed, ports::Listener};

/// The function that JavaScript gave to hear events.
#[derive(Debug, Clone)]
pub(crate) struct Callback(pub js_sys::Function);

/// A value as JavaScript expects it: plain objects, null for none.
pub(crate) fn to_js(value: &impl Serialize) -> JsValue {
    value
        .serialize(&serde_wasm_bindgen::Serializer::json_compatible())
        .unwrap_or(JsValue::NULL)
}

impl Listener for Callback {
    fn hear(&self, event: SessionEvent) {
        // A listener that throws is the page's fault and must not stop training.
        let _ = self.0.call1(&JsValue::NULL, &to_js(&event));
    }
}

/// Follows the relay's events of a task until `abort`. The browser reconnects by itself after a break; where it gives up (the
/// relay answered something that is no event stream), the stream is opened again every few seconds.
pub(crate) async fn follow(url: String, feed: Feed, listener: Callback, abort: Abort) {
    loop {
        let followed = abort.guard(stream(&url, &feed, &listener)).await;
        if followed.is_err()
            || abort
                .guard(gloo_timers::future::TimeoutFuture::new(3_000))
                .await
                .is_err()
        {
            return;
        }
    }
}

async fn stream(url: &str, feed: &Feed, listener: &Callback) -> Result<(), ClientError> {
    let failed = |_| ClientError::RelayUnreachable("no event stream".into());
    let mut source = EventSource::new(url).map_err(failed)?;
    let round = source.subscribe("round").map_err(failed)?;
    let published = source.subscribe("published").map_err(failed)?;
    let evaluated = source.subscribe("evaluated").map_err(failed)?;
    let mut events = futures_util::stream::select(round, futures_util::stream::select(published, evaluated));
    while let Some(Ok((name, message))) = events.next().await {
        let data = message.data().as_string().unwrap_or_default();
        match Event::read(&name, &data) {
            Ok(Some(Event::Round(state))) => {
                listener.hear((&state).into());
                feed.set(state);
            }
            Ok(Some(Event::Published(metrics) | Event::Evaluated(metrics))) => {
                listener.hear(SessionEvent::Round {
                    metrics: metrics.into(),
                });
            }
            // What a later relay may send, or a broken payload: the next event tells the state anew.
            _ => {}
        }
    }
    Ok(())
}
