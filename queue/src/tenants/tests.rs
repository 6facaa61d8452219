use std::sync::Condvar;

use super::*;

static HANGS: (Mutex<bool>, Condvar) = (Mutex::new(true), Condvar::new());

/// A DNS server that answers for one name; for all others it hangs until it is released.
#[expect(clippy::unnecessary_wraps, reason = "a look-up can fail")]
fn find(name: &str) -> std::io::Result<Vec<IpAddr>> {
    if name != "other" {
        let (hangs, over) = &HANGS;
        let hangs = hangs.lock().unwrap();
        drop(over.wait_while(hangs, |hangs| *hangs).unwrap());
    }
    Ok(vec![IpAddr::from([10, 0, 0, 1])])
}

/// Before, each attempt left a blocking thread of the runtime behind; after 512 of them no name could be
/// resolved.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_hang_do_not_delay_other_tenants() {
    let all = Arc::new(Tenants::default());
    let hostile: Vec<Tenant> = (0..50).map(|number| all.tenant(&format!("hostile-{number}"))).collect();
    for _attempt in 0..3 {
        for tenant in &hostile {
            for name in ["a", "b", "c", "d", "e", "f"] {
                assert!(timeout(SHORT, tenant.look_up(name, find)).await.is_err());
            }
        }
    }
    assert_eq!(
        hostile[0].pending_look_ups(),
        ["a", "b", "c", "d"],
        "four threads each, however often they ask"
    );
    assert_eq!(all.look_ups.available_permits(), LOOK_UPS - LOOK_UPS_PER_TENANT * hostile.len());
    assert_eq!(all.tenant("other").look_up("other", find).await.len(), 1);
    // A tenant that disappears for a moment keeps its look-ups.
    drop(hostile);
    let again = all.tenant("hostile-0");
    assert!(timeout(SHORT, again.look_up("e", find)).await.is_err());
    assert_eq!(again.pending_look_ups(), ["a", "b", "c", "d"]);
    // The second caller gets the answer of the first look-up.
    let waits = tokio::spawn(async move { again.look_up("a", find).await });
    *HANGS.0.lock().unwrap() = false;
    HANGS.1.notify_all();
    assert_eq!(waits.await.unwrap().len(), 1);
    assert_eq!(all.tenant("hostile-0").look_up("e", find).await.len(), 1);
}

/// Much shorter than the wait for a permit.
const SHORT: Duration = Duration::from_millis(1);

#[tokio::test]
async fn a_tenant_with_invalid_long_answers_waits_longer_than_others() {
    let all = Arc::new(Tenants::default());
    let hostile: Vec<Tenant> = (0..40).map(|number| all.tenant(&format!("hostile-{number}"))).collect();
    for tenant in &hostile {
        // Dropped without release: the answer was not valid.
        drop(tenant.answer_permit().await.unwrap());
        assert!(timeout(SHORT, tenant.answer_permit()).await.is_err(), "it has to wait");
    }
    let other = all.tenant("other");
    for _ in 0..3 {
        timeout(SHORT, other.answer_permit()).await.unwrap().unwrap().release();
    }
}

#[tokio::test]
async fn only_a_few_long_answers_are_in_memory_at_a_time() {
    let all = Arc::new(Tenants::default());
    let mut permits = Vec::new();
    for number in 0..LONG_ANSWERS {
        permits.extend(all.tenant(&format!("{number}")).answer_permit().await);
    }
    assert_eq!(permits.len(), LONG_ANSWERS);
    assert!(timeout(SHORT, all.tenant("one more").answer_permit()).await.is_err());
    permits.pop().unwrap().release();
    assert!(timeout(SHORT, all.tenant("one more").answer_permit()).await.unwrap().is_some());
}
