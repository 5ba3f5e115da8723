//! Waiting: which hot frames keep their VM, and which are given back.

use tasker_adaptor::StackRunId;

use super::core::Core;
use super::options::Drive;
use crate::run::{ChildKind, Event};

impl Core {
    pub(crate) fn note_idle(&mut self, id: StackRunId) {
        let Some(frame) = self.hot.get_mut(&id) else {
            return;
        };
        match (frame.machine.is_idle(), frame.idle_since) {
            (true, None) => {
                let now = self.shared.clock.monotonic_ms();
                frame.idle_since = Some(now);
                self.idle.insert((now, id));
                if self.suspect == Some(id) && frame.machine.turn().0 > 0 {
                    self.next_suspect();
                }
                if self.waits_long(id) {
                    self.events.push_back((id, Event::Park));
                }
            }
            (false, Some(since)) => {
                frame.idle_since = None;
                self.idle.remove(&(since, id));
            }
            _ => {}
        }
    }

    /// A frame that waits for nothing but far timers and signals keeps no VM.
    fn waits_long(&self, id: StackRunId) -> bool {
        if self.shared.options.park_always || self.shared.options.drive == Drive::Manual {
            return true;
        }
        let Some(frame) = self.hot.get(&id) else {
            return false;
        };
        let far = self
            .shared
            .clock
            .now()
            .plus_millis(i64::try_from(self.shared.options.park_delay_ms).unwrap_or(i64::MAX));
        frame.machine.open().all(|(_, child)| match child.kind {
            ChildKind::Timer(due) => due > far,
            ChildKind::Here(_) | ChildKind::Elsewhere | ChildKind::Ready => false,
        })
    }

    /// Parks frames that have waited too long, that are too many, or that a shutdown gives back.
    pub(crate) fn park_idle(&mut self) {
        let options = &self.shared.options;
        let old = self.shared.clock.monotonic_ms() - options.park_delay_ms as i64;
        let mut excess = self.hot.len().saturating_sub(options.hot_frames);
        let all = self.draining.is_some();
        let park: Vec<StackRunId> = self
            .idle
            .iter()
            .take_while(|(since, _)| {
                let take = all || *since <= old || excess > 0;
                excess = excess.saturating_sub(1);
                take
            })
            .map(|(_, id)| *id)
            .collect();
        for id in park {
            self.events.push_back((id, Event::Park));
        }
    }
}
