//! Three engine processes on one PostgreSQL database: they share the work, a killed one's goes on, one whose network is cut stops and
//! comes back.

use std::time::Duration;

use tokio::time::Instant;

use crate::kit::{CALLS, Cluster, PATIENCE};
use crate::proxy::Proxy;

async fn direct(url: &str) -> String {
    url.to_owned()
}

/// How often a test may try again what depends on how this machine shares itself out among the processes.
const CHANCES: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn three_engines_share_three_thousand_runs_and_none_does_less_than_a_fifth() {
    let cluster = Cluster::start(Duration::from_secs(20), direct).await;
    let mut before = [0; 3];
    for chance in 1.. {
        let begin = Instant::now();
        let runs = cluster.submit(3_000).await;
        let submitted = begin.elapsed();
        cluster.all_end(&runs).await;
        let now = [0, 1, 2].map(|worker| cluster.performed_by(cluster.process(worker)));
        let shares = [0, 1, 2].map(|worker| now[worker] - before[worker]);
        before = now;
        println!(
            "calls by process: {shares:?}; submitted in {submitted:.1?}, ended after {:.1?}",
            begin.elapsed()
        );
        let all: usize = shares.iter().sum();
        assert_eq!(
            all,
            3_000 * CALLS,
            "each call is performed once: {shares:?}"
        );
        if shares.iter().all(|share| share * 5 >= all) {
            break;
        }
        assert!(chance < CHANCES, "the work did not spread: {shares:?}");
    }
    cluster.end(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_killed_engine_goes_on_within_a_lease() {
    let lease = Duration::from_secs(10);
    for chance in 1.. {
        let free = free_after_a_kill(lease).await;
        // Five sixths of a lease are written at a heartbeat, and the others look every sixth; a second for a busy machine.
        if free < lease + Duration::from_secs(1) {
            break;
        }
        assert!(chance < CHANCES, "{free:?}");
    }
}

/// Kills an engine at work; how long it took until what it held was free. All runs end.
async fn free_after_a_kill(lease: Duration) -> Duration {
    let mut cluster = Cluster::start(lease, direct).await;
    let victim = cluster.process(0);
    let runs = cluster
        .submit_until(2_000, "the first engine is at work", async |it| {
            if it.performed_by(victim) <= 100 || it.held_by(victim).await == 0 {
                return false;
            }
            // It stands still while it is looked at: it does not end its work before it is dead.
            signal(victim, "STOP");
            let held = it.held_by(victim).await;
            let is_at_work = held > 20;
            if !is_at_work {
                signal(victim, "CONT");
            }
            is_at_work
        })
        .await;
    cluster.workers[0].kill().await.unwrap();
    let killed = Instant::now();
    let held = cluster.held_by(victim).await;
    assert!(held > 0, "it was killed with work in its hands");
    cluster
        .until("what it held is free", async |it| {
            it.held_by(victim).await == 0
        })
        .await;
    let free = killed.elapsed();
    println!(
        "{held} rows of the killed engine were free after {free:.2?}, with a lease of {lease:?}"
    );
    for runs in &runs {
        cluster.all_end(runs).await;
    }
    cluster.workers.remove(0);
    cluster.end(Some(victim)).await;
    free
}

fn signal(process: u32, name: &str) {
    let sent = std::process::Command::new("kill")
        .args(["-s", name, &process.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_whose_network_is_cut_stops_when_its_lease_is_gone_and_comes_back() {
    let lease = Duration::from_secs(10);
    let mut proxy = None;
    let cluster = Cluster::start(lease, async |url| {
        let started = proxy.insert(Proxy::start(url).await);
        started.url.clone()
    })
    .await;
    let proxy = proxy.unwrap();
    for heals_old_connections in [true, false] {
        for chance in 1.. {
            let late = cut(&cluster, &proxy, heals_old_connections).await;
            // A call that was decided upon with a lease may be performed without one: what this machine may do to a process between
            // the two nobody can rule out. It does not do it each time.
            if late == 0 {
                break;
            }
            assert!(chance < CHANCES, "it asks without a lease: {late} calls");
        }
    }
    let victim = cluster.process(0);
    cluster.end(Some(victim)).await;
}

/// Cuts the first engine's network, until the others have done its work, and heals it; how many calls it made after its lease.
async fn cut(cluster: &Cluster, proxy: &Proxy, heals_old_connections: bool) -> usize {
    let lease_is_gone = "its lease is gone, and what it held is free";
    let victim = cluster.process(0);
    let before = cluster.performed_by(victim);
    let runs = cluster
        .submit_until(1_000, "the first engine is at work", async |it| {
            it.performed_by(victim) > before + 50 && it.held_by(victim).await > 0
        })
        .await;
    proxy.silence();
    let cut = Instant::now();
    cluster
        .until(lease_is_gone, async |it| {
            it.live().await == 2 && it.held_by(victim).await == 0
        })
        .await;
    println!("free {:.2?} after the cut", cut.elapsed());
    // Its own clock ends the lease before the others may take over.
    let at_take_over = cluster.performed_by(victim);
    for runs in &runs {
        cluster.all_end(runs).await;
    }
    let late = cluster.performed_by(victim) - at_take_over;
    assert_eq!(cluster.live().await, 2);
    if heals_old_connections {
        proxy.heal();
    } else {
        proxy.heal_for_new_connections();
    }
    let healed = Instant::now();
    cluster
        .until("it is back", async |it| it.live().await == 3)
        .await;
    println!("back {:.2?} after the network", healed.elapsed());
    // A claim that was lost on a dead connection is given up after the reply timeout: until then the others do all.
    let before = cluster.performed_by(victim);
    while cluster.performed_by(victim) == before {
        assert!(healed.elapsed() < PATIENCE, "it never works again");
        let runs = cluster.submit(300).await;
        cluster.all_end(&runs).await;
    }
    println!("at work {:.2?} after the network", healed.elapsed());
    late
}
