// The recorder page: what is on it, and what its buttons do. It sends and records by recorder.js, and keeps by kept.js.

import * as kept from "./kept.js";
import { deleteJob, followJob, record, retryJob, transcribe } from "./recorder.js";

const LANGUAGES = "ar bg ca cs da de el en es et fi fr he hi hr hu id it ja ko lt lv ms nl no pl pt ro ru sk sl sr sv th tr uk ur vi zh";
const CLOCK_MILLISECONDS = 200;
const SAVING_MILLISECONDS = 5000; // beyond which the browser has given up
// Instead of details that are written for programmers, by the error's code.
const IN_WORDS = {
	unsupported_media:
		"This file is not a recording that this server can read. Perhaps it is a document," +
		" a picture or a web page, with no audio or video in it." +
		" Choose an MP3, M4A, WAV, WebM, Ogg or FLAC file.",
};

/** By its id in the document. */
const at = (id) => document.getElementById(id);
/**
 * @type {{entry: object, blob: Blob | null, row: HTMLElement, progress?: object, offline?: boolean,
 *   error?: Error, ends?: AbortController}[]}
 */
let items = [];
let shown = null;
let recording = null;

// Sending and waiting

/** Runs an action with the item's progress, Cancel button and error; whether it succeeded. */
async function run(item, action) {
	const ends = (item.ends = new AbortController());
	item.error = null;
	const options = {
		...access(),
		language: item.entry.language || undefined,
		responseFormat: item.entry.format,
		asJob: item.entry.format !== "json",
		signal: ends.signal,
		onProgress(progress) {
			item.offline = progress.phase === "offline";
			if (!item.offline) item.progress = progress;
			if (!item.offline && progress.phase !== "sending") keepJob(item, progress.job);
			draw(item);
		},
	};
	draw(item);
	try {
		await action(options);
		return true;
	} catch (error) {
		if (error.status === 401 && (await askForToken())) return await run(item, action);
		if (!ends.signal.aborted) fail(item, error);
		return false;
	} finally {
		item.progress = item.offline = item.ends = null;
		draw(item);
	}
}

async function work(item, retrying = false) {
	const { entry } = item;
	if (entry.failed) {
		entry.failed = "";
		keep(entry);
	}
	await run(item, async (options) => {
		const { transcript, model, job, segments } = await transcription(item, options, retrying);
		Object.assign(entry, { transcript, model }, job ? { job } : { segments });
		// Where no words were heard, somebody may want to try again.
		await (transcript ? kept.finish : kept.save)(entry).catch(unkept);
	});
}

/** By the entry's job, or by a new one. */
async function transcription({ entry, blob }, options, retrying) {
	if (retrying && entry.job)
		await retryJob(entry.job, options).catch((error) => {
			if (error.code === "not_failed") return; // only its answers were lost
			if (error.status !== 404 || !blob) throw error;
			entry.job = "";
		});
	return entry.job ? followJob(entry.job, options) : transcribe(blob, options);
}

function fail(item, error) {
	const { entry } = item;
	item.error = error;
	entry.job = error.job || entry.job;
	const isFinal = error.job || error.status === 404; // the next visit would get it again
	if (isFinal && entry.transcript === undefined) entry.failed = inWords(error);
	keep(entry);
}

const inWords = (error) => IN_WORDS[error.code] ?? error.message;

function keepJob({ entry }, job) {
	if (!job || entry.job === job) return;
	entry.job = job;
	keep(entry);
}

async function cancel(item) {
	const { entry, blob, progress, ends } = item;
	const isDone = Boolean(entry.transcript); // only its subtitles are being made
	const job = progress?.job || (isDone ? "" : entry.job);
	if (job) entry.job = "";
	ends.abort();
	if (job) deleteJob(job, access()).catch((error) => error.status === 404 || tell(error));
	if (isDone || (blob && entry.recorded)) await keep(entry);
	else await (blob ? kept.remove(entry).catch(() => {}) : remove(item));
}

async function remove(item) {
	item.ends?.abort();
	try {
		if (item.entry.job) await deleteJob(item.entry.job, access());
	} catch (error) {
		if (error.status !== 404) return tell(error);
	}
	await kept.remove(item.entry).catch(() => {});
	items = items.filter((other) => other !== item);
	item.row.remove();
	show(null);
	at("record").focus();
}

function add(blob, about) {
	const entry = {
		id: crypto.randomUUID?.() ?? String(Math.random()),
		created: Date.now(),
		language: at("language").value,
		format: at("subtitles").checked ? "verbose_json" : "json",
		job: "",
		...about,
	};
	const item = list(entry, blob);
	at("recent").querySelector("ul").prepend(item.row);
	show(item);
	return item;
}

/** Files stay where they are, and are kept by their jobs alone; what was recorded here is nowhere else. */
async function keep(entry) {
	if (!entry.recorded && !entry.job && !entry.transcript) return;
	await kept.save(entry).catch(unkept);
}

let losing = false;

function unkept(error) {
	losing = true;
	tell(new Error(`This browser keeps nothing, so do not leave: ${error.message}`));
}

// Recording

at("record").onclick = async () => {
	tell();
	if (recording) return void recording.stop();
	at("record").disabled = true;
	try {
		await start();
	} catch (error) {
		tell(error);
	}
	at("record").disabled = false;
	at("record").focus();
};

async function start() {
	const entry = { name: `Recording of ${new Date().toLocaleString()}`, recorded: true };
	let saving = Promise.resolve();
	let item = null;
	recording = await record({
		onLevel: (level) => (at("level").value = level),
		onChunk(chunk) {
			if (!item) {
				item = add(null, { ...entry, type: chunk.type });
				navigator.locks?.request(item.entry.id, () => recording?.finished.catch(() => {}));
			}
			saving = saving
				.then(async () => kept.addChunk(item.entry, await chunk.arrayBuffer()))
				.catch(unkept)
				.then(() => keep(item.entry));
		},
	});
	// A phone that falls asleep stops recording.
	const awake = await navigator.wakeLock?.request("screen").catch(() => null);
	const stopClock = runClock();
	drawRecorder();
	recording.finished
		.catch((error) => {
			if (item) item.error = error;
			else tell(error);
			return error.recording;
		})
		.then(async (blob) => {
			recording = null;
			stopClock();
			awake?.release();
			drawRecorder();
			await Promise.race([saving, new Promise((goOn) => setTimeout(goOn, SAVING_MILLISECONDS))]);
			if (!item) return;
			item.blob = blob;
			if (item.error) draw(item); // a muted one waits for its owner's word
			else work(item);
		});
}

at("pause").onclick = () => {
	recording.paused = !recording.paused;
	if (recording.paused) recording.pause();
	else recording.resume();
	drawRecorder();
	items.forEach(draw);
};

function runClock() {
	let seconds = 0;
	let last = performance.now();
	const timer = setInterval(() => {
		const now = performance.now();
		if (!recording?.paused) seconds += (now - last) / 1000;
		last = now;
		at("clock").textContent = `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
	}, CLOCK_MILLISECONDS);
	return () => clearInterval(timer);
}

function drawRecorder() {
	at("record").textContent = recording ? "Stop" : "Record";
	at("record").setAttribute("aria-pressed", String(Boolean(recording)));
	at("pause").textContent = recording?.paused ? "Go on" : "Pause";
	for (const id of ["pause", "clock", "level"]) at(id).hidden = !recording;
	if (recording) return;
	at("clock").textContent = "0:00";
	at("level").value = 0;
}

// Files

function take(files) {
	tell();
	for (const file of files) work(add(file, { name: file.name, type: file.type }));
}

at("file").onchange = ({ target }) => {
	take(target.files);
	target.value = "";
};
document.ondragover = (event) => {
	event.preventDefault();
	at("drop").classList.add("over");
};
document.ondragleave = () => at("drop").classList.remove("over");
document.ondrop = (event) => {
	event.preventDefault();
	at("drop").classList.remove("over");
	take(event.dataTransfer.files);
};

// What is shown

/** A new item, with its row in the list. */
function list(entry, blob) {
	const row = document.createElement("li");
	const button = row.appendChild(document.createElement("button"));
	button.append(document.createElement("span"), document.createElement("small"));
	const item = { entry, blob, row };
	button.onclick = () => show(item);
	items.push(item);
	return item;
}

function show(item) {
	const before = shown;
	shown = item;
	URL.revokeObjectURL(at("sound").src);
	at("sound").pause();
	at("sound").removeAttribute("src");
	at("current").hidden = !item;
	at("recent").hidden = !items.length;
	if (before) draw(before);
	if (item) draw(item);
}

function draw(item) {
	const { entry, blob, row, progress, offline, error, ends } = item;
	const button = row.firstChild;
	button.firstChild.textContent = entry.name;
	button.lastChild.textContent = state(item);
	button.lastChild.classList.toggle("bad", Boolean(error));
	button.setAttribute("aria-current", String(item === shown));
	if (item !== shown) return;
	at("name").textContent = entry.name;
	at("status").textContent = state(item);
	at("status").classList.toggle("bad", Boolean(error));
	at("transcript").textContent = entry.transcript ?? progress?.transcript ?? "";
	at("transcript").hidden = !at("transcript").textContent;
	const sending = isSending(progress);
	drawBar("sent", sending && !offline, progress);
	drawBar("heard", ends && !sending && !offline, progress);
	if (blob && !at("sound").src) at("sound").src = URL.createObjectURL(blob);
	at("sound").hidden = !blob;
	const done = Boolean(entry.transcript);
	for (const id of ["copy", "txt"]) at(id).hidden = !done;
	const canHaveTimes = done && !ends && (entry.job || entry.segments || blob);
	for (const id of ["srt", "vtt"]) at(id).hidden = !canHaveTimes;
	at("again").hidden = done || Boolean(ends) || !(blob || entry.job);
	at("again").textContent = error ? "Try again" : "Send";
	at("cancel").hidden = !ends;
	at("delete").hidden = Boolean(ends) || (recording && !done && !blob && !error);
	if (document.activeElement.hidden) at("name").focus(); // where a button went that was just pressed
}

function drawBar(id, isOn, progress) {
	at(id).hidden = !isOn;
	if (!isOn) return;
	const { done, total } = progress?.phase === "sending" && id === "heard" ? {} : (progress ?? {});
	const bar = at(id).querySelector("progress");
	if (total) Object.assign(bar, { max: total, value: done });
	else bar.removeAttribute("value");
	at(id).querySelector("span").textContent = total ? `${Math.floor((100 * done) / total)} %` : "";
}

const isSending = (progress) => progress?.phase === "sending" && progress.done < progress.total;

/** One sentence. */
function state({ entry, blob, progress, offline, error, ends }) {
	if (error) return inWords(error);
	const isKept = entry.recorded && !entry.transcript && !losing;
	if (offline && isKept) return "No connection. Retrying; the recording is kept in this browser.";
	if (offline) return "No connection. Retrying …";
	if (ends && !progress) return "Starting …";
	if (isSending(progress)) return "Sending …";
	if (progress?.phase === "sending") return "Sent; the words are on their way …";
	if (progress?.phase === "queued") return "Waiting for its turn …";
	if (progress) return progress.total ? `${progress.done} of ${progress.total} parts are heard` : "Listening …";
	if (entry.transcript === "") return "Nobody speaks in it.";
	if (entry.transcript) return `Transcribed by ${entry.model}`;
	if (blob || !recording) return blob ? "Not sent yet" : "Not sent";
	return recording.paused ? "Paused" : "Recording …";
}

function tell(error = null) {
	at("alert").textContent = error?.message ?? "";
}

// What can be done with a transcript

at("copy").onclick = async () => {
	try {
		await navigator.clipboard.writeText(shown.entry.transcript);
		at("status").textContent = "Copied.";
	} catch {
		tell(new Error("This browser copies on pages that come by https only: select the text."));
	}
};
at("txt").onclick = () => download(shown, "txt", shown.entry.transcript);
for (const format of ["srt", "vtt"]) at(format).onclick = () => subtitles(shown, format);
at("again").onclick = () => {
	tell();
	work(shown, true);
};
at("cancel").onclick = () => cancel(shown);
at("delete").onclick = () => remove(shown);

/** Saves subtitles. Without times, asks first, as the recording is transcribed once more. */
async function subtitles(item, format) {
	const { entry, blob } = item;
	if (item.ends) return;
	tell();
	let text = null;
	const fromJob = async (options) => {
		const made = await followJob(entry.job, { ...options, responseFormat: format });
		text = made.transcript;
	};
	const again = async (options) => {
		const { job, segments } = await transcription(item, options, true);
		Object.assign(entry, job ? { job } : { segments });
		await keep(entry);
		if (job) await fromJob(options);
		else text = written(segments, format);
	};
	if (entry.job && !(await run(item, fromJob))) {
		const isGone = item.error?.status === 404;
		if (isGone) entry.job = "";
		draw(item);
		if (!item.error?.job && !(isGone && (blob || entry.segments))) return;
	}
	if (text === null && entry.segments) text = written(entry.segments, format);
	if (text === null && (await ask(at("billing")))) {
		entry.format = "verbose_json";
		await run(item, again);
	}
	if (text !== null) download(item, format, text);
}

/** The segments as SRT or WebVTT, for servers that keep no jobs. */
function written(segments, format) {
	const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 23);
	const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
	const cues = segments.map(({ start, end, text }, number) => {
		const times = `${clock(start)} --> ${clock(end)}`;
		const line = text.replace(/\s+/g, " ").trim();
		if (format === "vtt") return `${times}\n${escape(line)}\n`;
		return `${number + 1}\n${times.replaceAll(".", ",")}\n${line}\n`;
	});
	return (format === "vtt" ? "WEBVTT\n\n" : "") + cues.join("\n");
}

function download({ entry }, extension, text) {
	const link = document.createElement("a");
	link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
	link.download = `${entry.name.replace(/\.\w+$/, "").replace(/[/\\:]/g, "-")}.${extension}`;
	link.click();
	setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// What a person is asked

/** Whether the dialog was answered, and not left. */
function ask(dialog) {
	dialog.returnValue = "";
	dialog.showModal();
	return new Promise((resolve) => {
		dialog.onclose = () => resolve(Boolean(dialog.returnValue));
	});
}

at("pay").onclick = () => at("billing").close("yes");
at("refuse").onclick = () => at("billing").close();

const access = () => ({ token: localStorage.getItem("token") ?? undefined });

let asking = null;

/** Whether one was given; all who need it wait for the same answer. */
function askForToken() {
	asking ??= ask(at("access")).finally(() => (asking = null));
	return asking;
}

at("access").querySelector("form").onsubmit = (event) => {
	event.preventDefault();
	localStorage.setItem("token", at("token").value.replace(/[^ -~]/g, "").trim());
	at("token").value = "";
	at("access").close("given");
};

// The beginning

for (const code of LANGUAGES.split(" ")) {
	const name = new Intl.DisplayNames(undefined, { type: "language" }).of(code);
	at("language").append(new Option(name, code));
}
addEventListener("beforeunload", (event) => {
	const only = items.some(({ entry, ends }) => entry.recorded ? losing && entry.transcript === undefined : ends && !entry.job);
	if (recording || only) event.preventDefault();
});

const isUnfinished = ({ entry }) => entry.transcript === undefined && !entry.failed;
const elsewhere = (await navigator.locks?.query())?.held.map(({ name }) => name);
for (const entry of await kept.entries().catch(() => [])) {
	if (elsewhere?.includes(entry.id)) continue; // another tab records it
	const item = list(entry, entry.transcript ? null : await kept.recording(entry).catch(() => null));
	if (entry.failed) item.error = new Error(entry.failed);
	at("recent").querySelector("ul").append(item.row);
	draw(item);
	if (isUnfinished(item) && entry.job) work(item);
}
show(items.find(isUnfinished) ?? null);
document.body.dataset.ready = "";
