use super::*;
use crate::{Identity, Member};

fn id(n: usize) -> NodeId {
    format!("node-{n}").parse().unwrap()
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A view of nodes 1 to `count`, of which some are down.
fn view(count: usize, down: &[usize]) -> View {
    let member = |n: usize| Member {
        identity: Identity {
            generation: 1,
            ..Identity::addressee(id(n), "10.0.0.1:1".parse().unwrap())
        },
        state: if down.contains(&n) { MemberState::Down } else { MemberState::Alive },
    };
    View { version: 1, members: (1..=count).map(member).collect(), ..View::default() }
}

/// The supervisor of node 5 of five, which leads.
fn leading() -> Supervisor {
    let mut supervisor = Supervisor::new(id(5), "process");
    supervisor.set_view(s(0), &view(5, &[]));
    supervisor.set_leading(s(0), true, &[]);
    assert_eq!(steps(&mut supervisor), []);
    supervisor
}

fn steps(supervisor: &mut Supervisor) -> Vec<Step> {
    std::iter::from_fn(|| supervisor.poll_step()).collect()
}

/// The steps without the events and the messages to other members.
fn deeds(supervisor: &mut Supervisor) -> Vec<Step> {
    let deed = |step: &Step| !matches!(step, Step::Record(_) | Step::Tell(_));
    steps(supervisor).into_iter().filter(deed).collect()
}

fn trouble(n: usize, revivals: u8, counts_for_s: u16, given_up: bool) -> Trouble {
    Trouble { node: id(n), revivals, counts_for_s, given_up }
}

const fn start(node: NodeId) -> Step {
    Step::Revive { node, kill: false }
}

#[test]
fn a_dead_node_is_inspected_then_started() {
    let mut supervisor = leading();
    supervisor.set_view(s(1), &view(5, &[2]));
    assert_eq!(deeds(&mut supervisor), [Step::Inspect(id(2))]);
    supervisor.inspected(s(1), id(2), Evidence::Exited);
    let reviving =
        Happening::Reviving { node: id(2), kill: false, attempt: 1, reviver: "process".into() };
    let told = Step::Tell(vec![trouble(2, 1, 300, false)]);
    assert_eq!(steps(&mut supervisor), [Step::Record(reviving), start(id(2)), told]);
    supervisor.revived(s(1), id(2), Ok(()));
    assert_eq!(steps(&mut supervisor), [Step::Record(Happening::Revived(id(2)))]);
    supervisor.set_view(s(2), &view(5, &[]));
    assert_eq!((steps(&mut supervisor), supervisor.next_deadline()), (vec![], None));
}

#[test]
fn who_does_not_lead_does_nothing_until_it_does() {
    let mut supervisor = Supervisor::new(id(4), "process");
    supervisor.set_view(s(1), &view(5, &[2, 5]));
    supervisor.tick(s(9));
    assert_eq!((steps(&mut supervisor), supervisor.next_deadline()), (vec![], None));
    supervisor.set_leading(s(9), true, &[]);
    assert_eq!(deeds(&mut supervisor), [Step::Inspect(id(2)), Step::Inspect(id(5))]);
    // A node that no longer leads ignores what its reviver found.
    supervisor.set_leading(s(9), false, &[]);
    supervisor.inspected(s(9), id(2), Evidence::Exited);
    assert_eq!(steps(&mut supervisor), []);
}

#[test]
fn the_next_leader_finishes_what_a_dead_one_had_begun_and_starts_nothing_twice() {
    // The dead leader had not started the node yet, had just started it, or the node was ready to
    // join; and the leader had sent its troubles to the others or not.
    let started = [
        (Evidence::Exited, vec![start(id(2))]),
        (Evidence::Starting, vec![]),
        (Evidence::Healthy, vec![]),
    ];
    for (evidence, expected) in started {
        for told in [vec![], vec![trouble(2, 1, 298, false)]] {
            let mut next = Supervisor::new(id(4), "process");
            next.set_view(s(3), &view(5, &[2, 5]));
            next.set_leading(s(3), true, &told);
            assert_eq!(deeds(&mut next), [Step::Inspect(id(2)), Step::Inspect(id(5))]);
            next.inspected(s(3), id(2), evidence);
            assert_eq!(deeds(&mut next), expected, "{evidence:?}, told {told:?}");
            next.inspected(s(3), id(5), Evidence::Exited);
            assert_eq!(deeds(&mut next), [start(id(5))]);
        }
    }
}

#[test]
fn a_node_that_was_not_heard_of_since_the_start_is_given_time() {
    let mut supervisor = Supervisor::new(id(2), "process");
    supervisor.set_leading(s(0), true, &[]);
    let mut known = view(2, &[1]);
    known.members[0].identity.generation = 0;
    supervisor.set_view(s(0), &known);
    assert_eq!((deeds(&mut supervisor), supervisor.next_deadline()), (vec![], Some(s(3))));
    supervisor.tick(s(3));
    assert_eq!(deeds(&mut supervisor), [Step::Inspect(id(1))]);
}

#[test]
fn a_hung_node_is_restarted_after_a_while_and_only_by_a_majority() {
    for (others_down, restarted) in [(vec![1], true), (vec![1, 2, 3], false)] {
        let mut supervisor = leading();
        supervisor.set_view(s(1), &view(5, &others_down));
        let mut revived = Vec::new();
        for now in 1..10 {
            for step in deeds(&mut supervisor) {
                match step {
                    Step::Inspect(node) => supervisor.inspected(s(now), node, Evidence::Ill),
                    Step::Revive { node, kill } => revived.push((now, node, kill)),
                    other => panic!("{other:?}"),
                }
            }
            supervisor.tick(s(now + 1));
        }
        let expected = if restarted { vec![(5, id(1), true)] } else { vec![] };
        assert_eq!(revived, expected);
    }
}

#[test]
fn a_healthy_node_is_left_alone_and_that_is_said_once() {
    let mut supervisor = leading();
    supervisor.set_view(s(1), &view(5, &[2]));
    let mut said = 0;
    for now in 1..20 {
        for step in steps(&mut supervisor) {
            match step {
                Step::Inspect(node) => supervisor.inspected(s(now), node, Evidence::Healthy),
                Step::Record(Happening::LeftAlone { .. }) => said += 1,
                other => panic!("{other:?}"),
            }
        }
        supervisor.tick(s(now + 1));
    }
    assert_eq!(said, 1);
}

#[test]
fn a_node_that_dies_again_and_again_is_given_up_and_the_next_supervisor_knows() {
    let mut supervisor = leading();
    supervisor.set_view(s(1), &view(5, &[2]));
    let (mut starts, mut told) = (Vec::new(), Vec::new());
    for now in 1..60 {
        loop {
            let done = steps(&mut supervisor);
            if done.is_empty() {
                break;
            }
            for step in done {
                match step {
                    Step::Inspect(node) => supervisor.inspected(s(now), node, Evidence::Exited),
                    Step::Revive { node, .. } => {
                        starts.push(now);
                        supervisor.revived(s(now), node, Ok(()));
                    }
                    Step::Tell(troubles) => told.push(troubles),
                    Step::Record(_) => {}
                }
            }
        }
        supervisor.tick(s(now + 1));
    }
    assert_eq!(starts, [1, 4, 9], "with growing pauses");
    let counted = [(1, 300, false), (2, 300, false), (3, 300, false), (3, 297, true)];
    assert_eq!(told, counted.map(|(n, left, given_up)| [trouble(2, n, left, given_up)]));
    assert_eq!(supervisor.next_deadline(), None, "it is left to the operator");

    let mut next = Supervisor::new(id(4), "process");
    next.set_view(s(70), &view(5, &[2, 5]));
    next.set_leading(s(70), true, &told[3]);
    assert_eq!(deeds(&mut next), [Step::Inspect(id(5))], "node 2 stays given up");
    // The operator repairs node 2. When it dies once more, it has no revival left.
    next.set_view(s(80), &view(5, &[5]));
    let revivals = |steps: Vec<Step>| steps.iter().any(|s| matches!(s, Step::Revive { .. }));
    assert_eq!(steps(&mut next), [Step::Tell(vec![trouble(2, 3, 287, false)])]);
    next.set_view(s(90), &view(5, &[2, 5]));
    assert_eq!(deeds(&mut next), [Step::Inspect(id(2))]);
    next.inspected(s(90), id(2), Evidence::Exited);
    assert!(!revivals(steps(&mut next)));
    next.set_view(s(400), &view(5, &[5]));
    next.set_view(s(401), &view(5, &[2, 5]));
    next.inspected(s(401), id(2), Evidence::Exited);
    assert!(revivals(steps(&mut next)), "five minutes later that is forgotten");
}

#[test]
fn the_limit_is_the_nodes_not_the_supervisors() {
    let mut supervisor = leading();
    supervisor.set_leading(s(100), true, &[trouble(2, 2, 290, false)]);
    supervisor.set_view(s(100), &view(5, &[2]));
    supervisor.inspected(s(100), id(2), Evidence::Exited);
    assert!(deeds(&mut supervisor).contains(&start(id(2))), "the third");
    supervisor.revived(s(100), id(2), Ok(()));
    supervisor.tick(s(103));
    supervisor.inspected(s(103), id(2), Evidence::Exited);
    let told = vec![trouble(2, 3, 297, true)];
    assert!(steps(&mut supervisor).contains(&Step::Tell(told)), "a fourth there is not");
}

#[test]
fn a_seen_end_is_acted_on_before_the_detector_knows() {
    let mut supervisor = leading();
    supervisor.ended(s(1), id(3));
    assert_eq!(deeds(&mut supervisor), [Step::Inspect(id(3))]);
    supervisor.inspected(s(1), id(3), Evidence::Exited);
    assert_eq!(deeds(&mut supervisor), [start(id(3))]);
    supervisor.revived(s(1), id(3), Ok(()));
    assert_eq!((deeds(&mut supervisor), supervisor.next_deadline()), (vec![], None));
    // A false alarm.
    supervisor.ended(s(2), id(3));
    supervisor.inspected(s(2), id(3), Evidence::Healthy);
    assert_eq!(deeds(&mut supervisor), [Step::Inspect(id(3))]);
    assert_eq!((steps(&mut supervisor), supervisor.next_deadline()), (vec![], None));
}

#[test]
fn who_leaves_while_it_is_looked_at_is_forgotten() {
    let mut supervisor = leading();
    supervisor.set_view(s(1), &view(5, &[4]));
    assert_eq!(deeds(&mut supervisor), [Step::Inspect(id(4))]);
    let mut without = view(5, &[]);
    without.members.remove(3);
    supervisor.set_view(s(2), &without);
    supervisor.inspected(s(2), id(4), Evidence::Exited);
    supervisor.tick(s(20));
    assert_eq!((steps(&mut supervisor), supervisor.next_deadline()), (vec![], None));
}

#[test]
fn a_node_that_answers_but_is_ill_for_half_a_minute_is_restarted_once() {
    let mut supervisor = leading();
    let ill = |for_s| {
        let mut view = view(5, &[]);
        let illness = cortado_protocol::health::Illness::Disk;
        view.members[1].state = MemberState::Ill(cortado_protocol::health::Ill { illness, for_s });
        view
    };
    supervisor.set_view(s(10), &ill(2));
    assert_eq!((deeds(&mut supervisor), supervisor.next_deadline()), (vec![], Some(s(40))));
    // The node repeats its report each second. If it is well in between, the time starts again.
    supervisor.set_view(s(30), &view(5, &[]));
    assert_eq!(supervisor.next_deadline(), None);
    supervisor.set_view(s(31), &ill(2));
    supervisor.tick(s(60));
    assert_eq!(deeds(&mut supervisor), []);
    supervisor.tick(s(61));
    assert_eq!(deeds(&mut supervisor), [Step::Inspect(id(2))]);
    supervisor.inspected(s(61), id(2), Evidence::Ill);
    assert_eq!(deeds(&mut supervisor), [Step::Revive { node: id(2), kill: true }]);
    supervisor.revived(s(62), id(2), Ok(()));
    supervisor.set_view(s(63), &ill(3));
    supervisor.tick(s(80));
    assert_eq!(deeds(&mut supervisor), [], "it gets another half minute");
    supervisor.set_view(s(81), &view(5, &[]));
    assert_eq!(supervisor.next_deadline(), None);
}

#[test]
fn starts_that_fail_are_no_crashes_and_are_tried_further_and_further_apart() {
    let mut supervisor = leading();
    supervisor.set_view(s(1), &view(5, &[2]));
    let mut now = s(1);
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        assert_eq!(deeds(&mut supervisor), [Step::Inspect(id(2))]);
        supervisor.inspected(now, id(2), Evidence::Exited);
        assert_eq!(deeds(&mut supervisor), [start(id(2))]);
        supervisor.revived(now, id(2), Err("no space left".into()));
        assert_eq!(supervisor.next_deadline(), Some(now + s(pause)));
        now += s(pause);
        supervisor.tick(now);
    }
    assert_eq!(deeds(&mut supervisor), [Step::Inspect(id(2))]);
    supervisor.inspected(now, id(2), Evidence::Exited);
    assert_eq!(deeds(&mut supervisor), [start(id(2))]);
    supervisor.revived(now, id(2), Ok(()));
    let troubles = supervisor.troubles(now);
    assert_eq!(troubles, [trouble(2, 1, 300, false)], "the one that started it counts");
}
