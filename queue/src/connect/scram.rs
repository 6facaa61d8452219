//! Checks the server's SCRAM messages before sqlx gets them.

use super::fault::Fault;

/// How many rounds an unverified server may ask for. With fewer, it could use our reply to guess the password
/// quickly. With more, it could keep this CPU busy. 4096 is the default of Postgres and the minimum of the
/// standard.
const FEWEST: u32 = 4096;
const MOST: u32 = 100_000;

/// Checks a message: items of a letter, `=` and a value. `verified`: TLS has proven the identity of the
/// server.
pub(super) fn check(message: &[u8], verified: bool) -> Result<(), Fault> {
    for item in message.split(|byte| *byte == b',') {
        let [key, b'=', value @ ..] = item else {
            return Err(Fault::Protocol("a SCRAM item without a key".into()));
        };
        if *key != b'i' {
            continue;
        }
        let rounds = std::str::from_utf8(value).ok().and_then(|rounds| rounds.parse::<u32>().ok());
        let rounds =
            rounds.ok_or_else(|| Fault::Protocol("a SCRAM round count that is not a number".into()))?;
        if !verified && !(FEWEST..=MOST).contains(&rounds) {
            return Err(Fault::Login(format!(
                "the server asks for {rounds} SCRAM rounds; an unverified server may ask for {FEWEST} to \
                 {MOST}: write sslmode=verify-full (with its CA), or change scram_iterations on the server \
                 and set the password again"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unverified_server_cannot_choose_the_number_of_rounds() {
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
    fn an_incomplete_item_is_refused() {
        // sqlx panics at each of these.
        for message in ["", ",", "r", "r=a,", "r=a,,s=QUJD", "r=a,s"] {
            assert!(matches!(check(message.as_bytes(), true), Err(Fault::Protocol(_))), "{message}");
        }
        check(b"v=QUJD", false).unwrap();
    }
}
