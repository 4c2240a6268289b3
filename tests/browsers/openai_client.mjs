// Send requests with OpenAI's SDK, one after another. Print a JSON line for each event of a stream,
// and one for the result or the error of each request.
import dns from "node:dns";
import fs from "node:fs";
import { basename } from "node:path";
import OpenAI from "openai";

const { client: settings, path, requests } = JSON.parse(process.argv[2]);
// Like browsers, resolve *.localhost to this machine. Not every operating system does it.
const { lookup } = dns;
dns.lookup = (name, ...rest) => lookup(name.replace(/^.*\.localhost$/, "127.0.0.1"), ...rest);

const print = (line) => console.log(JSON.stringify(line));

for (const { client: own, params, options, asStream } of requests) {
  const client = new OpenAI({ ...settings, ...own });
  const file = asStream
    ? fs.createReadStream(path)
    : new File([await fs.openAsBlob(path)], basename(path));
  try {
    const request = client.audio.transcriptions.create({ ...params, file }, options);
    const { data, response, request_id } = await request.withResponse();
    if (params.stream) for await (const event of data) print(event);
    const headers = Object.fromEntries(response.headers);
    print({ result: params.stream ? null : data, headers, request_id });
  } catch (error) {
    const { status, code, param, requestID, message } = error;
    const classes = Object.entries(OpenAI).filter(([, type]) => error.constructor === type);
    print({ error: classes[0]?.[0] ?? error.name, status, code, param, requestID, message });
  }
}
