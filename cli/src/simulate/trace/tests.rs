use super::*;

fn error(text: &str) -> String {
    parse("load.csv", text).unwrap_err().join("\n")
}

#[test]
fn seconds_and_times_count_from_the_first_line() {
    let seconds =
        parse("load.csv", "\u{feff}at,tasks,seconds\r\n# a comment\n\n100, 2 ,0.5\n160.5,1,2\n").unwrap();
    assert_eq!(seconds[0], Row { line: 4, at: 0.0, tasks: 2, seconds: 0.5, delay: 0.0, variation: 1.0 });
    assert!((seconds[1].at - 60.5).abs() < 1e-9);
    let text = "variation,delay,at,seconds,tasks\n\
        0,30,2026-03-01T08:00:00Z,0.1,5\n\
        2,0,2026-03-01T09:01:00+01:00,0.1,5";
    let times = parse("load.csv", text).unwrap();
    assert_eq!(times[0], Row { line: 2, at: 0.0, tasks: 5, seconds: 0.1, delay: 30.0, variation: 0.0 });
    assert!((times[1].at - 60.0).abs() < 1e-9);
}

#[test]
fn lines_without_tasks_say_that_time_passes_and_are_not_kept() {
    let rows =
        parse("load.csv", &format!("at,tasks,seconds\n{}60,2,0.5\n", "0,0,1\n".repeat(50_000))).unwrap();
    let seen: Vec<_> = rows.iter().map(|row| (row.line, row.at, row.tasks)).collect();
    assert_eq!(seen, [(50_002, 60.0, 2)]);
    assert!(error("at,tasks,seconds\n0,0,many").starts_with("load.csv:2:5: seconds: is `many`"));
}

#[test]
fn a_wrong_header_is_refused() {
    let cases = [
        ("", "load.csv: has no lines; write a header and lines, such as"),
        ("at,tasks", "load.csv:1:1: header: `seconds` is missing; write a header such as"),
        ("at,tasks,secs", "load.csv:1:10: header: `secs` is not a column; write a header such as"),
        ("at;tasks;seconds", "load.csv:1:1: header: `at;tasks;seconds` is not a column"),
        ("at,tasks,seconds, at", "load.csv:1:19: header: `at` is there twice; keep one of the two"),
        ("at,tasks,seconds\n0,0,1", "load.csv: has no tasks; add lines such as `0,20,0.5`"),
    ];
    for (text, wanted) in cases {
        assert!(error(text).starts_with(wanted), "{text:?}: {}", error(text));
    }
}

#[test]
fn every_wrong_value_is_refused_with_line_and_column() {
    let cases = [
        ("0,1", "2:3: line: has 2 values, the header has 5; separate values by commas"),
        ("0,1,0,5,0,1", "2:11: line: has 6 values"),
        ("soon,1,1,0,1", "2:1: at: `soon` is no moment; write seconds such as 60 or 0.5, or a time"),
        ("2026-03-01T08:00:00,1,1,0,1", "2:1: at: `2026-03-01T08:00:00` is no moment"),
        ("-5,1,1,0,1", "2:1: at: `-5` is no moment"),
        ("1e3,1,1,0,1", "2:1: at: `1e3` is no moment"),
        ("\"0\",1,1,0,1", "2:1: at: `\"0\"` is no moment"),
        ("0, -1,1,0,1", "2:4: tasks: `-1` is no number of tasks; write a whole number such as 20"),
        ("0,+1,1,0,1", "2:3: tasks: `+1` is no number"),
        ("0,1.5,1,0,1", "2:3: tasks: `1.5` is no number"),
        ("0,,1,0,1", "2:3: tasks: `` is no number"),
        ("0,2000001,1,0,1", "2:3: tasks: more than 2000000 tasks up to here"),
        ("0,18446744073709551616,1,0,1", "2:3: tasks: `18446744073709551616` is no number"),
        ("0,1,0,0,1", "2:5: seconds: is `0`; write a number from 0.001 to 86400, in seconds, such as 0.5"),
        ("0,1,500ms,0,1", "2:5: seconds: is `500ms`; write a number"),
        ("0,1,NaN,0,1", "2:5: seconds: is `NaN`; write a number"),
        ("0,1,86401,0,1", "2:5: seconds: is `86401`; write a number"),
        ("0,1,1,-1,1", "2:7: delay: is `-1`; write a number from 0 to 2678400"),
        ("0,1,1,2678401,1", "2:7: delay: is `2678401`; write a number"),
        ("0,1,1,0,11", "2:9: variation: is `11`; write a number from 0 to 10, such as 0.5"),
        ("5,1,1,0,1\n4,1,1,0,1", "3:1: at: `4` is before the line above; sort the lines by time"),
        ("5,1,1,0,1\n2678406,1,1,0,1", "3:1: at: `2678406` is more than 31 days after the first line"),
        ("5,1,1,0,1\n2026-03-01T08:00:00Z,1,1,0,1", "3:1: at: `2026-03-01T08:00:00Z` is not like the first"),
        ("0,1,1,0,\u{1b}[2J", "2:9: variation: is `\\u{1b}[2J`"),
    ];
    for (lines, wanted) in cases {
        let error = error(&format!("at,tasks,seconds,delay,variation\n{lines}"));
        assert!(error.starts_with(&format!("load.csv:{wanted}")), "{lines:?}: {error}");
    }
}

#[test]
fn a_long_cell_is_cut_in_the_message() {
    let error = error(&format!("at,tasks,seconds\n0,{},1", "x".repeat(5000)));
    assert!(error.contains("xxx…` is no number") && error.len() < 200, "{error}");
}

#[test]
fn only_the_first_errors_are_shown() {
    let errors = parse("load.csv", &format!("at,tasks,seconds\n{}", "0,x,1\n".repeat(50))).unwrap_err();
    assert_eq!(errors.len(), MOST_ERRORS + 1);
    assert!(errors[MOST_ERRORS].contains("more lines are wrong"), "{errors:?}");
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    let path = std::env::temp_dir().join(format!("rowlock-trace-{}.csv", std::process::id()));
    std::fs::write(&path, b"at,tasks,seconds\n0,1,\xff\n").unwrap();
    let errors = read(&path).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert!(errors[0].ends_with(":2: is not UTF-8; save it as CSV in UTF-8"), "{errors:?}");
    assert!(read(&path).unwrap_err()[0].contains("No such file"));
}
