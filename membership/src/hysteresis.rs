//! A judgement that does not flap: bad at once, good again only after a while. Reports of health
//! and the checks of data links use it.

use std::time::Duration;

/// How long something must be good before it is judged good.
const HOLD: Duration = Duration::from_secs(3);
/// The longest such time, for something that turns bad again and again.
const LONGEST_HOLD: Duration = Duration::from_secs(12);
/// Something that turns bad again within this time after it was judged good is held for longer.
const RELAPSE: Duration = Duration::from_secs(30);

/// Follows one thing that can be bad. Sans-IO: time is an argument.
///
/// ```
/// use std::time::Duration;
/// use cortado_membership::Hysteresis;
///
/// let mut disk = Hysteresis::default();
/// assert!(disk.update(Duration::from_secs(1), true));
/// assert!(disk.update(Duration::from_secs(2), false), "not for long enough");
/// assert!(!disk.update(Duration::from_secs(5), false));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Hysteresis {
    judged_bad: bool,
    bad_since: Duration,
    good_since: Option<Duration>,
    hold: Duration,
    recovered_at: Option<Duration>,
}

impl Hysteresis {
    /// Takes in whether the thing is bad at `now`; returns whether it is judged bad.
    pub fn update(&mut self, now: Duration, is_bad: bool) -> bool {
        if is_bad {
            if !self.judged_bad {
                let relapse = self.recovered_at.is_some_and(|at| now < at + RELAPSE);
                self.hold = if relapse { (2 * self.hold).min(LONGEST_HOLD) } else { HOLD };
                (self.judged_bad, self.bad_since) = (true, now);
            }
            self.good_since = None;
        } else if self.judged_bad {
            let since = *self.good_since.get_or_insert(now);
            if now >= since + self.hold {
                (self.judged_bad, self.recovered_at) = (false, Some(now));
            }
        }
        self.judged_bad
    }

    /// Whether the thing is judged bad.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.judged_bad
    }

    /// Since when the thing is judged bad; `None` while it is judged good.
    #[must_use]
    pub fn bad_since(&self) -> Option<Duration> {
        self.judged_bad.then_some(self.bad_since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn good_for_a_moment_is_not_good() {
        let mut judged = Hysteresis::default();
        assert!(!judged.update(s(0), false));
        assert!(judged.update(s(1), true));
        assert!(judged.update(s(2), false));
        assert!(judged.update(s(4), true));
        assert!(judged.update(s(5), false));
        assert!(judged.update(s(7), false));
        assert!(!judged.update(s(8), false));
        assert_eq!(judged.bad_since(), None);
    }

    #[test]
    fn a_relapse_is_held_for_twice_as_long_up_to_a_limit() {
        let mut judged = Hysteresis::default();
        let mut now = s(0);
        for hold in [3, 6, 12, 12] {
            assert!(judged.update(now, true));
            assert!(judged.update(now, false));
            assert!(judged.update(now + s(hold) - Duration::from_millis(1), false));
            now += s(hold);
            assert!(!judged.update(now, false), "{hold}");
            now += s(1);
        }
        now += s(120);
        assert!(judged.update(now, true));
        assert!(judged.update(now, false));
        assert!(!judged.update(now + s(3), false), "long ago is forgotten");
    }
}
