//! How durations are parsed and printed.

use std::time::Duration;

use proptest::prelude::*;
use rowlock_crds::Dur;

#[test]
fn the_grammar_is_the_pattern_of_the_crd() {
    let check = |text: &str, millis: Option<u64>| {
        let parsed = text.parse::<Dur>().ok();
        assert_eq!(parsed.map(Duration::from), millis.map(Duration::from_millis), "{text:?}");
    };
    check("500ms", Some(500));
    check("15s", Some(15_000));
    check("5m", Some(300_000));
    check("1h30m", Some(5_400_000));
    check("7d", Some(7 * 86_400_000));
    check("0s", Some(0));
    check("1m1m", Some(120_000));
    for wrong in ["", "5", "s", "-5s", "1.5h", "2 weeks", " 5s", "5s ", "5S", "5µs", "1h30", "٣s"] {
        check(wrong, None);
    }
    for too_long in ["3651d", "99999999999999999999d", "18446744073709551615d"] {
        check(too_long, None);
        assert!(too_long.parse::<Dur>().unwrap_err().to_string().contains("longer than 3650d"));
    }
}

#[test]
fn the_largest_units_come_first() {
    let check = |text: &str, printed: &str| assert_eq!(text.parse::<Dur>().unwrap().to_string(), printed);
    check("90s", "1m30s");
    check("24h", "1d");
    check("1500ms", "1s500ms");
    check("0ms", "0s");
}

proptest! {
    #[test]
    fn a_printed_duration_parses_to_the_same_value(millis in 0_u64..=3650 * 86_400_000) {
        let dur = Dur(Duration::from_millis(millis));
        prop_assert_eq!(dur.to_string().parse::<Dur>().unwrap(), dur);
    }

    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "[0-9dhms. -]{0,30}|\\PC*") {
        let _ = text.parse::<Dur>();
    }
}
