// OpenAI's own Node client against Mercat: node openai_client.mjs CLIENT BASE_URL; prints what it got, as JSON.
const [client, baseURL] = process.argv.slice(2);
const { default: OpenAI } = await import(client);
const openai = new OpenAI({ baseURL, apiKey: "mk_live_1", maxRetries: 0 });
const asked = { model: "a/b", messages: [{ role: "user", content: "Hi" }] };

const whole = await openai.chat.completions.create(asked);
let streamed = "";
let usage = null;
for await (const chunk of await openai.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
const helped = await openai.chat.completions.stream(asked).finalContent();
const embedded = await openai.embeddings.create({ model: "a/b", input: ["x"] });
const listed = [];
for await (const model of openai.models.list()) listed.push(model.id);
const retrieved = await openai.models.retrieve("a/b");
let refused = null;
try {
  await openai.chat.completions.create({ ...asked, temperature: "hot" });
} catch (error) {
  refused = { kind: error.constructor.name, status: error.status, code: error.code, param: error.param };
}
console.log(JSON.stringify({
  whole: whole.choices[0].message.content,
  requestId: whole._request_id,
  streamed,
  usage: usage.total_tokens,
  helped,
  embedded: Array.from(embedded.data[0].embedding),
  listed,
  retrieved: retrieved.id,
  refused,
}));
