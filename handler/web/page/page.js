// The recorder page: connects the list, the selected recording, the microphone and the files.

import { chosenOptions } from "./dialogs.js";
import { draw, drawText, select } from "./detail.js";
import {
	$, changed, dateTime, hold, isUnfinished, onChange, onSaveError, setText, showAlert, state, visibleItems,
} from "./items.js";
import * as storage from "./kept.js";
import { createRow, drawList, drawRow } from "./list.js";
import { startRecording, togglePause } from "./microphone.js";
import { forward, isLoaded, rewind, togglePlay } from "./player.js";
import { purge, transcribeItem } from "./sending.js";
import { deleteItem, toast } from "./toast.js";

// Items

function addItem(about) {
	const id = crypto.randomUUID?.() ?? String(Math.random());
	const item = { entry: { id, created: Date.now(), job: "", ...chosenOptions(), ...about }, blob: null };
	state.items.unshift(item);
	$("recent").prepend(createRow(item, () => open(item)));
	return item;
}

/** Selects an item. Phones then show it instead of the list. */
function open(item) {
	select(item);
	show("item");
	$("detail").scrollTo(0, 0);
	if (!$("library").checkVisibility()) $("name").focus();
}

/** Shows a view on phones: "list" or "item". */
function show(view) {
	document.body.dataset.view = visibleItems().length ? view : "empty";
}

$("back").onclick = () => {
	show("list");
	$("recent").querySelector("[aria-current=true]")?.focus();
};
$("delete").onclick = () => {
	const item = state.selected;
	deleteItem(item, () => {
		drawList();
		open(item);
	});
	drawRow(item);
	select(null);
	show("list");
	$("record").focus();
};

onChange((item) => (item === state.selected ? draw() : drawRow(item)));

// Recording

$("record").onclick = async () => {
	showAlert();
	if (state.recording) return void state.recording.stop();
	$("record").disabled = true;
	const onEnd = (item) => item.error || transcribeItem(item); // if it is muted, the user decides
	await startRecording({ createItem, onChange: drawRecorder, onEnd }).catch(({ message }) => showAlert(message));
	$("record").disabled = false;
	$("record").focus();
};

function createItem() {
	const item = addItem({ name: `Recording ${dateTime(Date.now())}` });
	open(item);
	return item;
}

$("pause").onclick = togglePause;

function drawRecorder() {
	const { recording } = state;
	setText($("record-label"), recording ? "Stop" : "Record");
	$("record").ariaPressed = String(Boolean(recording));
	setText($("pause"), recording?.paused ? "Resume" : "Pause");
	$("pause").hidden = !recording;
	$("choose").hidden = $("options").hidden = Boolean(recording);
	document.body.classList.toggle("recording", Boolean(recording));
	state.items.forEach(drawRow);
	draw();
}

// Files

let storing = Promise.resolve();

function addFiles(files) {
	showAlert();
	const added = [...files].reverse().map((file) => {
		const item = addItem({ name: file.name, type: file.type });
		return Object.assign(item, { blob: file, storing: true });
	});
	for (const item of added.reverse()) {
		drawRow(item);
		storing = storing.then(() => storeFile(item));
		hold(item, storing);
	}
	if (added.length) open(added[0]);
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

for (const type of ["dragover", "drop"])
	addEventListener(type, (event) => {
		if (!event.dataTransfer?.types.includes("Files")) return;
		event.preventDefault();
		$("dropzone").hidden = type === "drop";
		if (type === "drop") addFiles(event.dataTransfer.files);
	});
addEventListener("dragleave", ({ relatedTarget }) => ($("dropzone").hidden ||= !relatedTarget));

// Search and keyboard

$("search").oninput = () => {
	drawList();
	if (state.selected) drawText();
};

const SHORTCUTS = { " ": togglePlay, k: togglePlay, j: rewind, l: forward };

addEventListener("keydown", (event) => {
	const { key, target } = event;
	if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
	if (target.matches("input:not([type=range]), textarea, select")) return void (key === "Escape" && target.blur());
	const action = SHORTCUTS[key.toLowerCase()];
	if (key === "/") {
		event.preventDefault();
		show("list");
		$("search").focus();
	} else if (action && isLoaded() && !(key === " " && target.matches("button, summary"))) {
		event.preventDefault();
		action();
	}
});

// Start

addEventListener("beforeunload", (event) => {
	const hasUnsaved = state.items.some((item) => item.storing || (state.saveFailed && isUnfinished(item)));
	if (state.recording || hasUnsaved) event.preventDefault();
});

function restore(entry) {
	if (!entry.job) entry.repeating = false;
	const item = { entry, blob: null, stored: true };
	if (entry.failed) item.error = new Error(entry.failed);
	state.items.push(item);
	$("recent").append(createRow(item, () => open(item)));
	if (isUnfinished(item) && entry.job) transcribeItem(item);
}

const locked = (await navigator.locks?.query().catch(() => null))?.held.map(({ name }) => name) ?? [];
const entries = await storage.entries().catch(() => []);
storage.dropOrphans([...entries.map(({ id }) => id), ...locked]).catch(() => {});
for (const entry of entries) {
	if (locked.includes(entry.id)) continue; // another tab is recording, storing or deleting it
	if (entry.deleted) purge(entry);
	else restore(entry);
}
toast();
select(state.items.find(isUnfinished) ?? null);
show("list");
document.body.dataset.ready = "";
