//! What traces cost when their collector is of no use: the drain of single tasks, beside one without traces.

use anyhow::Result;
use tokio::net::TcpListener;

use crate::measurements::drain::drain_with;
use crate::measurements::load::Load;
use crate::samples::median;
use crate::table::Row;
use crate::testbed::Testbed;

const TASKS: u32 = 300_000;

/// At most two in a hundred tasks fewer.
const GOAL: f64 = 0.98;

pub(crate) async fn measure(testbed: &Testbed) -> Result<Vec<Row>> {
    let tasks = testbed.scaled(TASKS);
    // Accepts connections, in its backlog, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let silent_url = format!("http://{}", silent.local_addr()?);
    let collectors = [("away", "http://127.0.0.1:1"), ("silent", silent_url.as_str())];
    let (mut without, mut rates) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..testbed.repeats {
        without.push(drain_with(testbed, tasks, Load::Single, None).await?);
        for (rates, (_, url)) in rates.iter_mut().zip(collectors) {
            rates.push(drain_with(testbed, tasks, Load::Single, Some(url)).await?);
        }
    }
    let peer = median(&without);
    let row = |(rates, (what, _)): (&Vec<f64>, (&str, &str))| {
        let name = format!("drain, the collector of traces is {what}");
        Row::with_peer(&name, median(rates), "tasks/s", "no traces", peer, GOAL)
    };
    Ok(rates.iter().zip(collectors).map(row).collect())
}
