// One question to the server by Ollama's client for JavaScript: node ollama_client.cjs URL CASE JSON
// Prints what came of it as JSON: an answer, or the lines of a stream.
const { Ollama } = require("ollama");

const [host, name, given] = process.argv.slice(2);
const fields = JSON.parse(given);
const client = new Ollama({ host });

const all = async (stream) => {
  const lines = [];
  for await (const line of await stream) lines.push(line);
  return lines;
};

const cases = {
  stream: () => all(client.chat({ ...fields, stream: true })),
  generate: () => all(client.generate({ ...fields, stream: true })),
  abort: async () => {
    const stream = await client.chat({ ...fields, stream: true });
    try {
      for await (const line of stream) stream.abort();
    } catch (error) {
      return { aborted: error.name };
    }
  },
};

const run = cases[name] || (() => client[name](fields));
const told = (error) => ({
  error: error.name,
  message: error.message,
  status: error.status_code,
});

run().catch(told).then((answer) => console.log(JSON.stringify(answer)));
