// What a client of OpenAI's expects of a server, tried with the real Node client.
// Run: node conformance.mjs http://127.0.0.1:8000/v1 MODEL [KEY], with the package `openai` where Node finds it.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

// Looked for from the working directory, because the package is not installed beside this file.
const OpenAI = createRequire(`${process.cwd()}/`)("openai").default;
const [url, model, key] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: key ?? "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Correct: She go home ." }];
const ask = (fields) => client.chat.completions.create({ model, messages, max_tokens: 12, ...fields });

async function lists() {
  const page = await client.models.list();
  assert(page.data.some((one) => one.id === model));
}

async function chats() {
  const answer = await ask({});
  assert.equal(answer.choices[0].message.role, "assistant");
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
}

async function streams() {
  const whole = await ask({});
  let text = "";
  let usage = null;
  for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
}

async function leavesEarly() {
  const stream = await ask({ stream: true, max_tokens: 60 });
  for await (const _ of stream) break;
  assert(stream.controller.signal.aborted);
}

async function stops() {
  const text = (await ask({})).choices[0].message.content;
  const stop = text.trim().split(" ")[1];
  const cut = await ask({ stop });
  assert.equal(cut.choices[0].finish_reason, "stop");
  assert.equal(cut.choices[0].message.content, text.slice(0, text.indexOf(stop)));
}

async function draws() {
  const texts = async (seed) => (await ask({ n: 3, seed, temperature: 1.5 })).choices.map((one) => one.message.content);
  assert.deepEqual(await texts(1), await texts(1));
  assert.notDeepEqual(await texts(1), await texts(2));
}

async function scores() {
  const answer = await ask({ logprobs: true, top_logprobs: 2 });
  assert.equal(answer.choices[0].logprobs.content.length, answer.usage.completion_tokens);
  assert(answer.choices[0].logprobs.content.every((one) => one.logprob <= 0 && one.top_logprobs.length === 2));
}

async function followsSchema() {
  const schema = { type: "object", properties: { right: { type: "boolean" } }, required: ["right"], additionalProperties: false };
  const answer = await ask({ max_tokens: 110, response_format: { type: "json_schema", json_schema: { name: "verdict", schema } } });
  assert.equal(typeof JSON.parse(answer.choices[0].message.content).right, "boolean");
}

async function refuses() {
  await assert.rejects(ask({ model: "no-such-model" }), (error) => error instanceof OpenAI.NotFoundError);
  await assert.rejects(ask({ temperature: 9 }), (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature");
  await assert.rejects(ask({ tools: [{ type: "function", function: { name: "f" } }] }), (error) => error.param === "tools");
}

for (const attempt of [lists, chats, streams, leavesEarly, stops, draws, scores, followsSchema, refuses]) {
  await attempt();
  console.log(attempt.name);
}
