//! Decides what to do about a node that is down or ill: facts in, a decision out. The supervisor
//! calls it after each inspection.

use std::time::Duration;

/// What a reviver found where the node should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It has ended, and the operator had not asked for that.
    Exited,
    /// It has ended because the operator asked for that.
    Retired,
    /// It runs and is still starting, by its own health check.
    Starting,
    /// It runs and is well, by its own health check, which contacts no other node.
    Healthy,
    /// It runs, and its own health check fails: it hangs or is paused.
    Ill,
    /// The reviver could not find out its state.
    Unknown,
}

/// Whether a node may be revived once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// Yes.
    Now,
    /// Not before this time.
    Later(Duration),
    /// It was revived too often.
    Never,
}

/// The facts that a decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the reviver found.
    pub evidence: Evidence,
    /// Whether it has been ill for long enough to be called hung.
    pub hung: bool,
    /// Whether the supervisor can reach it.
    pub reachable: bool,
    /// Whether it has reported for long enough that it is ill.
    pub ill_for_long: bool,
    /// Whether the supervisor reaches a majority of the known members.
    pub majority: bool,
    /// Whether it may be revived.
    pub allowance: Allowance,
}

/// Why a node that is down is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The operator stopped it.
    #[error("it was stopped on purpose")]
    Retired,
    /// A cut network is no reason to end a node that works.
    #[error("it runs and is well, only unreachable from here")]
    Healthy,
    /// It may be reading a long log.
    #[error("it runs and is starting")]
    Starting,
    /// This node may be on the side that is cut off.
    #[error("it is ill, but this node sees no majority of the members")]
    Minority,
    /// It answers, so the supervisor leaves it alone.
    #[error("it answers")]
    Reachable,
    /// The reviver could not find out its state.
    #[error("nothing is known of it here, or its machine does not answer")]
    Unknown,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start it.
    Start,
    /// End it, then start it.
    Restart,
    /// Inspect it again at this time.
    Wait(Duration),
    /// Leave it alone for this reason, and inspect it again later.
    LeaveAlone(Reason),
    /// Leave it to the operator.
    GiveUp,
}

/// Decides. Any supervisor starts a node that has *exited*, even in a minority: a start is
/// idempotent, so two supervisors do no harm. A node that *runs* is ended only if the supervisor
/// sees a majority, and if its own health check has failed for a while or it has reported for long
/// that it is ill: a healthy node behind a cut must be left alone. `look_again` is when an ill node
/// is inspected next.
#[must_use]
pub fn decide(facts: &Facts, look_again: Duration) -> Decision {
    let revive = |how| match facts.allowance {
        Allowance::Now => how,
        Allowance::Later(at) => Decision::Wait(at),
        Allowance::Never => Decision::GiveUp,
    };
    match facts.evidence {
        Evidence::Exited => revive(Decision::Start),
        Evidence::Retired => Decision::LeaveAlone(Reason::Retired),
        Evidence::Healthy | Evidence::Ill if facts.reachable && facts.ill_for_long => {
            if facts.majority {
                revive(Decision::Restart)
            } else {
                Decision::LeaveAlone(Reason::Minority)
            }
        }
        Evidence::Healthy => Decision::LeaveAlone(Reason::Healthy),
        Evidence::Starting => Decision::LeaveAlone(Reason::Starting),
        Evidence::Unknown => Decision::LeaveAlone(Reason::Unknown),
        Evidence::Ill if facts.reachable => Decision::LeaveAlone(Reason::Reachable),
        Evidence::Ill if !facts.majority => Decision::LeaveAlone(Reason::Minority),
        Evidence::Ill if !facts.hung => Decision::Wait(look_again),
        Evidence::Ill => revive(Decision::Restart),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);
    const LATER: Duration = Duration::from_secs(9);

    const DOWN: Facts = Facts {
        evidence: Evidence::Exited,
        hung: true,
        reachable: false,
        ill_for_long: false,
        majority: true,
        allowance: Allowance::Now,
    };

    /// For a node that is down: the evidence, what a majority's supervisor does, what a minority's
    /// does.
    const TABLE: [(Evidence, Decision, Decision); 6] = {
        use Decision::{LeaveAlone, Restart, Start};
        [
            (Evidence::Exited, Start, Start),
            (Evidence::Retired, LeaveAlone(Reason::Retired), LeaveAlone(Reason::Retired)),
            (Evidence::Starting, LeaveAlone(Reason::Starting), LeaveAlone(Reason::Starting)),
            (Evidence::Healthy, LeaveAlone(Reason::Healthy), LeaveAlone(Reason::Healthy)),
            (Evidence::Ill, Restart, LeaveAlone(Reason::Minority)),
            (Evidence::Unknown, LeaveAlone(Reason::Unknown), LeaveAlone(Reason::Unknown)),
        ]
    };

    #[test]
    fn each_cell_of_the_table() {
        for (evidence, by_majority, by_minority) in TABLE {
            for (majority, expected) in [(true, by_majority), (false, by_minority)] {
                let facts = Facts { evidence, majority, ..DOWN };
                assert_eq!(decide(&facts, SOON), expected, "{facts:?}");
            }
        }
    }

    #[test]
    fn only_what_has_exited_is_touched_while_it_is_reachable() {
        for (evidence, ..) in TABLE {
            for majority in [true, false] {
                let facts = Facts { evidence, majority, reachable: true, ..DOWN };
                let touched = matches!(decide(&facts, SOON), Decision::Start | Decision::Restart);
                assert_eq!(touched, evidence == Evidence::Exited, "{facts:?}");
            }
        }
    }

    #[test]
    fn a_node_that_is_ill_for_long_is_restarted_by_a_majority_though_it_answers() {
        for (evidence, ..) in TABLE {
            for majority in [true, false] {
                let facts =
                    Facts { evidence, majority, reachable: true, ill_for_long: true, ..DOWN };
                let runs = matches!(evidence, Evidence::Healthy | Evidence::Ill);
                let restarts = decide(&facts, SOON) == Decision::Restart;
                assert_eq!(restarts, runs && majority, "{facts:?}");
            }
        }
        let facts = Facts { evidence: Evidence::Ill, reachable: true, ill_for_long: true, ..DOWN };
        let never = Facts { allowance: Allowance::Never, ..facts };
        assert_eq!(decide(&never, SOON), Decision::GiveUp, "within the same budget");
    }

    #[test]
    fn an_ill_node_is_given_time() {
        let facts = Facts { evidence: Evidence::Ill, hung: false, ..DOWN };
        assert_eq!(decide(&facts, SOON), Decision::Wait(SOON));
    }

    #[test]
    fn the_allowance_bounds_starts_and_restarts_and_changes_nothing_else() {
        for (evidence, by_majority, _) in TABLE {
            let with = |allowance| decide(&Facts { evidence, allowance, ..DOWN }, SOON);
            let revives = matches!(by_majority, Decision::Start | Decision::Restart);
            let (later, never) = (with(Allowance::Later(LATER)), with(Allowance::Never));
            assert_eq!(later, if revives { Decision::Wait(LATER) } else { by_majority });
            assert_eq!(never, if revives { Decision::GiveUp } else { by_majority });
        }
    }
}
