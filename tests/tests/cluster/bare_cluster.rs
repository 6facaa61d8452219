//! README.md's guide, run unchanged on a cluster without Rowlock. (It takes long; by its name it starts first
//! among the parallel tests.)

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rowlock_tests::doc_blocks::{Kind, blocks};
use rowlock_tests::{TestDb, checkout, server as postgres};
use url::Url;

use crate::cluster::{Cluster, Own, bare, cluster};
use crate::harness::until;
use crate::kubectl;
use crate::pod_network::Route;

/// A command with this comment runs until the end of the page.
const UNTIL_CTRL_C: &str = "# until Ctrl-C";

/// Commands that the tests replace: images.sh builds the images, and there is no registry to push to.
const IMAGES: &str = "make images ";

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_guide_works_on_a_new_cluster() -> Result<()> {
    // A given cluster may have no other Rowlock than the one it came with.
    if tokio::task::spawn_blocking(cluster).await?.own().is_none() {
        return Ok(());
    }
    let fresh = tokio::task::spawn_blocking(|| bare("readme")).await??;
    let db = TestDb::empty().await;
    let server = Url::parse(&postgres::url(&db.name))?;
    let route = Route::straight(&fresh.pod_network, server.port().context("the server's port")?)?;
    let mut url = server.clone();
    url.set_host(Some(&route.at.ip().to_string()))?;
    let script = script()?;
    let bash = tokio::task::spawn_blocking(move || {
        run(&fresh, &script, url.as_str()).map(|message| (fresh, message))
    });
    let (fresh, message) = bash.await??;
    ensure!(message.contains("condition met") && message.contains("10000"), "{message}");
    until("all is done and the pods are gone", || async {
        let done: i64 = db.one("select coalesce(sum(completed), 0)::bigint from rowlock.audit()").await;
        let pods = kubectl(&fresh, &["get", "pods", "-n", "shop", "-o", "name"])?;
        let seen = kubectl(&fresh, &["describe", "tq", "emails", "-n", "shop"])?;
        ensure!(done == 10_000 && pods.is_empty(), "{done} done, pods {pods:?}:\n{seen}");
        Ok(())
    })
    .await?;
    tokio::task::spawn_blocking(move || fresh.own().map_or(Ok(()), Own::down)).await?
}

fn kubectl(cluster: &Cluster, args: &[&str]) -> Result<String> {
    kubectl::run(&cluster.kubectl, &cluster.kubeconfig, args, "").map_err(anyhow::Error::msg)
}

/// All blocks for a cluster as one.
fn script() -> Result<String> {
    let page = fs::read_to_string(checkout().join("README.md"))?;
    let blocks = blocks("README.md", &page);
    let lines =
        blocks.iter().filter(|block| block.kind == Kind::Cluster).flat_map(|block| block.text.lines());
    let lines: Vec<&str> = lines.filter(|line| !line.starts_with(IMAGES)).collect();
    let script = format!("set -eux\n{}\n", lines.join("\n"));
    ensure!(
        script.contains("kubectl wait") && script.contains("helm install"),
        "README.md has no cluster: {script}"
    );
    Ok(script.replace(UNTIL_CTRL_C, "&") + "kill $(jobs -p)\n")
}

fn run(cluster: &Cluster, script: &str, url: &str) -> Result<String> {
    let folder =
        |program: &Path| program.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("timeout")
        .args([&Duration::from_mins(5).as_secs().to_string(), "bash", "-c", script])
        .current_dir(checkout())
        .env("PATH", format!("{}:{}:{path}", folder(&cluster.kubectl), folder(&cluster.helm)))
        .env("KUBECONFIG", &cluster.kubeconfig)
        .env("REGISTRY", cluster.images.trim_end_matches('/'))
        .env("DATABASE_URL", url)
        // This process reaches the server at another address than pods do.
        .env("PGHOSTADDR", "127.0.0.1")
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (message, complained) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{complained}\n{message}");
    Ok(message)
}
