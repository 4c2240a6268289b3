// Transcribe a recording with Steno. Requires Node.js 20 or later, and no packages.
import { openAsBlob } from "node:fs";
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

const USAGE = `Usage: node transcribe.mjs FILE [--format text|srt|vtt] [--url http://127.0.0.1:8000]
If the server requires a token, set the environment variable ACCESS_TOKEN.`;

/** Sends a request. Returns a JSON response as an object, and any other response as text. */
async function send(url, headers = {}, body = undefined) {
	const response = await fetch(url, { method: body ? "POST" : "GET", headers, body }).catch((error) => {
		throw new Error(`No response from ${url}: ${error.cause?.message || error.cause?.code || error.message}`);
	});
	const text = await response.text();
	const result = response.headers.get("Content-Type")?.includes("json") ? JSON.parse(text) : text;
	if (!response.ok) throw new Error(`${url}: HTTP ${response.status}: ${result.detail ?? text}`);
	return result;
}

function toForm(fields, recording) {
	const form = new FormData();
	for (const [name, value] of Object.entries(fields)) form.append(name, value);
	form.append("file", recording); // must be the last field, because S3 requires this
	return form;
}

async function transcribe(path, format, url) {
	const { size } = await stat(path);
	const recording = await openAsBlob(path); // reads the file while it is sent
	const access = process.env.ACCESS_TOKEN ? { Authorization: `Bearer ${process.env.ACCESS_TOKEN}` } : {};
	const fields = { response_format: format };
	let result;
	if (size <= (await send(`${url}/api/config`)).direct_max_bytes) {
		result = await send(`${url}/api/transcribe`, access, toForm(fields, recording));
	} else {
		const headers = { ...access, "Content-Type": "application/json" };
		const body = JSON.stringify({ ...fields, filename: basename(path), size });
		result = await send(`${url}/api/uploads`, headers, body);
		await send(result.upload.url, {}, toForm(result.upload.fields, recording));
	}
	if (typeof result === "string") return result;
	const job = `${url}/api/transcriptions/${result.id}`; // the recording became a job
	for (let state; !["completed", "failed"].includes((state = await send(job, access)).status); await sleep(2000))
		console.error(`${state.progress.done} parts are done`);
	return send(`${job}/transcript?response_format=${format}`, access);
}

try {
	const options = { format: { type: "string", default: "text" }, url: { type: "string", default: "http://127.0.0.1:8000" } };
	const { values, positionals } = parseArgs({ options, allowPositionals: true });
	if (positionals.length !== 1) throw new Error(USAGE);
	console.log((await transcribe(positionals[0], values.format, values.url.replace(/\/+$/, ""))).trim());
} catch (error) {
	console.error(error.message);
	process.exitCode = 1;
}
