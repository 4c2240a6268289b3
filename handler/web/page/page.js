// The recorder page: connects the list, the transcript, the player, the recorder and the server.

import { chosenOptions, confirmAgain } from "./dialogs.js";
import { audioExtension, download, toJson, toSubtitles, transcriptText } from "./exports.js";
import {
	$, changed, clock, dateTime, isRecording, isUnfinished, loadAudio, onChange, onSaveError, save, showAlert, state,
} from "./items.js";
import * as storage from "./kept.js";
import { createRow, drawList, drawRow, query } from "./list.js";
import { hold, startRecording, togglePause } from "./microphone.js";
import { isLoaded, loadPlayer, seek, skip, togglePlay } from "./player.js";
import { cancel, purge, transcribeItem } from "./sending.js";
import { amountText, errorText, isSending, rejectsKeywords, statusText } from "./status.js";
import { drawTranscript, markSpoken } from "./transcript.js";

const UNDO_MILLISECONDS = 15_000;
const SAVE_EDIT_MILLISECONDS = 300;
const SKIP_SECONDS = 5;
const AGAIN =
	"The recording is sent again, and may be billed again. The new text replaces the present text and your changes.";
const NEEDS_TIMES =
	"Subtitles require times, which this transcript does not have." +
	" To get them, the recording must be transcribed again, and may be billed again.";

let isEditing = false;

// Items

function addItem(about) {
	const entry = {
		id: crypto.randomUUID?.() ?? String(Math.random()),
		created: Date.now(),
		job: "",
		...chosenOptions(),
		...about,
	};
	const item = { entry, blob: null };
	state.items.unshift(item);
	$("recent").prepend(createRow(item, () => open(item)));
	return item;
}

/** Selects an item. On phones, this does not leave the list. */
function select(item) {
	const previous = state.selected;
	state.selected = item;
	setEditing(false);
	$("rename-form").hidden = true;
	$("name").hidden = false;
	if (previous) drawRow(previous);
	draw();
	if (item) loadAudio(item).then(() => item === state.selected && draw());
}

/** Selects an item, and shows it on phones. */
function open(item) {
	select(item);
	show("item");
	$("detail").scrollTo?.(0, 0);
	if (getComputedStyle($("library")).display === "none") $("name").focus();
}

function show(view) {
	const isEmpty = !state.recording && !visibleItems().length;
	document.body.dataset.view = isEmpty ? "empty" : view;
}

const visibleItems = () => state.items.filter(({ entry }) => !entry.deleted);

$("back").onclick = () => {
	show("list");
	$("recent").querySelector("[aria-current=true]")?.focus();
};

// Drawing

onChange((item) => {
	drawRow(item);
	if (item === state.selected) draw();
});

function draw() {
	const item = state.selected;
	const isStarting = Boolean(state.recording) && !state.recording.item;
	const isOn = isStarting || (item && isRecording(item));
	$("current").hidden = !item && !isStarting;
	$("welcome").hidden = !$("current").hidden;
	$("recorder").hidden = !isOn;
	$("welcome-title").textContent = visibleItems().length ? "Choose a recording from the list" : "Turn speech into text";
	if (isStarting) drawStarting();
	if (!item) return loadPlayer(null);
	drawHead(item);
	drawState(item);
	drawText(item);
	drawTools(item, isOn);
	loadPlayer(isOn ? null : item.blob, item.entry.duration, {
		onTime: markSpoken,
		onDuration: (seconds) => setDuration(item, seconds),
	});
	if (document.activeElement?.hidden) $("name").focus(); // the focused button was hidden
}

/** Draws the moment before the first chunk of a recording arrives. */
function drawStarting() {
	$("name").textContent = "New recording";
	$("about").textContent = "";
	$("status").textContent = state.recording.paused ? "Paused" : "Recording …";
	$("status").className = "";
	for (const id of ["tools", "work", "again", "without-keywords", "cancel", "transcript"]) $(id).hidden = true;
}

function drawHead({ entry }) {
	if ($("name").textContent !== entry.name) $("name").textContent = entry.name;
	$("about").textContent = [dateTime(entry.created), entry.duration ? clock(entry.duration) : ""]
		.filter(Boolean)
		.join(" · ");
}

function drawState(item) {
	const { error, offline, progress, controller } = item;
	const text = statusText(item);
	if ($("status").textContent !== text) $("status").textContent = text;
	$("status").className = error ? "bad" : offline ? "warn" : "";
	$("work").hidden = !controller || offline;
	$("amount").textContent = amountText(item);
	const isMeasured = progress?.total && !(progress.phase === "sending" && !isSending(progress));
	if (isMeasured) Object.assign($("bar"), { max: progress.total, value: progress.done });
	else $("bar").removeAttribute("value");
}

function drawText(item) {
	drawTranscript(item.entry, {
		partial: item.progress?.transcript,
		editing: isEditing,
		wanted: query(),
		onSeek: (seconds, play) => isLoaded() && seek(seconds, play),
		onEdit: (change) => edit(item, change),
	});
}

function drawTools(item, isOn) {
	const { entry, blob, error, controller, storing } = item;
	const done = Boolean(entry.transcript);
	const isBusy = Boolean(controller) || storing;
	for (const id of ["copy", "edit"]) $(id).hidden = !done;
	for (const id of ["txt", "srt", "vtt", "json"]) $(id).hidden = !done;
	$("audio").hidden = $("drop-audio").hidden = !blob;
	$("download").hidden = !done && !blob;
	$("repeat").hidden = !done || !blob || isBusy;
	$("drop-audio").hidden ||= !done || isBusy;
	$("tools").hidden = isOn;
	$("delete").hidden = isBusy;
	$("again").hidden = done || isBusy || isOn || !(blob || entry.job);
	$("again").textContent = error ? "Try again" : "Send";
	$("without-keywords").hidden = !rejectsKeywords(item);
	$("again").hidden ||= rejectsKeywords(item);
	$("cancel").hidden = !controller;
	$("edit").setAttribute("aria-pressed", String(isEditing));
	$("edit").querySelector("span").textContent = isEditing ? "Done" : "Edit";
}

function setDuration(item, seconds) {
	if (Math.abs((item.entry.duration ?? 0) - seconds) < 0.5) return;
	item.entry.duration = seconds;
	if (item.entry.recorded || item.stored) save(item);
	drawRow(item);
	if (item === state.selected) drawHead(item);
}

// Recording

$("record").onclick = async () => {
	showAlert();
	if (state.recording) return void state.recording.stop();
	$("record").disabled = true;
	try {
		await startRecording({ onItem, onChange: onRecorderChange, onEnd });
		if (!state.recording?.item) select(null);
		show("item");
	} catch (error) {
		showAlert(error);
	}
	$("record").disabled = false;
	$("record").focus();
};

function onItem(type) {
	const item = addItem({ name: `Recording ${dateTime(Date.now())}`, recorded: true, type });
	select(item);
	return item;
}

function onRecorderChange() {
	const { recording } = state;
	$("record-label").textContent = recording ? "Stop" : "Record";
	$("record").setAttribute("aria-pressed", String(Boolean(recording)));
	$("pause").textContent = recording?.paused ? "Resume" : "Pause";
	$("pause").hidden = !recording;
	$("choose").hidden = $("options").hidden = Boolean(recording);
	document.body.classList.toggle("recording", Boolean(recording));
	document.body.classList.toggle("paused", Boolean(recording?.paused));
	if (!recording) $("level").value = 0;
	state.items.forEach(drawRow);
	draw();
	const { view } = document.body.dataset;
	show(view === "empty" ? "item" : view);
}

function onEnd(item) {
	if (!item.error) transcribeItem(item); // if it is muted, the user decides whether to send it
}

$("pause").onclick = togglePause;

// Files

let storing = Promise.resolve();

function addFiles(files) {
	showAlert();
	const added = [...files].reverse().map((file) => {
		const item = addItem({ name: file.name, type: file.type });
		Object.assign(item, { blob: file, loading: Promise.resolve(file), storing: true });
		return item;
	});
	if (!added.length) return;
	open(added.at(-1));
	for (const item of added.reverse()) {
		drawRow(item);
		storing = storing.then(() => storeFile(item));
		hold(item, storing);
	}
}

/** Stores a file before it is sent, so that a reload finds either the whole file or nothing. */
async function storeFile(item) {
	try {
		await storage.saveFile(item.entry, item.blob);
		await storage.save(item.entry);
		item.stored = true;
	} catch (error) {
		await storage.dropAudio(item.entry).catch(() => {});
		onSaveError(error);
	}
	item.storing = false;
	changed(item);
	transcribeItem(item);
}

$("file").onchange = ({ target }) => {
	addFiles(target.files);
	target.value = "";
};

const hasFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files");

addEventListener("dragover", (event) => {
	if (!hasFiles(event)) return;
	event.preventDefault();
	$("dropzone").hidden = false;
});
addEventListener("dragleave", ({ relatedTarget }) => ($("dropzone").hidden ||= !relatedTarget));
addEventListener("drop", (event) => {
	if (!hasFiles(event)) return;
	event.preventDefault();
	$("dropzone").hidden = true;
	addFiles(event.dataTransfer.files);
});

// Actions

$("copy").onclick = async () => {
	try {
		await navigator.clipboard.writeText(transcriptText(state.selected.entry));
		toast("Copied.");
	} catch {
		showAlert(new Error("Copying requires HTTPS. Select the text instead."));
	}
};
$("txt").onclick = () => download(state.selected.entry, "txt", transcriptText(state.selected.entry));
$("json").onclick = () => download(state.selected.entry, "json", toJson(state.selected.entry));
$("audio").onclick = () => download(state.selected.entry, audioExtension(state.selected.entry), state.selected.blob);
for (const format of ["srt", "vtt"]) $(format).onclick = () => subtitles(state.selected, format);

/** Saves subtitles. Transcripts of earlier versions can lack times. They are transcribed again after confirmation. */
async function subtitles(item, format) {
	const { entry } = item;
	showAlert();
	if (!entry.segments?.length) {
		if (item.controller || !(await getTimes(item))) return;
	}
	if (entry.segments?.length) download(entry, format, toSubtitles(entry.segments, format));
	else showAlert(new Error("This server cannot measure times, so there are no subtitles."));
}

async function getTimes(item) {
	const blob = await loadAudio(item);
	if (item.entry.job && !item.entry.edited && (await transcribeItem(item)) && item.entry.segments?.length) return true;
	if (item.error?.job || item.error?.status === 404) item.error = null; // the job is gone
	changed(item);
	if (item.error) return false;
	if (blob) return (await confirmAgain(NEEDS_TIMES)) && (await transcribeItem(item, { again: true }));
	showAlert(new Error("Subtitles require times, but this transcript has none, and its audio is no longer stored."));
	return false;
}

$("repeat").onclick = async () => {
	const item = state.selected;
	if (await confirmAgain(AGAIN)) await repeat(item);
};

/** Transcribes a recording again, with the present options. */
async function repeat(item) {
	setEditing(false);
	Object.assign(item.entry, chosenOptions());
	await transcribeItem(item, { again: true });
}

$("again").onclick = () => {
	showAlert();
	transcribeItem(state.selected, { retrying: true });
};
$("without-keywords").onclick = () => {
	state.selected.entry.keywords = [];
	transcribeItem(state.selected);
};
$("cancel").onclick = () => cancel(state.selected);
$("drop-audio").onclick = async () => {
	const item = state.selected;
	await storage.dropAudio(item.entry).catch(onSaveError);
	item.blob = item.loading = null;
	changed(item);
	toast("The audio is deleted. The text is kept.");
};

// Renaming and editing

$("rename").onclick = () => {
	$("rename-form").hidden = false;
	$("name").hidden = true;
	$("new-name").value = state.selected.entry.name;
	$("new-name").select();
};
$("rename-form").onsubmit = (event) => {
	event.preventDefault();
	endRenaming($("new-name").value.trim());
};
$("new-name").onkeydown = ({ key }) => key === "Escape" && endRenaming("");

function endRenaming(name) {
	const item = state.selected;
	$("rename-form").hidden = true;
	$("name").hidden = false;
	if (name) item.entry.name = name;
	if (name) save(item);
	changed(item);
	$("name").focus();
}

$("edit").onclick = () => {
	setEditing(!isEditing);
	draw();
	if (isEditing) $("transcript").querySelector("textarea")?.focus();
};

let pendingEdit = null;

function setEditing(on) {
	isEditing = on;
	if (!on) savePendingEdit();
}

/** Changes the text, and stores it when the user has stopped typing for a moment. */
function edit(item, change) {
	change();
	item.entry.edited = true;
	item.entry.transcript = transcriptText(item.entry);
	if (pendingEdit?.item !== item) savePendingEdit();
	clearTimeout(pendingEdit?.timer);
	pendingEdit = { item, timer: setTimeout(savePendingEdit, SAVE_EDIT_MILLISECONDS) };
}

function savePendingEdit() {
	if (!pendingEdit) return;
	const { item, timer } = pendingEdit;
	clearTimeout(timer);
	pendingEdit = null;
	save(item);
	drawRow(item);
}

addEventListener("pagehide", savePendingEdit);
document.addEventListener("visibilitychange", savePendingEdit);

// Deleting

let endUndo = () => {};

$("delete").onclick = async () => {
	const item = state.selected;
	endUndo();
	item.controller?.abort();
	item.entry.deleted = Date.now();
	await save(item);
	drawRow(item);
	select(null);
	show("list");
	$("record").focus();
	offerUndo(item);
};

/** Deletes an item for good when the message disappears. Until then, it is only hidden. */
function offerUndo(item) {
	hold(
		item,
		new Promise((resolve) => {
			const timer = setTimeout(() => endUndo(), UNDO_MILLISECONDS);
			endUndo = async () => {
				endUndo = () => {};
				clearTimeout(timer);
				toast();
				if (item.entry.deleted) await forget(item);
				resolve();
			};
		}),
	);
	toast(`Deleted: ${item.entry.name}`, {
		Undo: () => undo(item),
		Close: () => endUndo(),
	});
}

async function forget(item) {
	await purge(item.entry);
	state.items = state.items.filter((other) => other !== item);
	item.row.remove();
}

async function undo(item) {
	delete item.entry.deleted;
	endUndo();
	await save(item);
	drawList();
	open(item);
}

let toastTimer;

function toast(text = "", actions = {}) {
	clearTimeout(toastTimer);
	const buttons = Object.entries(actions).map(([label, onclick]) =>
		Object.assign(document.createElement("button"), { textContent: label, onclick, id: label.toLowerCase() }),
	);
	$("toast").replaceChildren(Object.assign(document.createElement("span"), { textContent: text }), ...buttons);
	$("toast").hidden = !text;
	if (text && !buttons.length) toastTimer = setTimeout(toast, 4000);
}

// Search and keyboard

$("search").oninput = () => {
	drawList();
	if (state.selected && !isEditing) drawText(state.selected);
};

const SHORTCUTS = {
	" ": togglePlay,
	k: togglePlay,
	j: () => skip(-SKIP_SECONDS),
	l: () => skip(SKIP_SECONDS),
};

addEventListener("keydown", (event) => {
	const { key, target } = event;
	if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
	if (target.matches("input, textarea, select")) return void (key === "Escape" && target.blur());
	if (key === "/") {
		event.preventDefault();
		show("list");
		$("search").focus();
	} else if (SHORTCUTS[key.toLowerCase()] && isLoaded()) {
		if (key === " " && target.matches("button, summary, a")) return;
		event.preventDefault();
		SHORTCUTS[key.toLowerCase()]();
	}
});

// Start

addEventListener("beforeunload", (event) => {
	const hasUnsaved = state.items.some((item) => {
		return item.storing || (state.saveFailed && isUnfinished(item));
	});
	if (state.recording || hasUnsaved) event.preventDefault();
});

const locked = (await navigator.locks?.query().catch(() => null))?.held.map(({ name }) => name) ?? [];
const entries = await storage.entries().catch(() => []);
storage.dropOrphans([...entries.map(({ id }) => id), ...locked]).catch(() => {});
for (const entry of entries) {
	if (locked.includes(entry.id)) continue; // another tab is recording or deleting it
	if (entry.deleted) {
		purge(entry);
		continue;
	}
	const item = { entry, blob: null, stored: true };
	if (entry.repeating && !entry.job) Object.assign(entry, { repeating: false, job: entry.previousJob });
	if (entry.failed) item.error = new Error(entry.failed);
	state.items.push(item);
	$("recent").append(createRow(item, () => open(item)));
	if (isUnfinished(item) && entry.job) transcribeItem(item);
}
toast();
select(state.items.find(isUnfinished) ?? null);
show("list");
document.body.dataset.ready = "";
