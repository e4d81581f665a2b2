// All that LM Studio's SDK for JavaScript does, once: node lmstudio_client.cjs SDK URL
// Prints what came of it as JSON, by the name of the call.
const [sdk, url] = process.argv.slice(2);
const { LMStudioClient, Chat, tool } = require(sdk);
const { z } = require("zod");

const client = new LMStudioClient({ baseUrl: url.replace("http", "ws") });
const quiet = { verbose: false };
const told = {};

const errorOf = async (promise) => {
  try {
    await promise;
  } catch (error) {
    return { message: error.message, cause: error.cause };
  }
};
const partsOf = async (stream) => {
  const parts = [];
  for await (const part of stream) parts.push(part.content);
  return parts;
};

const models = async () => {
  told.downloaded = (await client.system.listDownloadedModels()).map((one) => one.modelKey);
  told.version = await client.system.getLMStudioVersion();
  const shares = [];
  const config = { contextLength: 512 };
  const onProgress = (share) => shares.push(share);
  const options = { ...quiet, identifier: "mine", config, onProgress };
  const loaded = await client.llm.load("slow", options);
  told.load = { shares, info: await loaded.getModelInfo() };
  told.contextLength = await loaded.getContextLength();
  told.loadConfig = await loaded.getLoadConfig();
  told.again = (await client.llm.model("mine", quiet)).identifier;
  told.any = (await client.llm.model()).identifier;
  told.loaded = (await client.llm.listLoaded()).map((one) => one.identifier);
  await loaded.unload();
  told.unloaded = (await client.llm.listLoaded()).map((one) => one.identifier);
  told.unknown = await errorOf(client.llm.model("nope", quiet));
  told.damaged = await errorOf(client.llm.load("broken", quiet));
};

const answers = async (model) => {
  const whole = await model.respond("Hi");
  told.respond = { content: whole.content, stats: whole.stats, model: whole.modelInfo.identifier };
  const stream = model.respond("Hi");
  told.stream = { parts: await partsOf(stream), stats: (await stream.result()).stats };
  const complete = await model.complete("abc", { maxTokens: 3 });
  told.complete = { content: complete.content, stats: complete.stats };
  const place = z.object({ city: z.string().max(3), days: z.number().int() });
  told.structured = (await model.respond("Hi", { structured: place })).parsed;
  const thought = await (await client.llm.model("thinker", quiet)).respond("Hi");
  told.thought = [thought.reasoningContent, thought.nonReasoningContent];
  const endless = await client.llm.model("endless", quiet);
  const cancelled = endless.respond("Hi");
  for await (const _ of cancelled) await cancelled.cancel();
  told.cancelled = (await cancelled.result()).stats;
  const short = await client.llm.model("short", quiet);
  told.overflow = await errorOf(short.respond("sea ".repeat(100)));
  told.failed = await errorOf((await client.llm.model("sour", quiet)).respond("vinegar"));
};

const rounds = async () => {
  const messages = [];
  const parameters = { city: z.string(), days: z.number() };
  const implementation = ({ city }) => `sunny in ${city}`;
  const weather = tool({ name: "weather", description: "Tells.", parameters, implementation });
  const onMessage = (message) => messages.push(message.toString());
  const asker = await client.llm.model("asker", quiet);
  const done = await asker.act("How is it?", [weather], { onMessage });
  told.act = { rounds: done.rounds, messages };
};

const tokens = async (model) => {
  told.tokens = [await model.tokenize("hello"), await model.tokenize(["a", "bc"])];
  told.count = await model.countTokens("hello");
  told.template = await model.applyPromptTemplate(Chat.from([{ role: "user", content: "Hi" }]));
  const vectors = await client.embedding.model("vectors", quiet);
  told.vector = (await vectors.embed("hi")).embedding.length;
  told.vectors = (await vectors.embed(Array(40).fill("hi"))).length;
};

const rest = async (model) => {
  const image = await client.files.prepareImageBase64("a.png", "iVBORw0KGgo=");
  told.image = image.sizeBytes;
  told.refused = await errorOf(model.respond([{ role: "user", content: "Hi", images: [image] }]));
  const logged = new Promise((resolve) => {
    const stop = client.diagnostics.unstable_streamLogs((entry) => {
      stop();
      resolve(entry.data);
    });
  });
  // When the log is streamed is not told: ask until a request is in it.
  const asking = (async () => {
    let data;
    logged.then((entry) => (data = entry));
    while (!data) await model.respond("Hi");
    return data;
  })();
  told.log = await asking;
};

const run = async () => {
  await models();
  const model = await client.llm.model("counter", quiet);
  for (const part of [answers, rounds, tokens, rest]) await part(model);
};

run()
  .catch((error) => (told.error = error.stack))
  .then(() => {
    console.log(JSON.stringify(told));
    process.exit(0);
  });
