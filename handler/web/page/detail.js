// The selected recording: its state, transcript, player and actions.

import { chosenOptions, confirmAgain } from "./dialogs.js";
import { audioExtension, download, toJson, toSubtitles, transcriptText } from "./exports.js";
import { setIcon } from "./icons.js";
import {
	$, changed, isRecording, loadAudio, onSaveError, save, setText, showAlert, state, visibleItems, whenText,
} from "./items.js";
import { drawRow, query } from "./list.js";
import { isLoaded, loadPlayer, seek } from "./player.js";
import { cancel, deleteAudio, transcribeItem } from "./sending.js";
import { amountText, isNotARecording, rejectsKeywords, statusClass, statusText } from "./status.js";
import { toast } from "./toast.js";
import { drawTranscript, markSpoken } from "./transcript.js";

const BILLED =
	"The recording is sent again. This may cost money again for the owner of this server." +
	" The new text replaces the old text and its corrections.";

let isEditing = false;

/** Selects an item, and loads its audio. */
export function select(item) {
	const previous = state.selected;
	state.selected = item;
	isEditing = false;
	setRenaming(false);
	if (previous) drawRow(previous);
	draw();
	if (item) loadAudio(item).then(() => item === state.selected && draw());
}

export function draw() {
	const item = state.selected;
	$("current").hidden = !item;
	$("welcome").hidden = Boolean(item);
	setText($("welcome-title"), visibleItems().length ? "Choose a recording from the list" : "Turn speech into text");
	if (!item) return loadPlayer(null);
	const isOn = isRecording(item);
	$("recorder").hidden = !isOn;
	setText($("name"), item.entry.name);
	setText($("about"), whenText(item.entry));
	drawState(item);
	drawText();
	drawTools(item, isOn);
	loadPlayer(isOn ? null : item.blob, item.entry.duration, {
		onTime: markSpoken,
		onDuration: (seconds) => setDuration(item, seconds),
	});
	if (document.activeElement?.hidden) $("name").focus(); // the focused button was hidden
	drawRow(item);
}

function drawState(item) {
	const { offline, progress, controller } = item;
	setText($("status"), statusText(item));
	$("status").className = statusClass(item);
	$("work").hidden = !controller || offline;
	const amount = amountText(item);
	setText($("amount"), amount);
	if (amount) Object.assign($("bar"), { max: progress.total, value: progress.done });
	else $("bar").removeAttribute("value");
}

export function drawText() {
	const { entry, progress } = state.selected;
	drawTranscript(entry, {
		partial: progress?.transcript,
		editing: isEditing,
		wanted: query(),
		onSeek: (seconds, play) => isLoaded() && seek(seconds, play),
		onEdit: edit,
	});
}

function drawTools(item, isOn) {
	const { entry, blob, error, controller, storing } = item;
	const isDone = Boolean(entry.transcript);
	const isBusy = Boolean(controller) || storing;
	const show = (isShown, ...ids) => ids.forEach((id) => ($(id).hidden = !isShown));
	show(!isOn, "tools");
	show(isDone && !isBusy, "edit");
	show(isDone, "copy", "txt", "srt", "vtt", "json");
	show(blob, "audio");
	show(blob || isDone, "download");
	show(isDone && blob && !isBusy, "repeat", "drop-audio");
	show(!isBusy, "delete");
	show(!isDone && !isBusy && !isOn && !rejectsKeywords(item) && (blob || entry.job), "again");
	show(rejectsKeywords(item), "without-keywords");
	show(controller, "cancel");
	setText($("again"), isNotARecording(item) ? "Choose files" : error ? "Try again" : "Send");
	$("edit").ariaPressed = String(isEditing);
	setText($("edit").querySelector("span"), isEditing ? "Done" : "Edit");
	setIcon($("edit"), isEditing ? "check" : "edit");
}

function setDuration(item, seconds) {
	if (Math.abs((item.entry.duration ?? 0) - seconds) < 0.5) return;
	item.entry.duration = seconds;
	if (item.stored) save(item);
	setText($("about"), whenText(item.entry));
	drawRow(item);
}

// Sending

const onClick = (id, action) => ($(id).onclick = () => action(state.selected));

onClick("again", (item) => {
	if (isNotARecording(item)) return $("file").click();
	showAlert();
	transcribeItem(item, { retrying: true });
});
onClick("without-keywords", (item) => {
	item.entry.keywords = [];
	transcribeItem(item);
});
onClick("cancel", cancel);
onClick("repeat", (item) => repeat(item));

/** Transcribes a recording again with the present options, after confirmation. */
async function repeat(item, reason = "") {
	if (item.controller || !(await confirmAgain(reason + BILLED))) return;
	isEditing = false;
	Object.assign(item.entry, chosenOptions());
	await transcribeItem(item, { again: true });
}

// Copying and saving

onClick("copy", async ({ entry }) => {
	try {
		await navigator.clipboard.writeText(transcriptText(entry));
		toast("Copied.");
	} catch {
		showAlert("Copying requires HTTPS. Select the text instead.");
	}
});
onClick("txt", ({ entry }) => download(entry, "txt", transcriptText(entry)));
onClick("json", ({ entry }) => download(entry, "json", toJson(entry)));
onClick("audio", ({ entry, blob }) => download(entry, audioExtension(entry), blob));
for (const format of ["srt", "vtt"]) onClick(format, (item) => saveSubtitles(item, format));

/** Saves subtitles. A transcript of an earlier version can lack times. */
async function saveSubtitles(item, format) {
	const { entry, blob } = item;
	showAlert();
	if (!entry.segments?.length) {
		if (!blob) return showAlert("This text has no times, and its audio is deleted. Subtitles require both.");
		await repeat(item, "Subtitles require times, which this text does not have. ");
	}
	if (entry.segments?.length) download(entry, format, toSubtitles(entry.segments, format));
}

onClick("drop-audio", async (item) => {
	await deleteAudio(item).catch(onSaveError);
	changed(item);
	toast("The audio is deleted. The text is kept.");
});

// Renaming and editing

function setRenaming(on) {
	$("rename-form").hidden = !on;
	$("name").hidden = on;
}

function endRenaming(name) {
	const item = state.selected;
	setRenaming(false);
	if (name) item.entry.name = name;
	save(item);
	changed(item);
	$("name").focus();
}

onClick("rename", ({ entry }) => {
	setRenaming(true);
	$("new-name").value = entry.name;
	$("new-name").focus();
	$("new-name").select();
});
$("rename-form").onsubmit = (event) => {
	event.preventDefault();
	endRenaming($("new-name").value.trim());
};
$("new-name").onkeydown = ({ key }) => void (key === "Escape" && endRenaming());

onClick("edit", () => {
	isEditing = !isEditing;
	draw();
	if (isEditing) $("transcript").querySelector("textarea")?.focus();
});

function edit(change) {
	const item = state.selected;
	change();
	item.entry.edited = true;
	item.entry.transcript = transcriptText(item.entry);
	drawRow(item);
	save(item);
}
