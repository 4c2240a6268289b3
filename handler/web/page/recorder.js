/**
 * Steno's client for browsers. It records audio and transcribes recordings of any size.
 *
 *     const { transcript } = await transcribe(await (await record()).stop(), { token });
 *
 * `baseUrl` defaults to the server of this module. `signal` stops waiting, but not the job. `asJob` creates a job
 * even for a small recording. Progress is measured in bytes while sending, then in parts of
 * `duration` seconds of sound.
 *
 * @typedef {"json" | "text" | "srt" | "vtt" | "verbose_json"} Format
 * @typedef {{baseUrl?: string, token?: string, signal?: AbortSignal}} Access
 * @typedef {{language?: string, model?: string, prompt?: string, keywords?: string[], responseFormat?: Format}} Wishes
 * @typedef {{phase: "sending" | "queued" | "transcribing" | "offline", done: number, total: number | null, transcript: string, job: string, duration?: number | null}} Progress
 * @typedef {Access & Wishes & {asJob?: boolean, onProgress?: (progress: Progress) => void}} Options
 * @typedef {{transcript: string, model: string, job: string, segments?: any[], duration?: number}} Transcription
 */

const DELAYS = [1, 2, 4, 8, 15, 30, 30, 30]; // seconds between attempts
const POLL_SECONDS = 2;

/** `code` is for programs, `detail` for people. `status` is 0 if there is no response. */
export class StenoError extends Error {
	status = 0;
	job = "";
	constructor(code = "", detail = "", fields = {}) {
		super(detail);
		Object.assign(this, fields, { name: "StenoError" });
		this.code = code;
		this.detail = detail;
	}
}

/**
 * Transcribes a recording. Retries for two minutes if the connection is lost.
 * Rejects with a StenoError or the signal's reason.
 * @param {Blob} recording @param {Options} [options] @returns {Promise<Transcription>}
 */
export async function transcribe(recording, options = {}) {
	if (!recording.size) throw new StenoError("empty_recording", "The recording is empty.");
	const { direct_max_bytes: direct, upload_max_bytes: uploads } = (await call("GET", "config", options)).data;
	const max = uploads ?? direct;
	if (recording.size > max) throw new StenoError("recording_too_large", `The recording is larger than ${max} bytes.`);
	if (recording.size > direct || (options.asJob && uploads)) return upload(recording, options);
	// A server without uploads may bill a retry.
	const tries = uploads ? undefined : 1;
	const response = await call("POST", "transcribe", options, toForm(toBody(options), recording), "", tries);
	return response.status === 202 ? followJob(response.data.id, options) : toResult(response);
}

/** Waits for a job. @param {string} job @param {Options} [options] @returns {Promise<Transcription>} */
export async function followJob(job, options = {}) {
	for (;;) {
		const { data, retryAfter } = await call("GET", `transcriptions/${job}`, options);
		const { status, progress, transcript, duration, error } = data;
		if (status === "failed") throw new StenoError(error.code, error.detail, { job });
		if (status === "completed") return fetchTranscript(job, options.responseFormat, options);
		const phase = status === "processing" ? "transcribing" : "queued";
		options.onProgress?.({ phase, ...progress, transcript, job, duration });
		await pause(retryAfter || POLL_SECONDS, options.signal);
	}
}

/** Gets the transcript of a job. @param {string} job @param {Format} [format] @param {Access} [options] */
export const fetchTranscript = async (job, format = "json", options = {}) =>
	toResult(await call("GET", `transcriptions/${job}/transcript?response_format=${format}`, options), job);

/** Retries a failed job. @param {string} job @param {Access} [options] */
export const retryJob = (job, options = {}) => call("POST", `transcriptions/${job}/retry`, options);

/** Deletes a job. @param {string} job @param {Access} [options] */
export const deleteJob = (job, options = {}) => call("DELETE", `transcriptions/${job}`, options);

/**
 * Records from the microphone. `stop()` and `finished` resolve with the recording, or reject with `empty_recording`
 * or `muted` (with the `recording`). `onLevel` gets a level from 0 to 1, `onChunk` a Blob twice per second.
 * @param {{onLevel?: (level: number) => void, onChunk?: (chunk: Blob) => void}} [options]
 */
export async function record({ onLevel, onChunk } = {}) {
	const stream = await microphone();
	// Firefox cannot seek in its own WebM recordings, because they have no index. It can seek in Ogg.
	const types = ["audio/ogg", "audio/webm", "audio/mp4"];
	const mimeType = types.find((type) => MediaRecorder.isTypeSupported(type));
	const recorder = new MediaRecorder(stream, { mimeType, audioBitsPerSecond: 64_000 });
	const meter = measure(stream, onLevel);
	const chunks = [];
	recorder.ondataavailable = ({ data }) => {
		if (data.size) chunks.push(data), onChunk?.(data);
	};
	const finished = new Promise((resolve) => (recorder.onstop = resolve)).then(() => {
		for (const track of stream.getTracks()) track.stop();
		meter.end();
		const recording = new Blob(chunks, { type: recorder.mimeType || mimeType });
		if (!recording.size) throw new StenoError("empty_recording", "Nothing was recorded.");
		if (meter.hasSound === false) throw new StenoError("muted", "The microphone was muted.", { recording });
		return recording;
	});
	finished.catch(() => {});
	recorder.start(500);
	return {
		finished,
		pause: () => recorder.pause(),
		resume: () => recorder.resume(),
		stop: () => (recorder.state === "inactive" || recorder.stop(), finished),
	};
}

async function microphone() {
	if (!navigator.mediaDevices) throw new StenoError("not_supported", "Recording requires HTTPS.");
	try {
		return await navigator.mediaDevices.getUserMedia({ audio: { sampleRate: 48_000 } }); // required by WebKitGTK
	} catch ({ name, message }) {
		const errors = {
			NotAllowedError: ["microphone_denied", "Allow microphone access for this page."],
			NotFoundError: ["no_microphone", "No microphone found. Connect one."],
		};
		throw new StenoError(...(errors[name] ?? ["microphone_failed", `The microphone failed: ${message}`]));
	}
}

function measure(stream, onLevel) {
	const context = new AudioContext();
	const analyser = context.createAnalyser();
	const samples = new Float32Array(analyser.fftSize);
	context.createMediaStreamSource(stream).connect(analyser);
	const timer = setInterval(() => {
		if (context.state !== "running") return;
		analyser.getFloatTimeDomainData(samples);
		const power = samples.reduce((sum, sample) => sum + sample ** 2, 0) / samples.length;
		meter.hasSound ||= power > 0;
		onLevel?.(Math.min(1, Math.max(0, 1 + Math.log10(power) / 6))); // a range of 60 dB
	}, 100);
	const meter = { hasSound: undefined, end: () => (clearInterval(timer), context.close()) };
	return meter;
}

async function upload(recording, options) {
	const content_type = /^(audio|video)\//.test(recording.type) ? recording.type : "";
	const body = JSON.stringify({ filename: recording.name, content_type, size: recording.size, ...toBody(options) });
	// If the form has expired (403, or 400 if its AWS session has expired), get another.
	for (let renewed = false; ; renewed = true) {
		const { id, upload } = (await call("POST", "uploads", options, body)).data;
		try {
			await call("POST", upload.url, options, toForm(upload.fields, recording), id);
			return await followJob(id, options);
		} catch (error) {
			if (renewed || !(error.status === 403 || /expired/i.test(error.detail))) throw error;
		}
	}
}

const toBody = ({ language, model, prompt, keywords, responseFormat: response_format }) =>
	({ language, model, prompt, keywords, response_format });

function toForm(fields, recording) {
	const form = new FormData();
	for (const name in fields) for (const item of [fields[name] ?? []].flat()) form.append(name, item);
	form.append("file", recording);
	return form;
}

const toResult = ({ text, data, model }, job = "") => ({ ...(data ?? { transcript: text }), model, job });

/** Unlike fetch, XMLHttpRequest reports upload progress. */
async function call(method, path, options, body = null, job = "", tries = DELAYS.length + 1) {
	const { token, signal } = options;
	const base = new URL(options.baseUrl ?? ".", import.meta.url).href.replace(/\/?$/, "/api/");
	const url = new URL(path, base).href;
	const report = (phase, done, total = null) => options.onProgress?.({ phase, done, total, transcript: "", job });
	for (let tried = 1; ; tried++) {
		const request = new XMLHttpRequest();
		request.open(method, url);
		if (token && url.startsWith(base)) request.setRequestHeader("Authorization", `Bearer ${token}`);
		if (typeof body === "string") request.setRequestHeader("Content-Type", "application/json");
		else if (body) request.upload.onprogress = ({ loaded, total }) => report("sending", loaded, total);
		await when(signal, (done) => {
			request.onloadend = done;
			request.send(body);
		}).catch((reason) => (request.abort(), Promise.reject(reason)));
		// A page may read only the type of the bucket's responses.
		const readable = (name) => url.startsWith(base) || name === "Content-Type";
		const header = (name) => (readable(name) && request.getResponseHeader(name)) || "";
		const text = request.responseText;
		const type = header("Content-Type");
		const status = type.includes("html") ? 0 : request.status; // captive portals send HTML
		const parse = () => (type.includes("json") ? JSON.parse(text) : null);
		const retryAfter = Number(header("Retry-After"));
		if (status && status < 300) return { status, text, data: parse(), model: header("Steno-Model"), retryAfter };
		if (!status && (await isForeign(base))) {
			const remedy = "Add this origin to ALLOWED_ORIGINS, or open the page from an allowed origin.";
			const detail = `The server does not allow pages from ${location.origin}. ${remedy}`;
			throw new StenoError("origin_not_allowed", detail);
		}
		const s3Error = { message: /<Message>(.*?)</.exec(text)?.[1] ?? text };
		const { code, detail, message } = (status && parse()) || s3Error;
		const throttled = status === 429 && !code; // by API Gateway, before Steno received the request
		const retryable = method === "GET" ? [0, 429, 502, 503, 504] : [0, 503];
		if (!(throttled || retryable.includes(status)) || tried >= tries) {
			if (!status) throw new StenoError("connection_lost", "The server cannot be reached from this page.");
			const fields = { status, job: header("Location").split("/").pop() };
			throw new StenoError(code ?? `http_${status}`, detail || message || `HTTP status ${status}`, fields);
		}
		if (!status) report("offline", 0);
		await pause(retryAfter || DELAYS[tried - 1], signal);
	}
}

/** Returns whether the server can be reached, but does not allow the origin of this page. */
async function isForeign(base) {
	const succeeds = (mode) =>
		fetch(`${base}health`, { mode, signal: AbortSignal.timeout(5000) }).then(Boolean, () => false);
	return !(await succeeds("cors")) && (await succeeds("no-cors")) && !(await succeeds("cors"));
}

/** Waits for `seconds`, or until the browser is online. */
const pause = (seconds, signal) =>
	when(signal, (done, cleanup) => {
		setTimeout(done, seconds * 1000);
		addEventListener("online", done, cleanup);
	});

/** Resolves when `start` calls its callback. Rejects on abort. */
function when(signal, start) {
	signal?.throwIfAborted();
	const cleanup = new AbortController();
	const promise = new Promise((resolve, reject) => {
		signal?.addEventListener("abort", () => reject(signal.reason), cleanup);
		start(resolve, cleanup);
	});
	return promise.finally(() => cleanup.abort());
}
