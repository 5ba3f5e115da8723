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

    /// Parks frames that have waited too long, that are too many or take too much memory, or that a shutdown gives back.
    pub(crate) fn park_idle(&mut self) {
        let options = &self.shared.options;
        let old = self.shared.clock.monotonic_ms() - options.park_delay_ms as i64;
        let mut excess = self.vms.len().saturating_sub(options.hot_frames);
        let mut bytes = self.threads.lack();
        let all = self.draining.is_some();
        let park: Vec<StackRunId> = self
            .idle
            .iter()
            .take_while(|(since, id)| {
                let take = all || *since <= old || excess > 0 || bytes > 0;
                excess = excess.saturating_sub(1);
                bytes = bytes.saturating_sub(self.memory_of(*id));
                take
            })
            .map(|(_, id)| *id)
            .collect();
        for id in park {
            self.events.push_back((id, Event::Park));
        }
    }

    /// How many more frames may be taken up now: the window, the VMs and the memory that are left. Frames that wait make room when
    /// it is needed, so they do not count. One frame may always be worked on, however much it takes.
    pub(crate) fn room(&self) -> usize {
        let options = &self.shared.options;
        let active = self.active();
        let room = options
            .window
            .min(options.hot_frames)
            .saturating_sub(active);
        let preparing = self.preparing.len();
        if room == 0 || self.threads.room(preparing, 0) >= room {
            return room;
        }
        let waiting = self.idle.iter().map(|(_, id)| self.memory_of(*id)).sum();
        let fit = self.threads.room(preparing, waiting);
        room.min(fit.max(usize::from(active == 0)))
    }

    fn memory_of(&self, id: StackRunId) -> usize {
        let vm = self.hot.get(&id).and_then(|frame| frame.vm);
        vm.map_or(0, |key| self.threads.memory_of(key))
    }
}
