//! What goes wrong in a history, as text that repeats it.

use std::fmt;
use std::str::FromStr;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::scenarios::{SCENARIOS, Scenario};

/// On which side of a call the crash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The call has not happened.
    Before,
    /// The call has happened, its answer is lost.
    After,
}

/// A crash of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crash {
    /// Which of the machine's calls, storage and services counted together from 0.
    pub(crate) at: usize,
    pub(crate) side: Side,
    /// The machine wakes after others have taken its work over.
    pub(crate) wakes: bool,
}

/// The database under a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Memory,
    Sqlite,
}

/// A history: the task, the machines, their crashes.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: &'static Scenario,
    pub(crate) backend: Backend,
    /// Every frame is parked as soon as it waits.
    pub(crate) park: bool,
    /// Machines that run at one time.
    pub(crate) workers: usize,
    /// Replies are lost and calls are made twice now and then, as this seed says; the machine lives on.
    pub(crate) hiccups: Option<u64>,
    /// Crash of the first, second … machine that is started; later ones do not crash.
    pub(crate) crashes: Vec<Crash>,
}

impl Plan {
    /// A plan from a seed. `calls` says how many calls a machine makes in a history of this scenario without a fault.
    pub(crate) fn random(seed: u64, backend: Backend, calls: impl Fn(&Scenario) -> usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let scenario = &SCENARIOS[rng.random_range(0..SCENARIOS.len())];
        let crashes = rng.random_range(0..=3);
        let last = calls(scenario) + 4;
        Self {
            scenario,
            backend,
            park: rng.random_bool(0.5),
            workers: if rng.random_bool(0.35) { 2 } else { 1 },
            hiccups: rng.random_bool(0.4).then_some(seed),
            crashes: (0..crashes)
                .map(|_| Crash {
                    at: rng.random_range(0..last),
                    side: if rng.random_bool(0.5) {
                        Side::Before
                    } else {
                        Side::After
                    },
                    wakes: rng.random_bool(0.3),
                })
                .collect(),
        }
    }

    /// One worker, no crash.
    pub(crate) fn calm(scenario: &'static Scenario, backend: Backend, park: bool) -> Self {
        Self {
            scenario,
            backend,
            park,
            workers: 1,
            hiccups: None,
            crashes: Vec::new(),
        }
    }
}

impl fmt::Display for Plan {
    /// `nested/memory/park/1/12-before,30-after-wakes/7`: the last part is the seed of the hiccups.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backend = match self.backend {
            Backend::Memory => "memory",
            Backend::Sqlite => "sqlite",
        };
        let park = if self.park { "park" } else { "hot" };
        write!(
            f,
            "{}/{backend}/{park}/{}/",
            self.scenario.name, self.workers
        )?;
        for (n, crash) in self.crashes.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let side = match crash.side {
                Side::Before => "before",
                Side::After => "after",
            };
            let wakes = if crash.wakes { "-wakes" } else { "" };
            write!(f, "{comma}{}-{side}{wakes}", crash.at)?;
        }
        match self.hiccups {
            Some(seed) => write!(f, "/{seed}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is no history: write scenario/memory/hot/1/12-before,30-after-wakes")
        };
        let mut parts = text.split('/');
        let mut next = || parts.next().ok_or_else(wrong);
        let name = next()?;
        let scenario = SCENARIOS
            .iter()
            .find(|scenario| scenario.name == name)
            .ok_or_else(wrong)?;
        let backend = match next()? {
            "memory" => Backend::Memory,
            "sqlite" => Backend::Sqlite,
            _ => return Err(wrong()),
        };
        let park = next()? == "park";
        let workers = next()?.parse().map_err(|_| wrong())?;
        let crashes = next()?
            .split(',')
            .filter(|crash| !crash.is_empty())
            .map(|crash| {
                let mut words = crash.split('-');
                let at = words.next()?.parse().ok()?;
                let side = match words.next()? {
                    "before" => Side::Before,
                    "after" => Side::After,
                    _ => return None,
                };
                let wakes = words.next() == Some("wakes");
                Some(Crash { at, side, wakes })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(wrong)?;
        let hiccups = match next() {
            Ok(seed) => Some(seed.parse().map_err(|_| wrong())?),
            Err(_) => None,
        };
        Ok(Self {
            scenario,
            backend,
            park,
            workers,
            hiccups,
            crashes,
        })
    }
}
