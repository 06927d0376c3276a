//! Whoever hears what a session says.

use std::cell::RefCell;

use unsaid::{SessionEvent, events::UploadStatus, ports::Listener};

/// Someone who writes everything down, and may do something about it.
#[derive(Default)]
pub struct Recorder {
    events: RefCell<Vec<SessionEvent>>,
    hook: RefCell<Option<Hook>>,
}

type Hook = Box<dyn FnMut(&SessionEvent)>;

impl Recorder {
    pub fn events(&self) -> Vec<SessionEvent> {
        self.events.borrow().clone()
    }

    pub fn on(&self, hook: impl FnMut(&SessionEvent) + 'static) {
        self.hook.replace(Some(Box::new(hook)));
    }

    pub fn uploads(&self) -> Vec<UploadStatus> {
        let uploads = self.events().into_iter().filter_map(|event| match event {
            SessionEvent::Upload { status, .. } => Some(status),
            _ => None,
        });
        uploads.collect()
    }
}

impl Listener for Recorder {
    fn hear(&self, event: SessionEvent) {
        if let Some(hook) = &mut *self.hook.borrow_mut() {
            hook(&event);
        }
        self.events.borrow_mut().push(event);
    }
}
