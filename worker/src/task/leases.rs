//! Which leases this instance knows of, so that it can hand back one that it does not.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rowlock_queue::Token;

/// The leases with tasks that are not settled yet, and how many; a claim that has no answer yet is among them with no task.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<HashMap<Token, usize>>);

impl Leases {
    /// A claim is asked for under this token. It may be answered at any moment, and much later than it went through.
    pub(crate) fn claim_sent(&self, token: Token) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(token).or_default();
    }

    /// It was answered: with no task it is no lease.
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
    fn a_claim_without_an_answer_is_known_as_well() {
        let leases = Leases::default();
        // Before, a lease over a minute old was handed back while its late answer started the tasks.
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
