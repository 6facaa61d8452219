use std::sync::Condvar;

use super::*;

static HANGS: (Mutex<bool>, Condvar) = (Mutex::new(true), Condvar::new());

/// A DNS server that answers for one name, and for no other while it hangs.
#[expect(clippy::unnecessary_wraps, reason = "a look-up can fail")]
fn find(name: &str) -> std::io::Result<Vec<IpAddr>> {
    if name != "sound" {
        let (hangs, over) = &HANGS;
        let hangs = hangs.lock().unwrap();
        drop(over.wait_while(hangs, |hangs| *hangs).unwrap());
    }
    Ok(vec![IpAddr::from([10, 0, 0, 1])])
}

/// Before, each attempt left a thread of the runtime behind, and when there were 512 of them nobody's names
/// were looked up.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_hang_keep_no_other_tenant_waiting() {
    let all = Arc::new(Tenants::default());
    let hostile: Vec<Tenant> = (0..50).map(|number| all.tenant(&format!("hostile-{number}"))).collect();
    for _attempt in 0..3 {
        for tenant in &hostile {
            for name in ["a", "b", "c", "d", "e", "f"] {
                assert!(timeout(SHORT, tenant.look_up(name, find)).await.is_err());
            }
        }
    }
    assert_eq!(hostile[0].looked_up(), ["a", "b", "c", "d"], "four threads each, however often they ask");
    assert_eq!(all.look_ups.available_permits(), LOOK_UPS - LOOK_UPS_OF_ONE * hostile.len());
    assert_eq!(all.tenant("sound").look_up("sound", find).await.len(), 1);
    // Who goes away for a moment does not begin anew.
    drop(hostile);
    let again = all.tenant("hostile-0");
    assert!(timeout(SHORT, again.look_up("e", find)).await.is_err());
    assert_eq!(again.looked_up(), ["a", "b", "c", "d"]);
    // Who asks again hears what the first one is told.
    let waits = tokio::spawn(async move { again.look_up("a", find).await });
    *HANGS.0.lock().unwrap() = false;
    HANGS.1.notify_all();
    assert_eq!(waits.await.unwrap().len(), 1);
    assert_eq!(all.tenant("hostile-0").look_up("e", find).await.len(), 1);
}

/// Less than anybody waits for a turn.
const SHORT: Duration = Duration::from_millis(1);

#[tokio::test]
async fn who_sends_long_answers_that_are_unsound_waits_longer_than_others() {
    let all = Arc::new(Tenants::default());
    let hostile: Vec<Tenant> = (0..40).map(|number| all.tenant(&format!("hostile-{number}"))).collect();
    for tenant in &hostile {
        // Nobody said that it was a sound one.
        drop(tenant.turn().await.unwrap());
        assert!(timeout(SHORT, tenant.turn()).await.is_err(), "it has to wait");
    }
    let sound = all.tenant("sound");
    for _ in 0..3 {
        timeout(SHORT, sound.turn()).await.unwrap().unwrap().end();
    }
}

#[tokio::test]
async fn no_more_long_answers_are_in_memory_than_fit() {
    let all = Arc::new(Tenants::default());
    let mut turns = Vec::new();
    for number in 0..LONG_ANSWERS {
        turns.extend(all.tenant(&format!("{number}")).turn().await);
    }
    assert_eq!(turns.len(), LONG_ANSWERS);
    assert!(timeout(SHORT, all.tenant("one more").turn()).await.is_err());
    turns.pop().unwrap().end();
    assert!(timeout(SHORT, all.tenant("one more").turn()).await.unwrap().is_some());
}
