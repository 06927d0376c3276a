//! Events to the page, and from the relay.

use futures_util::StreamExt;
use gloo_net::eventsource::futures::EventSource;
use serde::Serialize;
use unsaid_protocol::Event;
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use web_sys::{BroadcastChannel, MessageEvent};

use super::locks;
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

/// Follows the relay's events of a task until `abort`.
///
/// A browser keeps at most six connections to a server over HTTP/1.1, and an event stream holds one for good: with a stream for
/// every tab the seventh tab could not even load. So one tab, the one that holds a Web Lock, reads the stream and passes each
/// event on to the others over a broadcast channel; when it closes, another takes over.
pub(crate) async fn follow(url: String, feed: Feed, listener: Callback, abort: Abort) {
    let hearer = Hearer { feed, listener };
    let channel = BroadcastChannel::new(&format!("unsaid/events/{url}")).ok();
    let from_others = {
        let hearer = hearer.clone();
        Closure::<dyn FnMut(MessageEvent)>::new(move |message: MessageEvent| {
            let text = message.data().as_string().unwrap_or_default();
            if let Some((name, data)) = text.split_once('\n') {
                hearer.hear(name, data);
            }
        })
    };
    if let Some(channel) = &channel {
        channel.set_onmessage(Some(from_others.as_ref().unchecked_ref()));
    }
    let reading = async {
        loop {
            // Without Web Locks every tab reads for itself.
            let _reader = locks::hold(&format!("unsaid/events/{url}"), false)
                .await
                .ok()
                .flatten();
            let _ = stream(&url, &hearer, channel.as_ref()).await;
            // The browser reconnects by itself after a break; here it gave up (the answer was no event stream).
            gloo_timers::future::TimeoutFuture::new(3_000).await;
        }
    };
    let _: Result<(), ClientError> = abort.guard(reading).await;
    if let Some(channel) = &channel {
        channel.close();
    }
}

/// Takes the relay's events, from wherever they come.
#[derive(Clone)]
struct Hearer {
    feed: Feed,
    listener: Callback,
}

impl Hearer {
    fn hear(&self, name: &str, data: &str) {
        match Event::read(name, data) {
            Ok(Some(Event::Round(state))) => {
                self.listener.hear((&state).into());
                self.feed.set(state);
            }
            Ok(Some(Event::Published(metrics) | Event::Evaluated(metrics))) => {
                self.listener.hear(SessionEvent::Round {
                    metrics: metrics.into(),
                });
            }
            // What a later relay may send, or a broken payload: the next event tells the state anew.
            _ => {}
        }
    }
}

/// Reads the stream until the browser gives it up, and passes every event on.
async fn stream(url: &str, hearer: &Hearer, others: Option<&BroadcastChannel>) -> Result<(), ClientError> {
    let failed = |_| ClientError::RelayUnreachable("no event stream".into());
    let mut source = EventSource::new(url).map_err(failed)?;
    let round = source.subscribe("round").map_err(failed)?;
    let published = source.subscribe("published").map_err(failed)?;
    let evaluated = source.subscribe("evaluated").map_err(failed)?;
    let mut events = futures_util::stream::select(round, futures_util::stream::select(published, evaluated));
    while let Some(Ok((name, message))) = events.next().await {
        let data = message.data().as_string().unwrap_or_default();
        if let Some(others) = others {
            let _ = others.post_message(&JsValue::from_str(&format!("{name}\n{data}")));
        }
        hearer.hear(&name, &data);
    }
    Ok(())
}
