//! The device and its queue.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use js_sys::{Array, Function};
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::{JsFuture, spawn_local};

use crate::{
    Buffer, BufferDescriptor, CommandBuffer, CommandEncoder, Limits,
    object::{get, object, text},
    pipeline::Compiling,
    sys,
};

/// A device; clones are the same.
#[derive(Clone)]
pub struct Device {
    js: sys::GpuDevice,
    limits: Limits,
    compiling: Rc<RefCell<Vec<Compiling>>>,
}

/// The queue of a device; clones are the same.
#[derive(Debug, Clone)]
pub struct Queue(sys::GpuQueue);

/// Work that the queue was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubmissionIndex(());

/// What to wait for.
#[derive(Debug, Clone)]
pub enum PollType {
    /// For work.
    Wait {
        /// Which; none for all.
        submission_index: Option<SubmissionIndex>,
        /// For how long.
        timeout: Option<std::time::Duration>,
    },
}

impl PollType {
    /// For all work.
    pub const fn wait_indefinitely() -> Self {
        Self::Wait {
            submission_index: None,
            timeout: None,
        }
    }
}

/// Why a device was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceLostReason {
    /// It was given up.
    Destroyed,
    /// Anything else.
    Unknown,
}

/// What the browser reports of work that it refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// There is no memory for it.
    OutOfMemory {
        /// The browser's words.
        text: String,
    },
    /// Anything else, in its own words.
    Other(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OutOfMemory { text } | Self::Other(text) => f.write_str(text),
        }
    }
}

/// A function that does nothing with what it is given.
pub(crate) fn ignore() -> Closure<dyn FnMut(JsValue)> {
    Closure::wrap(Box::new(|_| {}))
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").finish_non_exhaustive()
    }
}

impl Device {
    pub(crate) fn new(js: sys::GpuDevice, limits: Limits) -> (Self, Queue) {
        let queue = Queue(js.queue());
        let compiling = Rc::default();
        (
            Self {
                js,
                limits,
                compiling,
            },
            queue,
        )
    }

    pub(crate) const fn js(&self) -> &sys::GpuDevice {
        &self.js
    }

    pub(crate) fn compiling(&self, pipeline: Compiling) {
        self.compiling.borrow_mut().push(pipeline);
    }

    /// Waits until every pipeline that was made is compiled. (wgpu has no such thing.)
    pub async fn compiled(&self) {
        let all = std::mem::take(&mut *self.compiling.borrow_mut());
        for pipeline in all {
            pipeline.end().await;
        }
    }

    /// What it can do at most.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Gives it up.
    pub fn destroy(&self) {
        self.js.destroy();
    }

    /// Calls `callback` when the device is lost.
    pub fn set_device_lost_callback(&self, callback: impl FnOnce(DeviceLostReason, String) + 'static) {
        let lost = self.js.lost();
        spawn_local(async move {
            let info = JsFuture::from(lost).await.unwrap_or_else(|thrown| thrown);
            let reason = match text(&info, "reason").as_str() {
                "destroyed" => DeviceLostReason::Destroyed,
                _ => DeviceLostReason::Unknown,
            };
            callback(reason, text(&info, "message"));
        });
    }

    /// Calls `handler` for every error that nobody else hears of.
    pub fn on_uncaptured_error(&self, handler: Arc<dyn Fn(Error)>) {
        let listener = Closure::wrap(Box::new(move |event: JsValue| {
            let error = get(&event, "error");
            let kind = text(&get(&error, "constructor"), "name");
            let text = text(&error, "message");
            handler(if kind == "GPUOutOfMemoryError" {
                Error::OutOfMemory { text }
            } else {
                Error::Other(text)
            });
        }) as Box<dyn FnMut(JsValue)>);
        // As long as the device, which nobody tells us.
        let listener: Function = listener.into_js_value().unchecked_into();
        self.js.on_uncaptured_error(&listener);
    }

    /// A buffer. Where there is no memory for it, the device reports that.
    pub fn create_buffer(&self, descriptor: &BufferDescriptor<'_>) -> Buffer {
        let members = object(&[
            ("label", JsValue::from_str(descriptor.label.unwrap_or_default())),
            ("size", JsValue::from_f64(descriptor.size as f64)),
            ("usage", JsValue::from_f64(descriptor.usage.bits().into())),
        ]);
        Buffer::new(self.js.create_buffer(&members))
    }

    /// Begins to record commands.
    pub fn create_command_encoder(&self, _: &()) -> CommandEncoder {
        CommandEncoder::new(self.js.create_command_encoder())
    }

    /// Nothing: browsers call back by themselves.
    ///
    /// # Errors
    /// None.
    pub fn poll(&self, _: PollType) -> Result<(), Error> {
        Ok(())
    }
}

impl Queue {
    /// Gives commands to the GPU.
    pub fn submit<const N: usize>(&self, commands: [CommandBuffer; N]) -> SubmissionIndex {
        let list = Array::new();
        for command in commands {
            list.push(&command.0);
        }
        self.0.submit(&list);
        SubmissionIndex(())
    }

    /// Writes bytes into a buffer, before what is submitted next.
    pub fn write_buffer(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) {
        // Refused by a device that is lost, which says so itself.
        let _ = self.0.write_buffer(buffer.js(), offset as f64, bytes);
    }

    /// Calls `done` when everything that was submitted is done, or never will be.
    pub fn on_submitted_work_done(&self, done: impl FnOnce() + 'static) {
        let promise = self.0.on_submitted_work_done();
        spawn_local(async move {
            let _ = JsFuture::from(promise).await;
            done();
        });
    }
}
