// One question to the server by the official Node client: node node_client.cjs BASE_URL CASE [TEXT]
// Prints what came of it as JSON.
const OpenAI = require("openai");

const [baseURL, name, given] = process.argv.slice(2);
const fields = JSON.parse(given);
const client = new OpenAI({ baseURL, apiKey: "any" });
const chat = client.chat.completions;

const cases = {
  whole: () => chat.create(fields),
  // The client's own helper: it checks each chunk against those before.
  stream: () => chat.stream(fields).finalChatCompletion(),
  leave: async () => {
    for await (const chunk of await chat.create({ ...fields, stream: true })) return chunk;
  },
  abort: async () => {
    const stream = chat.stream(fields);
    stream.on("content", () => stream.abort());
    await stream.done().catch(() => {});
    return { aborted: stream.aborted };
  },
};

const told = (error) => ({
  error: error.constructor.name,
  ...Object.fromEntries(
    ["status", "code", "param", "message", "requestID"].map((key) => [key, error[key]]),
  ),
});

cases[name]().catch(told).then((answer) => console.log(JSON.stringify(answer)));
