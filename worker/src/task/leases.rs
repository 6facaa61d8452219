//! The leases that this instance knows. It releases any other lease that the database lists for it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rowlock_queue::Token;

/// Leases with unsettled tasks, and how many each has. A claim that has no answer yet is listed with zero
/// tasks.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<HashMap<Token, usize>>);

impl Leases {
    /// A claim with this token was sent. Its answer may arrive long after the database has executed it.
    pub(crate) fn claim_sent(&self, token: Token) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(token).or_default();
    }

    /// The claim was answered. Without tasks there is no lease.
    pub(crate) fn claimed(&self, token: Token, tasks: usize) {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks == 0 {
            leases.remove(&token);
        } else {
            leases.insert(token, tasks);
        }
    }

    pub(crate) fn settled(&self, token: Token) {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tasks) = leases.get_mut(&token) {
            *tasks -= 1;
            if *tasks == 0 {
                leases.remove(&token);
            }
        }
    }

    pub(crate) fn tokens(&self) -> Vec<Token> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_without_an_answer_is_a_known_lease() {
        let leases = Leases::default();
        // Otherwise the lease could be released while its late answer starts the tasks.
        leases.claim_sent(Token(7));
        assert_eq!(leases.tokens(), [Token(7)]);
        leases.claimed(Token(7), 1);
        leases.claim_sent(Token(8));
        leases.claimed(Token(8), 0);
        assert_eq!(leases.tokens(), [Token(7)]);
    }

    #[test]
    fn a_lease_is_known_until_its_last_task_is_settled() {
        let leases = Leases::default();
        leases.claimed(Token(7), 2);
        leases.settled(Token(7));
        assert_eq!(leases.tokens(), [Token(7)]);
        leases.settled(Token(7));
        leases.settled(Token(7));
        assert!(leases.tokens().is_empty());
    }
}
