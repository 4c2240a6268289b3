// The recorder page. recorder.js records and transcribes, kept.js stores recordings in the browser.

import * as storage from "./kept.js";
import { deleteJob, followJob, record, retryJob, transcribe } from "./recorder.js";

const LANGUAGES = "ar bg ca cs da de el en es et fi fr he hi hr hu id it ja ko lt lv ms nl no pl pt ro ru sk sl sr sv th tr uk ur vi zh";
const CLOCK_MILLISECONDS = 200;
const SAVING_MILLISECONDS = 5000; // maximum wait for IndexedDB
// Messages by error code. They replace details written for developers.
const USER_MESSAGES = {
	unsupported_media:
		"This file is not a recording in a supported format." +
		" It may be a document, a picture or a web page." +
		" Choose an MP3, M4A, WAV, WebM, Ogg or FLAC file.",
};

const $ = (id) => document.getElementById(id);
/**
 * @type {{entry: object, blob: Blob | null, row: HTMLElement, progress?: object, offline?: boolean,
 *   error?: Error, controller?: AbortController}[]}
 */
let items = [];
let selected = null;
let recording = null;

// Sending and waiting

/** Runs an action, and shows its progress and any error. Returns whether it succeeded. */
async function run(item, action) {
	const controller = (item.controller = new AbortController());
	item.error = null;
	const options = {
		...access(),
		language: item.entry.language || undefined,
		responseFormat: item.entry.format,
		asJob: item.entry.format !== "json",
		signal: controller.signal,
		onProgress(progress) {
			item.offline = progress.phase === "offline";
			if (!item.offline) item.progress = progress;
			if (!item.offline && progress.phase !== "sending") saveJob(item, progress.job);
			draw(item);
		},
	};
	draw(item);
	try {
		await action(options);
		return true;
	} catch (error) {
		if (error.status === 401 && (await askForToken())) return await run(item, action);
		if (!controller.signal.aborted) setError(item, error);
		return false;
	} finally {
		item.progress = item.offline = item.controller = null;
		draw(item);
	}
}

async function transcribeItem(item, retrying = false) {
	const { entry } = item;
	if (entry.failed) {
		entry.failed = "";
		saveEntry(entry);
	}
	await run(item, async (options) => {
		const { transcript, model, job, segments } = await getTranscription(item, options, retrying);
		Object.assign(entry, { transcript, model }, job ? { job } : { segments });
		// If no speech was found, keep the recording for a retry.
		await (transcript ? storage.finish : storage.save)(entry).catch(onSaveError);
	});
}

/** Waits for the entry's job. If there is none, sends the recording. */
async function getTranscription({ entry, blob }, options, retrying) {
	if (retrying && entry.job)
		await retryJob(entry.job, options).catch((error) => {
			if (error.code === "not_failed") return; // the job is still running
			if (error.status !== 404 || !blob) throw error;
			entry.job = "";
		});
	return entry.job ? followJob(entry.job, options) : transcribe(blob, options);
}

function setError(item, error) {
	const { entry } = item;
	item.error = error;
	entry.job = error.job || entry.job;
	const isFinal = error.job || error.status === 404; // reloading would not help
	if (isFinal && entry.transcript === undefined) entry.failed = errorText(error);
	saveEntry(entry);
}

const errorText = (error) => USER_MESSAGES[error.code] ?? error.message;

function saveJob({ entry }, job) {
	if (!job || entry.job === job) return;
	entry.job = job;
	saveEntry(entry);
}

async function cancel(item) {
	const { entry, blob, progress, controller } = item;
	const isDone = Boolean(entry.transcript); // only subtitles can be in progress
	const job = progress?.job || (isDone ? "" : entry.job);
	if (job) entry.job = "";
	controller.abort();
	if (job) deleteJob(job, access()).catch((error) => error.status === 404 || showAlert(error));
	if (isDone || (blob && entry.recorded)) await saveEntry(entry);
	else await (blob ? storage.remove(entry).catch(() => {}) : remove(item));
}

async function remove(item) {
	item.controller?.abort();
	try {
		if (item.entry.job) await deleteJob(item.entry.job, access());
	} catch (error) {
		if (error.status !== 404) return showAlert(error);
	}
	await storage.remove(item.entry).catch(() => {});
	items = items.filter((other) => other !== item);
	item.row.remove();
	select(null);
	$("record").focus();
}

function addItem(blob, about) {
	const entry = {
		id: crypto.randomUUID?.() ?? String(Math.random()),
		created: Date.now(),
		language: $("language").value,
		format: $("subtitles").checked ? "verbose_json" : "json",
		job: "",
		...about,
	};
	const item = createItem(entry, blob);
	$("recent").querySelector("ul").prepend(item.row);
	select(item);
	return item;
}

/** Saves an entry, unless it is a file without a job, which the user still has. */
async function saveEntry(entry) {
	if (!entry.recorded && !entry.job && !entry.transcript) return;
	await storage.save(entry).catch(onSaveError);
}

let saveFailed = false;

function onSaveError(error) {
	saveFailed = true;
	showAlert(new Error(`This browser cannot store the recording. Do not close this page: ${error.message}`));
}

// Recording

$("record").onclick = async () => {
	showAlert();
	if (recording) return void recording.stop();
	$("record").disabled = true;
	try {
		await start();
	} catch (error) {
		showAlert(error);
	}
	$("record").disabled = false;
	$("record").focus();
};

async function start() {
	const entry = { name: `Recording of ${new Date().toLocaleString()}`, recorded: true };
	let saving = Promise.resolve();
	let item = null;
	recording = await record({
		onLevel: (level) => ($("level").value = level),
		onChunk(chunk) {
			if (!item) {
				item = addItem(null, { ...entry, type: chunk.type });
				navigator.locks?.request(item.entry.id, () => recording?.finished.catch(() => {}));
			}
			saving = saving
				.then(async () => storage.addChunk(item.entry, await chunk.arrayBuffer()))
				.catch(onSaveError)
				.then(() => saveEntry(item.entry));
		},
	});
	// Phones stop recording when they go to sleep.
	const wakeLock = await navigator.wakeLock?.request("screen").catch(() => null);
	const stopClock = runClock();
	drawRecorder();
	recording.finished
		.catch((error) => {
			if (item) item.error = error;
			else showAlert(error);
			return error.recording;
		})
		.then(async (blob) => {
			recording = null;
			stopClock();
			wakeLock?.release();
			drawRecorder();
			await Promise.race([saving, new Promise((resolve) => setTimeout(resolve, SAVING_MILLISECONDS))]);
			if (!item) return;
			item.blob = blob;
			if (item.error) draw(item); // if it is muted, the user decides whether to send it
			else transcribeItem(item);
		});
}

$("pause").onclick = () => {
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
		$("clock").textContent = `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
	}, CLOCK_MILLISECONDS);
	return () => clearInterval(timer);
}

function drawRecorder() {
	$("record").textContent = recording ? "Stop" : "Record";
	$("record").setAttribute("aria-pressed", String(Boolean(recording)));
	$("pause").textContent = recording?.paused ? "Resume" : "Pause";
	for (const id of ["pause", "clock", "level"]) $(id).hidden = !recording;
	if (recording) return;
	$("clock").textContent = "0:00";
	$("level").value = 0;
}

// Files

function addFiles(files) {
	showAlert();
	for (const file of files) transcribeItem(addItem(file, { name: file.name, type: file.type }));
}

$("file").onchange = ({ target }) => {
	addFiles(target.files);
	target.value = "";
};
document.ondragover = (event) => {
	event.preventDefault();
	$("drop").classList.add("over");
};
document.ondragleave = () => $("drop").classList.remove("over");
document.ondrop = (event) => {
	event.preventDefault();
	$("drop").classList.remove("over");
	addFiles(event.dataTransfer.files);
};

// Rendering

/** Creates an item and its row in the list. */
function createItem(entry, blob) {
	const row = document.createElement("li");
	const button = row.appendChild(document.createElement("button"));
	button.append(document.createElement("span"), document.createElement("small"));
	const item = { entry, blob, row };
	button.onclick = () => select(item);
	items.push(item);
	return item;
}

function select(item) {
	const previous = selected;
	selected = item;
	URL.revokeObjectURL($("sound").src);
	$("sound").pause();
	$("sound").removeAttribute("src");
	$("current").hidden = !item;
	$("recent").hidden = !items.length;
	if (previous) draw(previous);
	if (item) draw(item);
}

function draw(item) {
	const { entry, blob, row, progress, offline, error, controller } = item;
	const button = row.firstChild;
	button.firstChild.textContent = entry.name;
	button.lastChild.textContent = statusText(item);
	button.lastChild.classList.toggle("bad", Boolean(error));
	button.setAttribute("aria-current", String(item === selected));
	if (item !== selected) return;
	$("name").textContent = entry.name;
	$("status").textContent = statusText(item);
	$("status").classList.toggle("bad", Boolean(error));
	$("transcript").textContent = entry.transcript ?? progress?.transcript ?? "";
	$("transcript").hidden = !$("transcript").textContent;
	const sending = isSending(progress);
	drawBar("sent", sending && !offline, progress);
	drawBar("transcribed", controller && !sending && !offline, progress);
	if (blob && !$("sound").src) $("sound").src = URL.createObjectURL(blob);
	$("sound").hidden = !blob;
	const done = Boolean(entry.transcript);
	for (const id of ["copy", "txt"]) $(id).hidden = !done;
	const canHaveTimes = done && !controller && (entry.job || entry.segments || blob);
	for (const id of ["srt", "vtt"]) $(id).hidden = !canHaveTimes;
	$("again").hidden = done || Boolean(controller) || !(blob || entry.job);
	$("again").textContent = error ? "Try again" : "Send";
	$("cancel").hidden = !controller;
	$("delete").hidden = Boolean(controller) || (recording && !done && !blob && !error);
	if (document.activeElement.hidden) $("name").focus(); // the focused button was hidden
}

function drawBar(id, isOn, progress) {
	$(id).hidden = !isOn;
	if (!isOn) return;
	const { done, total } = progress?.phase === "sending" && id === "transcribed" ? {} : (progress ?? {});
	const bar = $(id).querySelector("progress");
	if (total) Object.assign(bar, { max: total, value: done });
	else bar.removeAttribute("value");
	$(id).querySelector("span").textContent = total ? `${Math.floor((100 * done) / total)} %` : "";
}

const isSending = (progress) => progress?.phase === "sending" && progress.done < progress.total;

function statusText({ entry, blob, progress, offline, error, controller }) {
	if (error) return errorText(error);
	const isStored = entry.recorded && !entry.transcript && !saveFailed;
	if (offline && isStored) return "No connection. Retrying; the recording is kept in this browser.";
	if (offline) return "No connection. Retrying …";
	if (controller && !progress) return "Starting …";
	if (isSending(progress)) return "Sending …";
	if (progress?.phase === "sending") return "Sent. Transcribing …";
	if (progress?.phase === "queued") return "Queued …";
	if (progress) return progress.total ? `${progress.done} of ${progress.total} parts transcribed` : "Transcribing …";
	if (entry.transcript === "") return "No speech found.";
	if (entry.transcript) return `Transcribed by ${entry.model}`;
	if (blob || !recording) return blob ? "Not sent yet" : "Not sent";
	return recording.paused ? "Paused" : "Recording …";
}

function showAlert(error = null) {
	$("alert").textContent = error?.message ?? "";
}

// Actions

$("copy").onclick = async () => {
	try {
		await navigator.clipboard.writeText(selected.entry.transcript);
		$("status").textContent = "Copied.";
	} catch {
		showAlert(new Error("Copying requires HTTPS. Select the text instead."));
	}
};
$("txt").onclick = () => download(selected, "txt", selected.entry.transcript);
for (const format of ["srt", "vtt"]) $(format).onclick = () => subtitles(selected, format);
$("again").onclick = () => {
	showAlert();
	transcribeItem(selected, true);
};
$("cancel").onclick = () => cancel(selected);
$("delete").onclick = () => remove(selected);

/** Saves subtitles. Without timestamps, asks before transcribing again. */
async function subtitles(item, format) {
	const { entry, blob } = item;
	if (item.controller) return;
	showAlert();
	let text = null;
	const fromJob = async (options) => {
		const result = await followJob(entry.job, { ...options, responseFormat: format });
		text = result.transcript;
	};
	const transcribeAgain = async (options) => {
		const { job, segments } = await getTranscription(item, options, true);
		Object.assign(entry, job ? { job } : { segments });
		await saveEntry(entry);
		if (job) await fromJob(options);
		else text = toSubtitles(segments, format);
	};
	if (entry.job && !(await run(item, fromJob))) {
		const isGone = item.error?.status === 404;
		if (isGone) entry.job = "";
		draw(item);
		if (!item.error?.job && !(isGone && (blob || entry.segments))) return;
	}
	if (text === null && entry.segments) text = toSubtitles(entry.segments, format);
	if (text === null && (await openDialog($("billing")))) {
		entry.format = "verbose_json";
		await run(item, transcribeAgain);
	}
	if (text !== null) download(item, format, text);
}

/** Renders segments as SRT or WebVTT, for servers without jobs. */
function toSubtitles(segments, format) {
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

// Dialogs

/** Returns false if the user cancels the dialog. */
function openDialog(dialog) {
	dialog.returnValue = "";
	dialog.showModal();
	return new Promise((resolve) => {
		dialog.onclose = () => resolve(Boolean(dialog.returnValue));
	});
}

$("pay").onclick = () => $("billing").close("yes");
$("refuse").onclick = () => $("billing").close();

const access = () => ({ token: localStorage.getItem("token") ?? undefined });

let tokenDialog = null;

/** Returns whether the user entered a token. All callers share one dialog. */
function askForToken() {
	tokenDialog ??= openDialog($("access")).finally(() => (tokenDialog = null));
	return tokenDialog;
}

$("access").querySelector("form").onsubmit = (event) => {
	event.preventDefault();
	localStorage.setItem("token", $("token").value.replace(/[^ -~]/g, "").trim());
	$("token").value = "";
	$("access").close("yes");
};

// Start

for (const code of LANGUAGES.split(" ")) {
	const name = new Intl.DisplayNames(undefined, { type: "language" }).of(code);
	$("language").append(new Option(name, code));
}
addEventListener("beforeunload", (event) => {
	const hasUnsaved = items.some(({ entry, controller }) =>
		entry.recorded ? saveFailed && entry.transcript === undefined : controller && !entry.job,
	);
	if (recording || hasUnsaved) event.preventDefault();
});

const isUnfinished = ({ entry }) => entry.transcript === undefined && !entry.failed;
const locked = (await navigator.locks?.query())?.held.map(({ name }) => name);
for (const entry of await storage.entries().catch(() => [])) {
	if (locked?.includes(entry.id)) continue; // another tab is recording it
	const item = createItem(entry, entry.transcript ? null : await storage.loadRecording(entry).catch(() => null));
	if (entry.failed) item.error = new Error(entry.failed);
	$("recent").querySelector("ul").append(item.row);
	draw(item);
	if (isUnfinished(item) && entry.job) transcribeItem(item);
}
select(items.find(isUnfinished) ?? null);
document.body.dataset.ready = "";
