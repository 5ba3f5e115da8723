//! Hints for everybody who watches, without a runtime.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Poll, Waker};

use futures::StreamExt as _;
use futures::stream;

use crate::{Hint, Hints};

/// Hints that a slow reader may leave unread before it gets `Any` for all of them.
const INBOX: usize = 1_024;

/// All who watch one store.
#[derive(Default)]
pub(super) struct Hub {
    inboxes: Mutex<Vec<Weak<Mutex<Inbox>>>>,
}

#[derive(Default)]
struct Inbox {
    hints: VecDeque<Hint>,
    waker: Option<Waker>,
    closed: bool,
}

impl Hub {
    pub(super) fn subscribe(&self) -> Hints {
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        lock(&self.inboxes).push(Arc::downgrade(&inbox));
        stream::poll_fn(move |context| {
            let mut inbox = lock(&inbox);
            if let Some(hint) = inbox.hints.pop_front() {
                return Poll::Ready(Some(hint));
            }
            if inbox.closed {
                return Poll::Ready(None);
            }
            inbox.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .boxed()
    }

    pub(super) fn send(&self, hints: &[Hint]) {
        if hints.is_empty() {
            return;
        }
        let mut wakers = Vec::new();
        lock(&self.inboxes).retain(|inbox| {
            let Some(inbox) = inbox.upgrade() else {
                return false;
            };
            let mut inbox = lock(&inbox);
            for hint in hints {
                inbox.put(*hint);
            }
            wakers.extend(inbox.waker.take());
            true
        });
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        for inbox in lock(&self.inboxes).drain(..) {
            if let Some(inbox) = inbox.upgrade() {
                let mut inbox = lock(&inbox);
                inbox.closed = true;
                if let Some(waker) = inbox.waker.take() {
                    waker.wake();
                }
            }
        }
    }
}

impl Inbox {
    fn put(&mut self, hint: Hint) {
        if self.hints.back() == Some(&hint) {
            return;
        }
        if self.hints.len() >= INBOX {
            self.hints.clear();
            self.hints.push_back(Hint::Any);
            return;
        }
        self.hints.push_back(hint);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
