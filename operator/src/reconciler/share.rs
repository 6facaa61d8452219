//! How the queues of a pass share the connections of their database.

use rowlock_plan::{Decision, ObservedQueue, Reason, share};

use super::Reconciler;
use crate::backend::Backend;
use crate::shared_poller::QueueDemand;
use crate::shortage::{Asked, Holdings, Shortage, held};

impl<B: Backend> Reconciler<B> {
    /// Lowers the decisions to the number of pods that the database has connections for. A limit of one user
    /// is shared among the controllers that connect as that user. Returns what the sharing queues hold.
    pub(super) fn share(&mut self, observed: &[ObservedQueue], decisions: &mut Vec<Decision>) -> Holdings {
        let leaving = self.backend.leaving();
        self.limits.set_leaving(leaving);
        let Some(participant) = &self.participant else {
            let Some(limit) = self.limits.current() else { return Holdings::default() };
            share(&limit.connections, observed, decisions);
            let names = self.queues.values().map(|managed| managed.desired.manifest.name.as_str());
            let holds = observed.iter().zip(&*decisions).map(|(queue, decision)| held(queue, decision));
            return Holdings::of(names.zip(holds));
        };
        let user = self.db.user();
        let demands = self.queues.iter().zip(observed.iter().zip(&*decisions));
        let demands = demands.map(|((name, managed), (observed, decision))| {
            let task_queue = managed.desired.manifest.name.clone();
            (name.clone(), QueueDemand { task_queue, observed: observed.clone(), decision: decision.clone() })
        });
        participant.publish_demand(user, demands, leaving);
        let Some(is_own) = self.limits.current().map(|limit| limit.is_own) else {
            return Holdings::default();
        };
        let of = user.filter(|_| is_own);
        self.limits.set_leaving(participant.leaving(of) + if is_own { 0 } else { self.unreported });
        let Some(limit) = self.limits.current() else { return Holdings::default() };
        let (shares, holdings) = participant.shares(&limit.connections, of);
        *decisions = shares;
        holdings
    }

    /// Notes for each queue why it gets fewer pods than it asks for, if connections are the reason.
    pub(super) fn note_shortages(
        &mut self,
        wanted: &[u32],
        observed: &[ObservedQueue],
        decisions: &[Decision],
        holdings: &Holdings,
    ) {
        let limit = self.limits.current();
        let queues = self.queues.values_mut().zip(wanted).zip(observed.iter().zip(decisions));
        for ((managed, wanted), (queue, decision)) in queues {
            let limit = limit.filter(|_| decision.reason == Reason::Connections);
            let shortage = limit.map(|limit| {
                let name = managed.desired.manifest.name.as_str();
                let asked = Asked { wanted: *wanted, given: decision.pods_desired, room: queue.room };
                Shortage::new((name, held(queue, decision)), asked, limit, holdings, self.elsewhere)
            });
            managed.note_shortage(shortage, self.now);
        }
    }
}
