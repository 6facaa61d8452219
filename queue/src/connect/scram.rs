//! What a server says in SCRAM, before sqlx counts on it.

use super::fault::Fault;

/// Rounds that a server which has not shown who it is may ask for. Below them, the password is guessed too
/// quickly from what it hears of us; above, it has us reckon for as long as it likes. 4096 is the default of
/// Postgres, and the least that the standard takes.
const FEWEST: u32 = 4096;
const MOST: u32 = 100_000;

/// The items of a message: a letter, `=` and a value each. `safe`: the server has shown who it is.
pub(super) fn check(message: &[u8], safe: bool) -> Result<(), Fault> {
    for item in message.split(|byte| *byte == b',') {
        let [key, b'=', value @ ..] = item else {
            return Err(Fault::Protocol("an item of SCRAM without a key".into()));
        };
        if *key != b'i' {
            continue;
        }
        let rounds = std::str::from_utf8(value).ok().and_then(|rounds| rounds.parse::<u32>().ok());
        let rounds = rounds.ok_or_else(|| Fault::Protocol("rounds of SCRAM that are no number".into()))?;
        if !safe && !(FEWEST..=MOST).contains(&rounds) {
            return Err(Fault::Login(format!(
                "the server asks for {rounds} rounds of SCRAM; {FEWEST} to {MOST} are taken from a server that has not shown who it \
                 is: write sslmode=verify-full (with its CA), or set scram_iterations there and the password again"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_has_not_shown_who_it_is_does_not_choose_the_rounds() {
        for (rounds, taken) in
            [("1", false), ("4095", false), ("4096", true), ("100000", true), ("4000000000", false)]
        {
            let message = format!("r=abc,s=QUJD,i={rounds}");
            assert_eq!(check(message.as_bytes(), false).is_ok(), taken, "{rounds}");
            assert!(check(message.as_bytes(), true).is_ok(), "{rounds}");
        }
        let twice = check(b"r=a,s=QUJD,i=4096,i=1", false);
        assert!(matches!(twice, Err(Fault::Login(_))), "{twice:?}");
    }

    #[test]
    fn an_item_that_is_cut_short_is_not_passed_on() {
        // Before this was mended, sqlx panicked at each of these.
        for message in ["", ",", "r", "r=a,", "r=a,,s=QUJD", "r=a,s"] {
            assert!(matches!(check(message.as_bytes(), true), Err(Fault::Protocol(_))), "{message}");
        }
        check(b"v=QUJD", false).unwrap();
    }
}
