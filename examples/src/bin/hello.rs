//! The program of the README, word for word.
use serde_json::json;
use tasker_adaptor_sqlite::SqliteStorage;
use tasker_core::{Engine, Service};

const TASK: &str = "export async function greet({ id }, { tools }) {
    const name = await tools.people.find(id); // a call of the service below
    await tools.sleep(100);                   // a row in the database, whatever becomes of this process
    return `Hello, ${name}!`;
}";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let people = Service::with_state("people", ["Ada", "Grace", "Margaret"])
        .method("find", async |c, id: usize| Ok(c.state[id % 3]));
    let engine = Engine::builder()
        .storage(SqliteStorage::open("hello.db").await?)
        .service(people)
        .start()
        .await?;
    engine.publish(TASK).await?;
    let run = engine.submit("greet", &json!({ "id": 1 })).await?;
    let greeting: String = run.result().await?;
    println!("{greeting}");
    engine.shutdown().await?;
    Ok(())
}
