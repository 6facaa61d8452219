//! Each kind of violation, put into a valid history.

use super::*;

/// A completed task with one failed attempt, a dead one, an open one, and one rolled back.
fn good() -> (Vec<Event>, Final) {
    let run = |run: &str, id, attempt, at, status| {
        [
            Event::Started { run: run.into(), handler: 7, id, attempt, token: i64::from(attempt), at },
            Event::Finished { run: run.into(), status, at: at + 10 },
        ]
    };
    let mut events = vec![
        Event::Enqueued { ids: vec![1, 2, 3, 4], at: 10, delay_ms: 0 },
        Event::Committed { ids: vec![1, 2, 3] },
        Event::RolledBack { ids: vec![4] },
        Event::InstanceFailed { name: "killed".into() },
    ];
    events.extend(run("a", 1, 1, 100, 500));
    events.extend(run("b", 1, 2, 200, 200));
    events.extend(run("c", 2, 1, 100, 500));
    let task = |id, max_attempts, state, attempt, reported: &str| TaskEnd {
        id,
        max_attempts,
        evidence: vec![Evidence { state, attempt }],
        state: Some(reported.into()),
    };
    let failure = |id, attempt| Failure { id, attempt, error: "HTTP 500".into() };
    let end = Final {
        tasks: vec![
            task(1, 3, State::Completed, 2, "completed"),
            task(2, 1, State::Dead, 1, "dead"),
            task(3, 3, State::Open, 0, "available"),
        ],
        failures: vec![failure(1, 1), failure(2, 1)],
        totals: Totals { enqueued: 3, completed: 1, dead: 1, open: 1, ..Totals::default() },
        rescued: vec!["killed".into()],
    };
    (events, end)
}

fn violations(events: &[Event], end: &Final, demands: Demands) -> Vec<Violation> {
    super::check(&parse(events), end, demands).1
}

/// Changes the valid history and expects this violation.
fn check(spoil: impl FnOnce(&mut Vec<Event>, &mut Final), expected: &Violation) {
    check_with(Demands::default(), spoil, expected);
}

fn check_with(demands: Demands, spoil: impl FnOnce(&mut Vec<Event>, &mut Final), expected: &Violation) {
    let (mut events, mut end) = good();
    spoil(&mut events, &mut end);
    let found = violations(&events, &end, demands);
    assert!(found.contains(expected), "{found:?}");
}

fn started(run: &str, id: i64, attempt: u16, at: u64) -> Event {
    Event::Started { run: run.into(), handler: 8, id, attempt, token: 99, at }
}

#[test]
fn a_correct_history_has_no_violation() {
    let (events, end) = good();
    let (summary, found) = super::check(&parse(&events), &end, Demands::default());
    assert_eq!(found, []);
    assert_eq!((summary.runs, summary.completed, summary.dead, summary.open), (3, 1, 1, 1));
}

#[test]
fn the_database_decides_a_commit_whose_answer_was_lost() {
    let (mut events, mut end) = good();
    events[1] = Event::Committed { ids: vec![1, 2] };
    assert_eq!(violations(&events, &end, Demands::default()), []);
    end.tasks.pop();
    end.totals = Totals { enqueued: 2, completed: 1, dead: 1, ..Totals::default() };
    assert_eq!(violations(&events, &end, Demands::default()), []);
}

#[test]
fn a_committed_task_vanished() {
    check(|_, end| drop(end.tasks.pop()), &Violation::Vanished(3));
}

#[test]
fn a_rolled_back_task_appears_or_runs() {
    let appear = |_: &mut Vec<Event>, end: &mut Final| end.tasks[2].id = 4;
    check(appear, &Violation::Uncommitted(4));
    check(|events, _| events.push(started("x", 4, 1, 300)), &Violation::RanUncommitted(4));
    check(|_, end| end.tasks[2].id = 5, &Violation::Uncommitted(5));
}

#[test]
fn a_task_in_no_state_in_two_states_or_in_a_wrong_one() {
    check(|_, end| end.tasks[2].evidence.clear(), &Violation::Untraced(3));
    let two = |_: &mut Vec<Event>, end: &mut Final| {
        end.tasks[2].evidence.push(Evidence { state: State::Open, attempt: 0 });
    };
    check(two, &Violation::InSeveralStates { id: 3, places: 2 });
    let other = |_: &mut Vec<Event>, end: &mut Final| end.tasks[0].state = Some("dead".into());
    check(other, &Violation::WrongState { id: 1, reported: "dead".into() });
}

#[test]
fn an_open_task_after_a_complete_drain() {
    check_with(Demands { drained: true, undisturbed: false }, |_, _| (), &Violation::StillOpen(3));
}

#[test]
fn too_many_attempts() {
    let spoil = |_: &mut Vec<Event>, end: &mut Final| end.tasks[0].max_attempts = 1;
    check(spoil, &Violation::TooManyAttempts { id: 1, attempt: 2, max: 1 });
}

#[test]
fn an_attempt_used_without_a_failure_or_failed_twice() {
    check(|_, end| drop(end.failures.remove(0)), &Violation::Unexplained { id: 1, attempt: 1 });
    // A release that used an attempt would look the same.
    let released = |_: &mut Vec<Event>, end: &mut Final| end.tasks[2].evidence[0].attempt = 1;
    check(released, &Violation::Unexplained { id: 3, attempt: 1 });
    let twice = |_: &mut Vec<Event>, end: &mut Final| end.failures.push(end.failures[0].clone());
    check(twice, &Violation::FailedTwice { id: 1, attempt: 1, times: 2 });
}

#[test]
fn runs_overlap() {
    let overlap = Violation::Overlap { id: 1, earlier: 1, later: 1 };
    check(|events, _| events.push(started("x", 1, 1, 105)), &overlap);
    // A run that never ended is still running.
    let silent = |events: &mut Vec<Event>, _: &mut Final| {
        events.push(started("x", 3, 1, 300));
        events.push(started("y", 3, 1, 400));
    };
    check(silent, &Violation::Overlap { id: 3, earlier: 1, later: 1 });
}

#[test]
fn a_lost_lease_a_killed_handler_and_a_release_may_be_followed_by_another_run() {
    let (mut events, end) = good();
    // Attempt 2 starts while attempt 1 runs, whose lease was lost.
    events[6] = Event::Started { run: "b".into(), handler: 7, id: 1, attempt: 2, token: 2, at: 105 };
    // Killed, then released, then run again as the same attempt.
    events.push(started("x", 3, 1, 300));
    events.push(Event::HandlerEnded { handler: 8, at: 350 });
    events.push(started("y", 3, 1, 400));
    // Stopped, so its request was aborted and the task released.
    events.push(Event::Finished { run: "y".into(), status: 200, at: 500 });
    events.push(Event::CutOff { run: "y".into(), at: 500 });
    events.push(started("z", 3, 1, 450));
    assert_eq!(violations(&events, &end, Demands::default()), []);
}

#[test]
fn attempts_decrease_or_continue_after_completion() {
    let back = Violation::WentBack { id: 1, earlier: 2, later: 1 };
    check(|events, _| events.push(started("x", 1, 1, 300)), &back);
    let (mut events, end) = good();
    events.push(started("x", 1, 1, 300));
    events.push(Event::InstanceResumed { handler: 8, at: 299 });
    assert_eq!(violations(&events, &end, Demands::default()), []);
    // A stopped handler reads its requests later: by then another run of the same attempt may be running.
    let (mut events, end) = good();
    events.push(started("x", 1, 2, 205));
    events.push(Event::HandlerResumed { handler: 8, at: 204 });
    assert_eq!(violations(&events, &end, Demands::default()), []);
    let on = Violation::RanAfterCompletion { id: 1, attempt: 2 };
    check(|events, _| events.push(started("x", 1, 3, 300)), &on);
}

#[test]
fn completed_without_a_successful_run() {
    let undone = Violation::CompletedUndone { id: 1, attempt: 2 };
    check(|events, _| events[7] = Event::Finished { run: "b".into(), status: 500, at: 210 }, &undone);
    check(|events, _| drop(events.remove(7)), &undone);
    check(|_, end| end.tasks[0].evidence[0].attempt = 1, &Violation::CompletedUndone { id: 1, attempt: 1 });
}

#[test]
fn started_before_it_was_due() {
    let spoil = |events: &mut Vec<Event>, _: &mut Final| {
        events[0] = Event::Enqueued { ids: vec![1, 2, 3, 4], at: 10, delay_ms: 1 };
    };
    check(spoil, &Violation::TooEarly(1));
}

#[test]
fn a_live_instance_was_rescued() {
    check(|_, end| end.rescued.push("alive".into()), &Violation::RescuedAlive("alive".into()));
}

#[test]
fn a_drain_that_interrupts_or_repeats_a_run() {
    let demands = Demands { drained: false, undisturbed: true };
    let cut =
        |events: &mut Vec<Event>, _: &mut Final| events.push(Event::CutOff { run: "b".into(), at: 210 });
    check_with(demands, cut, &Violation::CutOff(1));
    let again = |events: &mut Vec<Event>, _: &mut Final| events.push(started("x", 2, 1, 300));
    check_with(demands, again, &Violation::RanTwice { id: 2, attempt: 1, times: 2 });
}

#[test]
fn a_violation_prints_the_whole_history_of_its_task() {
    let (events, end) = good();
    let violation = Violation::TooManyAttempts { id: 1, attempt: 2, max: 1 };
    let told = parse(&events).tell(violation.task().unwrap(), &end);
    for evidence in ["attempt 1", "attempt 2", "HTTP 500", "Completed"] {
        assert!(told.contains(evidence), "{told}");
    }
}

#[test]
fn an_audit_that_does_not_add_up_or_differs_from_the_tasks() {
    let audits = |spoil: fn(&mut Totals)| {
        let (events, mut end) = good();
        spoil(&mut end.totals);
        let found = violations(&events, &end, Demands::default());
        assert!(matches!(found.as_slice(), [Violation::Audit(_), ..]), "{found:?}");
    };
    audits(|totals| totals.completed = 2);
    audits(|totals| totals.untraced = 1);
    audits(|totals| (totals.completed, totals.dead) = (2, 0));
}

#[test]
fn a_log_that_contradicts_itself() {
    let log = |text: &str| Violation::Log(text.into());
    let finished = |run: &str| Event::Finished { run: run.into(), status: 200, at: 1 };
    check(|events, _| events.push(finished("z")), &log("run z finished and never started"));
    check(|events, _| events.push(finished("a")), &log("run a finished twice"));
    check(
        |events, _| events.push(Event::Committed { ids: vec![4] }),
        &log("task 4 was committed and rolled back"),
    );
}

#[test]
fn a_line_cut_off_by_a_kill_is_skipped_and_an_invalid_one_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let line = serde_json::to_string(&Event::Committed { ids: vec![1] }).unwrap();
    std::fs::write(&path, format!("{line}\n{}", &line[..9])).unwrap();
    assert_eq!(read_all(&[&path]).unwrap().len(), 1);
    std::fs::write(&path, format!("{}\n{line}\n", &line[..9])).unwrap();
    assert!(read_all(&[&path]).is_err());
}
