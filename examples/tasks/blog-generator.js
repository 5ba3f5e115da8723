/**
 * @task blog-generator
 * @description Searches the web for a topic, has a post written about it, and keeps the post in the database
 * @param {object} input
 * @param {string} input.topic - What to write about
 * @param {number} [input.searchResults=3] - Sources
 * @param {string} [input.model="gpt-4o-mini"]
 * @param {number} [input.temperature=0.7]
 * @param {number} [input.maxTokens=1500]
 * @param {number} [input.pauseMs=0] - Rest between two steps
 * @returns {{content: string, sources: object[], metadata: object}} The post
 */
module.exports = async function execute(
  { topic, searchResults = 3, model = "gpt-4o-mini", temperature = 0.7, maxTokens = 1500, pauseMs = 0 },
  { tools },
) {
  const rest = async () => pauseMs > 0 && (await tools.sleep(pauseMs));

  let sources = [];
  try {
    const found = await tools.websearch.search({ query: topic, limit: searchResults });
    sources = found.results;
  } catch (error) {
    tools.log("warn", `no sources: ${error.message}`);
  }
  await rest();

  const completion = await tools.openai.chat.completions.create({
    model,
    temperature,
    max_tokens: maxTokens,
    stream: true,
    stream_options: { include_usage: true },
    messages: [
      { role: "system", content: "You write short posts and name your sources." },
      {
        role: "user",
        content: `Write about: ${topic}\n\n${sources.map(({ title, url, snippet }) => `${title} (${url}): ${snippet}`).join("\n")}`,
      },
    ],
  });
  const content = completion.choices[0].message.content;
  await rest();

  // The id is recorded: a second attempt of the insert has the same one, and the database refuses it as a duplicate.
  const id = crypto.randomUUID();
  const { error } = await tools.supabase.from("posts").insert({ id, topic, content, sources });
  if (error && error.code !== "23505") {
    throw new Error(`the post was not kept: ${error.message}`);
  }
  return {
    content,
    sources: sources.map(({ title, url }) => ({ title, url })),
    metadata: { id, topic, model, tokens: completion.usage.total_tokens, generatedAt: new Date().toISOString() },
  };
};
