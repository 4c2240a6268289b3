/**
 * Steno's client for browsers: records, and transcribes recordings of any size.
 *
 *     const { transcript } = await transcribe(await (await record()).stop(), { token });
 *
 * `baseUrl` is the server; by default, the one that served this module. `signal` ends the waiting, but no job. `asJob`
 * uploads small recordings, too: jobs keep every format. Progress is in bytes while sending, then in parts, whose
 * `total` is null at first.
 *
 * @typedef {"json" | "text" | "srt" | "vtt" | "verbose_json"} Format
 * @typedef {{baseUrl?: string, token?: string, signal?: AbortSignal}} Access
 * @typedef {{language?: string, model?: string, prompt?: string, keywords?: string[], responseFormat?: Format}} Wishes
 * @typedef {{phase: "sending" | "queued" | "transcribing" | "offline", done: number, total: number | null, transcript: string, job: string}} Progress
 * @typedef {Access & Wishes & {asJob?: boolean, onProgress?: (progress: Progress) => void}} Options
 * @typedef {{transcript: string, model: string, job: string, segments?: any[], duration?: number}} Transcription
 */

const DELAYS = [1, 2, 4, 8, 15, 30, 30, 30]; // seconds between tries
const POLL_SECONDS = 2;

/** `code` is for programs, `detail` for people; `status` is 0 if no server answered. */
export class StenoError extends Error {
	status = 0;
	job = "";
	constructor(code = "", detail = "", more = {}) {
		super(detail);
		Object.assign(this, more, { name: "StenoError" });
		this.code = code;
		this.detail = detail;
	}
}

/**
 * The transcript of a recording, small or large. A lost connection is retried for two minutes.
 * Rejects with StenoError or the signal's reason.
 * @param {Blob} recording @param {Options} [options] @returns {Promise<Transcription>}
 */
export async function transcribe(recording, options = {}) {
	if (!recording.size) throw new StenoError("empty_recording", "The recording is empty.");
	const { direct_max_bytes: direct, upload_max_bytes: uploads } = (await call("GET", "config", options)).data;
	const most = uploads ?? direct;
	if (recording.size > most) throw new StenoError("recording_too_large", `At most ${most} bytes are taken here.`);
	if (recording.size > direct || (options.asJob && uploads)) return upload(recording, options);
	// Without uploads there is no ledger: a retry may be billed.
	const tries = uploads ? undefined : 1;
	const answer = await call("POST", "transcribe", options, filled(wishes(options), recording), "", tries);
	return answer.status === 202 ? followJob(answer.data.id, options) : result(answer);
}

/** Of a job, when it ends. @param {string} job @param {Options} [options] @returns {Promise<Transcription>} */
export async function followJob(job, options = {}) {
	for (;;) {
		const { data, retryAfter } = await call("GET", `transcriptions/${job}`, options);
		const { status, progress, transcript, error } = data;
		if (status === "failed") throw new StenoError(error.code, error.detail, { job });
		if (status === "completed") return fetchTranscript(job, options.responseFormat, options);
		options.onProgress?.({ phase: status === "processing" ? "transcribing" : "queued", ...progress, transcript, job });
		await pause(retryAfter || POLL_SECONDS, options.signal);
	}
}

/** Of a completed job. @param {string} job @param {Format} [format] @param {Access} [options] */
export async function fetchTranscript(job, format = "json", options = {}) {
	return result(await call("GET", `transcriptions/${job}/transcript?response_format=${format}`, options), job);
}

/** A failed one. @param {string} job @param {Access} [options] */
export const retryJob = (job, options = {}) => call("POST", `transcriptions/${job}/retry`, options);

/** Finished or not. @param {string} job @param {Access} [options] */
export const deleteJob = (job, options = {}) => call("DELETE", `transcriptions/${job}`, options);

/**
 * From the microphone. `stop()` and `finished` give the recording, or reject with `empty_recording` or `muted` (with the
 * `recording`). `onLevel` gets 0 to 1 ten times a second, `onChunk` each second's bytes.
 * @param {{onLevel?: (level: number) => void, onChunk?: (chunk: Blob) => void}} [options]
 */
export async function record({ onLevel, onChunk } = {}) {
	const stream = await microphone();
	const mimeType = ["audio/webm", "audio/mp4"].find((type) => MediaRecorder.isTypeSupported(type));
	const recorder = new MediaRecorder(stream, { mimeType, audioBitsPerSecond: 64_000 });
	const meter = listen(stream, onLevel);
	const chunks = [];
	recorder.ondataavailable = ({ data }) => {
		if (data.size) chunks.push(data), onChunk?.(data);
	};
	const finished = new Promise((stopped) => (recorder.onstop = stopped)).then(() => {
		for (const track of stream.getTracks()) track.stop();
		meter.end();
		const recording = new Blob(chunks, { type: recorder.mimeType || mimeType });
		if (!recording.size) throw new StenoError("empty_recording", "Nothing was recorded.");
		if (meter.heard === false) throw new StenoError("muted", "The microphone was muted.", { recording });
		return recording;
	});
	finished.catch(() => {});
	recorder.start(1000);
	return {
		finished,
		pause: () => recorder.pause(),
		resume: () => recorder.resume(),
		stop: () => (recorder.state === "inactive" || recorder.stop(), finished),
	};
}

async function microphone() {
	if (!navigator.mediaDevices) throw new StenoError("not_supported", "Only pages that come by https can record.");
	try {
		return await navigator.mediaDevices.getUserMedia({ audio: { sampleRate: 48_000 } }); // or WebKitGTK records nothing
	} catch ({ name, message }) {
		const known = {
			NotAllowedError: ["microphone_denied", "Allow this page the microphone."],
			NotFoundError: ["no_microphone", "Connect a microphone."],
		};
		throw new StenoError(...(known[name] ?? ["microphone_failed", `The microphone fails: ${message}`]));
	}
}

function listen(stream, onLevel) {
	const context = new AudioContext();
	const analyser = context.createAnalyser();
	const samples = new Float32Array(analyser.fftSize);
	context.createMediaStreamSource(stream).connect(analyser);
	const timer = setInterval(() => {
		if (context.state !== "running") return;
		analyser.getFloatTimeDomainData(samples);
		const power = samples.reduce((sum, sample) => sum + sample ** 2, 0) / samples.length;
		meter.heard ||= power > 0;
		onLevel?.(Math.min(1, Math.max(0, 1 + Math.log10(power) / 6))); // of 60 dB
	}, 100);
	const meter = { heard: undefined, end: () => (clearInterval(timer), context.close()) };
	return meter;
}

async function upload(recording, options) {
	const content_type = /^(audio|video)\//.test(recording.type) ? recording.type : "";
	const wanted = JSON.stringify({ filename: recording.name, content_type, size: recording.size, ...wishes(options) });
	// A form runs out in time.
	for (let renewed = false; ; renewed = true) {
		const { id, upload } = (await call("POST", "uploads", options, wanted)).data;
		try {
			await call("POST", upload.url, options, filled(upload.fields, recording), id);
			return await followJob(id, options);
		} catch (error) {
			if (renewed || error.status !== 403) throw error;
		}
	}
}

function wishes({ language, model, prompt, keywords, responseFormat: response_format }) {
	return { language, model, prompt, keywords, response_format };
}

function filled(fields, recording) {
	const form = new FormData();
	for (const name in fields) for (const item of [fields[name] ?? []].flat()) form.append(name, item);
	form.append("file", recording);
	return form;
}

function result({ text, data, model }, job = "") {
	return { ...(data ?? { transcript: text }), model, job };
}

/** XMLHttpRequest tells how much is sent. */
async function call(method, path, options, body = null, job = "", tries = DELAYS.length + 1) {
	const { token, signal } = options;
	const base = new URL(options.baseUrl ?? ".", import.meta.url).href.replace(/\/?$/, "/api/");
	const url = new URL(path, base).href;
	const tell = (phase, done, total = null) => options.onProgress?.({ phase, done, total, transcript: "", job });
	for (let tried = 1; ; tried++) {
		const request = new XMLHttpRequest();
		request.open(method, url);
		if (token && url.startsWith(base)) request.setRequestHeader("Authorization", `Bearer ${token}`);
		if (typeof body === "string") request.setRequestHeader("Content-Type", "application/json");
		else if (body) request.upload.onprogress = ({ loaded, total }) => tell("sending", loaded, total);
		const sent = until(signal, (done) => {
			request.onloadend = done;
			request.send(body);
		});
		await sent.catch((reason) => (request.abort(), Promise.reject(reason)));
		const header = (name) => request.getResponseHeader(name) ?? "";
		const text = request.responseText;
		const type = header("Content-Type");
		const status = type.includes("html") ? 0 : request.status; // a captive portal's
		const parse = () => (type.includes("json") ? JSON.parse(text) : null);
		const retryAfter = Number(header("Retry-After"));
		if (status && status < 300) return { status, text, data: parse(), model: header("Steno-Model"), retryAfter };
		const passing = [0, 503].includes(status) || (method === "GET" && [429, 502, 504].includes(status));
		if (!passing || tried >= tries) {
			if (!status) throw new StenoError("connection_lost", "The server cannot be reached from this page.");
			const fromBucket = { message: /<Message>(.*?)</.exec(text)?.[1] ?? text };
			const { code = `http_${status}`, detail, message } = parse() ?? fromBucket;
			throw new StenoError(code, detail || message || code, { status, job: header("Location").split("/").pop() });
		}
		if (!status) tell("offline", 0);
		await pause(retryAfter || DELAYS[tried - 1], signal);
	}
}

/** Or until the connection is back. */
function pause(seconds, signal) {
	return until(signal, (done, over) => {
		setTimeout(done, seconds * 1000);
		addEventListener("online", done, over);
	});
}

/** Until `begin` calls back; its listeners end then. */
function until(signal, begin) {
	signal?.throwIfAborted();
	const over = new AbortController();
	const waiting = new Promise((resolve, reject) => {
		signal?.addEventListener("abort", () => reject(signal.reason), over);
		begin(resolve, over);
	});
	return waiting.finally(() => over.abort());
}
