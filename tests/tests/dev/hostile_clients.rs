//! Hostile clients of a worker's HTTP port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use rowlock_tests::{TestDb, server};

use crate::harness::{Home, until};
use crate::running_command::Dev;

/// More than the files that the worker may open.
const HALVES: usize = 1100;
const FILES: usize = 1024;

/// Before the fix, each of them kept a file descriptor of the worker until none was left for its handler,
/// which it then reported as not listening.
#[tokio::test]
async fn unfinished_requests_do_not_block_a_worker() {
    let test = TestDb::new().await;
    let home = Home::with_database(&server::url(&test.name));
    let (_handler, worker, listen) = home.worker_without_dev();
    let mut limited = home.command("sh", &["-c", &format!("ulimit -n {FILES}; exec \"$0\" \"$@\"")]);
    limited.arg(worker.get_program()).args(worker.get_args());
    limited.envs(worker.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut worker = Dev::spawn(limited);
    worker.wait_for("joined");
    until("it is ready", || ask(listen).contains("200 OK"));

    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let halves: Vec<TcpStream> = (0..HALVES).map(|_| half(listen)).collect();
    let asked = Instant::now();
    let answer = ask(listen);
    assert!(
        answer.contains("200 OK") && asked.elapsed() < Duration::from_secs(1),
        "{answer:?} {:?}",
        asked.elapsed()
    );
    let ids: Vec<String> = (0..20).map(|_| home.enqueue("ok")).collect();
    until("they are done", || home.status("available") + home.status("running") == 0);
    assert!(ids.iter().all(|id| home.state(id) == "completed"));
    let open = std::fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap().count();
    assert!(open < 100, "{open} files");
    drop(halves);
    worker.send(Signal::SIGTERM);
    let (code, output) = worker.ended();
    assert!(code == 0 && !output.contains("nothing is claimed until"), "{output}");
    assert!(!output.contains("so nothing is claimed"), "{output}");
}

fn half(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    // The first connections may be closed already.
    let _ = stream.write_all(b"GET /readyz HTTP/1.1\r\nx: ");
    stream
}

fn ask(address: SocketAddr) -> String {
    let mut answer = Vec::new();
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
        stream.read_to_end(&mut answer)
    });
    asked.map_or_else(|error| error.to_string(), |_| String::from_utf8_lossy(&answer).into_owned())
}
