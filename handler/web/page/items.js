// The recordings on the page. An item is {entry, blob, row, progress, offline, error, controller}: its stored entry,
// its audio if that is loaded, and what is happening to it.

import * as storage from "./kept.js";

export const $ = (id) => document.getElementById(id);
export const state = { items: [], selected: null, recording: null, saveFailed: false };

const listeners = [];

/** Calls `listener(item)` after each change of an item. */
export const onChange = (listener) => listeners.push(listener);

export const changed = (item) => listeners.forEach((listener) => listener(item));

export const isUnfinished = ({ entry }) => (entry.transcript === undefined || entry.repeating) && !entry.failed;

export const isRecording = (item) => Boolean(state.recording) && item === state.recording.item;

export async function save({ entry }) {
	await storage.save(entry).catch(onSaveError);
}

export function onSaveError(error) {
	state.saveFailed = true;
	showAlert(new Error(`This browser cannot store the recording. Do not close this page: ${error.message}`));
}

export function showAlert(error = null) {
	$("alert").textContent = error?.message ?? "";
}

/** Loads the audio of an item, unless it is loaded already. */
export async function loadAudio(item) {
	item.loading ??= storage.loadRecording(item.entry).catch(() => null);
	item.blob ??= await item.loading;
	return item.blob;
}

/** Formats seconds as 0:05, 12:34 or 1:02:03. */
export function clock(seconds) {
	const whole = Math.max(0, Math.floor(seconds));
	const two = (number) => String(number).padStart(2, "0");
	const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
	return (hours ? `${hours}:${two(minutes)}` : String(minutes)) + `:${two(whole % 60)}`;
}

/** A date and time in the format of the browser's language. */
export const dateTime = (time) => new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
