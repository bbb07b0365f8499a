//! PURE. The end of the pool: requests to stop it, the delay before the drain (lame duck), and the outcome.

use std::time::Duration;

use crate::parent::supervisor::effects::Effects;
use crate::parent::supervisor::event::{Effect, Notice, Outcome, Stop};
use crate::parent::supervisor::policy::ShutdownPolicy;
use crate::time::Time;

#[derive(Debug, Default)]
pub(super) struct Shutdown {
    stopping: Option<Stopping>,
    /// When the drain begins.
    lame_duck: Option<Time>,
    /// When a stop was first requested.
    first_request: Option<Time>,
}

#[derive(Debug)]
struct Stopping {
    how: Stop,
    outcome: Outcome,
    /// Whether the processes that signals have stopped were told to run again.
    has_resumed: bool,
    is_finished: bool,
}

impl Shutdown {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// How the processes are told to leave, until none is left.
    pub(super) fn in_progress(&self) -> Option<Stop> {
        self.stopping.as_ref().filter(|stopping| !stopping.is_finished).map(|stopping| stopping.how)
    }

    /// Whether to let processes run again that signals have stopped, since they cannot finish otherwise: once, so that
    /// a worker which stops itself again and again is not told so each time.
    pub(super) fn takes_resumption(&mut self) -> bool {
        self.stopping.as_mut().is_some_and(|stopping| !std::mem::replace(&mut stopping.has_resumed, true))
    }

    pub(super) fn is_draining(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| stopping.how == Stop::Drain)
    }

    /// When the drain begins, if that was requested and must wait.
    pub(super) fn lame_duck(&self) -> Option<Time> {
        self.lame_duck
    }

    pub(super) fn was_requested(&self) -> bool {
        self.is_stopping() || self.lame_duck.is_some()
    }

    /// What a request to stop means at this time; `None` if it adds nothing to earlier requests.
    pub(super) fn escalation(&self, policy: &ShutdownPolicy, how: Stop, now: Time) -> Option<Stop> {
        let requested = self.stopping.as_ref().map(|stopping| stopping.how).or(self.lame_duck.map(|_| Stop::Drain));
        let is_late = self.first_request.is_some_and(|first| now.since(first) >= policy.repeat);
        let how = if is_late { Stop::Force } else { how };
        (requested < Some(how)).then_some(how)
    }

    pub(super) fn request(&mut self, policy: &ShutdownPolicy, how: Stop, effects: &mut Effects, now: Time) {
        // After a request to stop, a report that all workers are ready would be too late. After an upgrade it would
        // make the old pool stop.
        effects.forget_all_ready();
        let how = self.escalation(policy, how, now);
        self.first_request.get_or_insert(now);
        match how {
            Some(Stop::Drain) if !policy.lame_duck.is_zero() => {
                self.lame_duck = Some(now + policy.lame_duck);
                effects.notice(Notice::LameDuck { delay: policy.lame_duck });
            }
            Some(how) => self.stop(how, Outcome::Stopped, effects),
            None => {}
        }
    }

    /// Stops the pool now. A stop in progress keeps its outcome.
    pub(super) fn stop(&mut self, how: Stop, outcome: Outcome, effects: &mut Effects) {
        self.lame_duck = None;
        match &mut self.stopping {
            Some(stopping) => stopping.how = stopping.how.max(how),
            None => {
                self.stopping = Some(Stopping { how, outcome, has_resumed: false, is_finished: false });
                effects.push(Effect::ReleaseSockets);
            }
        }
    }

    /// No process is left.
    pub(super) fn finish(&mut self, effects: &mut Effects) {
        if let Some(stopping) = self.stopping.as_mut().filter(|stopping| !stopping.is_finished) {
            stopping.is_finished = true;
            effects.push(Effect::Finish(stopping.outcome));
        }
    }

    pub(super) fn frozen(&mut self, span: Duration) {
        self.first_request = self.first_request.map(|at| at + span);
        self.lame_duck = self.lame_duck.map(|at| at + span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent::supervisor::policy::Policy;

    const DUCK: Duration = Duration::from_secs(5);

    fn at(millis: u64) -> Time {
        Time::from_millis(10_000 + millis)
    }

    #[test]
    fn a_request_is_only_ever_made_stronger() {
        let policy = Policy::default().shutdown;
        let (mut shutdown, mut effects) = (Shutdown::default(), Effects::default());
        assert_eq!(shutdown.escalation(&policy, Stop::Drain, at(0)), Some(Stop::Drain));
        shutdown.request(&policy, Stop::Drain, &mut effects, at(0));
        assert_eq!(shutdown.escalation(&policy, Stop::Drain, at(999)), None, "the same signal, sent twice");
        assert_eq!(shutdown.escalation(&policy, Stop::Quick, at(999)), Some(Stop::Quick));
        assert_eq!(shutdown.escalation(&policy, Stop::Drain, at(1_000)), Some(Stop::Force), "an impatient person");
        shutdown.request(&policy, Stop::Quick, &mut effects, at(500));
        shutdown.stop(Stop::Drain, Outcome::Replaced, &mut effects);
        assert_eq!(shutdown.in_progress(), Some(Stop::Quick), "it becomes no weaker");
        shutdown.finish(&mut effects);
        shutdown.finish(&mut effects);
        let told: Vec<_> = std::iter::from_fn(|| effects.pop()).collect();
        assert_eq!(
            told,
            [Effect::ReleaseSockets, Effect::Finish(Outcome::Stopped)],
            "each once, with the first outcome"
        );
        assert_eq!(shutdown.in_progress(), None);
    }

    #[test]
    fn a_lame_duck_is_ended_by_a_stronger_request_and_not_by_the_same() {
        let policy = Policy::with(|policy| policy.shutdown.lame_duck = DUCK).shutdown;
        let (mut shutdown, mut effects) = (Shutdown::default(), Effects::default());
        shutdown.request(&policy, Stop::Drain, &mut effects, at(0));
        assert_eq!((shutdown.lame_duck(), shutdown.is_stopping()), (Some(at(5_000)), false));
        shutdown.request(&policy, Stop::Drain, &mut effects, at(10));
        assert_eq!(shutdown.lame_duck(), Some(at(5_000)), "it is not put off");
        shutdown.frozen(DUCK);
        assert_eq!(shutdown.lame_duck(), Some(at(10_000)));
        shutdown.request(&policy, Stop::Quick, &mut effects, at(5_100));
        assert_eq!((shutdown.lame_duck(), shutdown.in_progress()), (None, Some(Stop::Quick)));
    }
}
