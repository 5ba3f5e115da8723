//! Searches the web, has a post written about what was found, keeps it in a database, and is killed while it does.
//!
//! ```text
//! cargo run --release -p tasker-examples --bin blog
//! ```
//!
//! The task is `examples/tasks/blog-generator.js`; Google's search, OpenAI and Supabase are servers on the loopback
//! interface. Against the real ones start the services with `from_env()` and the keys that the service guide names.
//!
//! The run is made twice. First the host is killed in the pauses between two steps: each request is sent once. Then it is
//! killed while the post is being written: that one request is sent again, under the same idempotency key, so that a
//! provider that keeps them writes one post; search and insert are sent once.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::{Engine, LogCursor, RunFilter};
use tasker_examples::fakes::blog::{
    Blog, DATABASE_KEY, OPENAI_KEY, POST, SEARCH_ENGINE, SEARCH_KEY,
};
use tasker_examples::fakes::serve;
use tasker_examples::killed::{Kill, LEASE_MS, Problem, child, in_time, program, run_and_kill};
use tasker_proxies::Secret;
use tasker_proxies::openai::{OpenAi, OpenAiOptions};
use tasker_proxies::supabase::{Supabase, SupabaseOptions};
use tasker_proxies::websearch::{GoogleSearch, GoogleSearchOptions, WebSearch};
use tokio::sync::Semaphore;

const TASK: &str = include_str!("../../tasks/blog-generator.js");

#[tokio::main]
async fn main() -> ExitCode {
    program("blog", parent, write).await
}

async fn parent() -> Result<(), Problem> {
    println!("killed in the pauses between two steps:");
    let pauses = [Kill::InPause(1), Kill::InPause(2)];
    let blog = in_time(async |pause_ms| {
        let blog = Arc::new(Blog::default());
        let done = once(&blog, &pauses, pause_ms).await?;
        Ok(done.map(|()| blog))
    });
    expect(&*blog.await?, 3)?;

    println!("\nkilled while the post is being written:");
    let hold = Arc::new(Semaphore::new(0));
    let blog = Arc::new(Blog::held(Arc::clone(&hold)));
    let release = async {
        // The search, the chat, and the chat again: the second one is written to its end.
        blog.ledger.reached(3).await;
        hold.close();
    };
    let kill = [Kill::AfterRequests(2)];
    let once = in_time(async |pause_ms| once(&blog, &kill, pause_ms).await);
    let (done, ()) = tokio::join!(once, release);
    done?;
    expect(&blog, 4)
}

/// One run with these kills. Nothing when a kill came too late.
async fn once(blog: &Arc<Blog>, kills: &[Kill], pause_ms: u64) -> Result<Option<()>, Problem> {
    let folder = tempfile::tempdir()?;
    let url = serve(blog.router()).await?;
    let result = run_and_kill(folder.path(), &url, &blog.ledger, kills, pause_ms).await?;
    let Some(result) = result else {
        return Ok(None);
    };
    let result: Value = serde_json::from_str(&result)?;
    println!("{}", result["content"]);
    if result["content"] != POST.concat() || result["sources"].as_array().map(Vec::len) != Some(3) {
        return Err(format!("the post is {result}").into());
    }
    println!("the log of the run:");
    for line in log(folder.path()).await? {
        println!("  {line}");
    }
    Ok(Some(()))
}

/// What the run's log holds: the post as it was written, and the tokens that it cost.
async fn log(folder: &Path) -> Result<Vec<String>, Problem> {
    let storage = SqliteStorage::open(folder.join("tasker.db")).await?;
    let reader = Engine::builder().storage(storage).client().await?;
    let mut texts = Vec::new();
    for run in reader.runs(&RunFilter::default(), 1).await?.runs {
        let run = reader.run(run.id).await?;
        let page = run.log_page(LogCursor::default()).await?;
        texts.extend(page.lines.into_iter().map(|line| line.line.message));
    }
    reader.shutdown().await?;
    let used = texts.iter().filter(|text| text.contains("used 52 tokens"));
    if used.count() != 1 {
        return Err(format!("the tokens are not told once: {texts:?}").into());
    }
    Ok(texts)
}

/// One post is in the database, a provider that keeps idempotency keys wrote one, and so many requests were sent.
fn expect(blog: &Blog, requests: usize) -> Result<(), Problem> {
    let sent = blog.ledger.entries();
    let posts = blog.posts();
    if sent.len() != requests || posts.len() != 1 || blog.generations() != 1 {
        return Err(format!(
            "{} requests, {} posts in the database, {} written: {sent:?}",
            sent.len(),
            posts.len(),
            blog.generations()
        )
        .into());
    }
    Ok(())
}

async fn write(folder: &Path, url: &str, pause_ms: u64) -> Result<(), Problem> {
    let search = GoogleSearch::new(GoogleSearchOptions {
        api_key: Some(Secret::new(SEARCH_KEY)),
        engine_id: Some(Secret::new(SEARCH_ENGINE)),
        url: format!("{url}/customsearch/v1"),
        ..GoogleSearchOptions::default()
    })?;
    let openai = OpenAi::new(OpenAiOptions {
        base_url: format!("{url}/v1"),
        api_key: Some(Secret::new(OPENAI_KEY)),
        ..OpenAiOptions::default()
    })?;
    let supabase = Supabase::new(SupabaseOptions {
        key: Some(Secret::new(DATABASE_KEY)),
        ..SupabaseOptions::new(url)
    })?;
    let engine = Engine::builder()
        .storage(SqliteStorage::open(folder.join("tasker.db")).await?)
        .service(WebSearch::new(search))
        .service(openai)
        .service(supabase)
        .lease_ms(LEASE_MS)
        .poll_ms(100)
        .start()
        .await?;
    engine.publish(TASK).await?;
    let input = json!({"topic": "durable execution", "pauseMs": pause_ms});
    child(engine, "blog-generator", &input).await
}
