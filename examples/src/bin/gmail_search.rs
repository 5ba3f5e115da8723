//! Searches the mail of all users of all domains of a Google Workspace, and is killed while it does.
//!
//! ```text
//! cargo run --release -p tasker-examples --bin gmail_search
//! ```
//!
//! The task is `examples/tasks/comprehensive-gmail-search-all.js`. The Workspace is a server on the loopback interface
//! with 5 domains of 40 users; it checks tokens, scopes and impersonation as Google does. Against the real one set
//! `GAPI_KEY` and `GAPI_ADMIN_EMAIL` and start the service with `GapiOptions::from_env()`.
//!
//! The run is made twice. First the host is killed with SIGKILL in the task's pauses between two domains: each request is
//! sent once. Then it is killed in the middle of parallel reads: what was recorded is not sent again.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::Engine;
use tasker_examples::fakes::{
    serve,
    workspace::{ADMIN, DOMAINS, Workspace, users},
};
use tasker_examples::killed::{Kill, LEASE_MS, Problem, child, in_time, program, run_and_kill};
use tasker_proxies::Secret;
use tasker_proxies::gapi::{Gapi, GapiOptions};

const TASK: &str = include_str!("../../tasks/comprehensive-gmail-search-all.js");
const QUERY: &str = "subject:report";
/// Small, so that there are many pages.
const PAGE_SIZE: usize = 4;
const SAMPLES: usize = 3;

#[tokio::main]
async fn main() -> ExitCode {
    program("gmail_search", parent, search).await
}

async fn parent() -> Result<(), Problem> {
    println!("killed in the pauses between two domains:");
    let pauses = [Kill::InPause(1), Kill::InPause(2), Kill::InPause(4)];
    let sent = in_time(async |pause_ms| once(&pauses, pause_ms).await).await?;
    if sent != expected_calls() {
        return Err(format!("{sent} requests were sent for {} calls", expected_calls()).into());
    }
    println!("\nkilled in the middle of parallel reads:");
    let middle = [100, 300, 500].map(Kill::AfterRequests);
    in_time(async |pause_ms| once(&middle, pause_ms).await).await?;
    Ok(())
}

/// One run with these kills; how many requests it took. Nothing when a kill came too late.
async fn once(kills: &[Kill], pause_ms: u64) -> Result<Option<usize>, Problem> {
    let folder = tempfile::tempdir()?;
    let workspace = Arc::new(Workspace::default());
    let url = serve(workspace.router()).await?;
    let result = run_and_kill(folder.path(), &url, &workspace.ledger, kills, pause_ms).await?;
    let Some(result) = result else {
        return Ok(None);
    };
    let result: Value = serde_json::from_str(&result)?;
    println!("{}", result["summary"]);
    println!("{}", result["statistics"]);
    check_result(&result)?;
    Ok(Some(workspace.ledger.entries().len()))
}

/// The result must be what is in the Workspace.
fn check_result(result: &Value) -> Result<(), Problem> {
    let (mut people, mut found, mut with_mail) = (0, 0, 0);
    for (number, domain) in DOMAINS.iter().enumerate() {
        let active = users(number).into_iter().filter(|user| !user.suspended);
        for (place, user) in active.enumerate() {
            let shown = &result["domainResults"][number]["users"][place];
            let count = user.count(QUERY);
            let same = shown["email"] == user.email
                && shown["name"] == user.name
                && shown["messageCount"] == count
                && shown["messages"].as_array().map(Vec::len) == Some(count.min(SAMPLES));
            if !same {
                return Err(format!("{} is shown as {shown}", user.email).into());
            }
            people += 1;
            found += count;
            with_mail += usize::from(count > 0);
        }
        let shown = &result["domainResults"][number]["domain"];
        if shown != domain {
            return Err(format!("{domain} is shown as {shown}").into());
        }
    }
    let summary = json!({"totalDomains": DOMAINS.len(), "totalUsers": people, "totalMessagesFound": found, "searchQuery": QUERY});
    let same = result["summary"] == summary
        && result["statistics"]["usersWithEmails"] == with_mail
        && result["sampleMessages"].as_array().map(Vec::len) == Some(20)
        && result["executionInfo"]["totalApiCalls"] == expected_calls();
    if same {
        Ok(())
    } else {
        Err(format!("the summary is not {summary}").into())
    }
}

/// One call for the domains, one for each page of users, one for each page of a user's messages, one for each sample.
fn expected_calls() -> usize {
    let pages = |items: usize| items.div_ceil(PAGE_SIZE).max(1);
    let domain = |number: usize| {
        let users = users(number);
        let active = users.iter().filter(|user| !user.suspended);
        let calls: usize = active
            .map(|user| user.count(QUERY))
            .map(|count| pages(count) + count.min(SAMPLES))
            .sum();
        pages(users.len()) + calls
    };
    1 + (0..DOMAINS.len()).map(domain).sum::<usize>()
}

async fn search(folder: &Path, url: &str, pause_ms: u64) -> Result<(), Problem> {
    let gapi = Gapi::new(GapiOptions {
        account: Some(Secret::new(Workspace::account(url))),
        admin_email: Some(Secret::new(ADMIN)),
        root_url: Some(url.to_owned()),
        ..GapiOptions::default()
    })?;
    let engine = Engine::builder()
        .storage(SqliteStorage::open(folder.join("tasker.db")).await?)
        .service(gapi)
        .lease_ms(LEASE_MS)
        .poll_ms(100)
        .start()
        .await?;
    engine.publish(TASK).await?;
    let input = json!({
        "gmailSearchQuery": QUERY,
        "pageSize": PAGE_SIZE,
        "samplesPerUser": SAMPLES,
        "pauseMs": pause_ms,
    });
    child(engine, "comprehensive-gmail-search-all", &input).await
}
