// The recordings on the page. An item is {entry, blob, row, progress, offline, error, controller}.
// Its `entry` is what kept.js stores. Its audio, `blob`, is loaded when the item is selected.

import * as storage from "./kept.js";

export const $ = (id) => document.getElementById(id);

export function create(tag, properties = {}, ...children) {
	const element = Object.assign(document.createElement(tag), properties);
	element.append(...children);
	return element;
}

export function setText(element, text) {
	if (element.textContent !== text) element.textContent = text;
}

export const state = { items: [], selected: null, recording: null, saveFailed: false };

let listener;

/** Sets the function that draws an item after each change. */
export const onChange = (draw) => (listener = draw);

export const changed = (item) => listener(item);

export const visibleItems = () => state.items.filter(({ entry }) => !entry.deleted);

export const isUnfinished = ({ entry }) => (entry.transcript === undefined || entry.repeating) && !entry.failed;

export const isRecording = (item) => item === state.recording?.item;

export const save = ({ entry }) => storage.save(entry).catch(onSaveError);

export function onSaveError(error) {
	state.saveFailed = true;
	showAlert(`This browser cannot store the recording. Do not close this page: ${error.message}`);
}

export const showAlert = (message = "") => setText($("alert"), message);

export async function loadAudio(item) {
	item.loading ??= storage.loadRecording(item.entry).catch(() => null);
	item.blob ??= await item.loading;
	return item.blob;
}

/** Holds a lock while a promise is pending, so that other tabs leave this item alone. */
export const hold = (item, promise) => navigator.locks?.request(item.entry.id, () => promise.catch(() => {}));

/** Formats seconds as 0:05, 12:34 or 1:02:03. */
export function clock(seconds) {
	const whole = Math.max(0, Math.floor(seconds));
	const two = (number) => String(number).padStart(2, "0");
	const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
	return (hours ? `${hours}:${two(minutes)}` : minutes) + `:${two(whole % 60)}`;
}

export const dateTime = (time) => new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

/** The date, unless the name contains it, and the length. */
export const whenText = ({ name, created, duration }) =>
	[name.includes(dateTime(created)) ? "" : dateTime(created), duration ? clock(duration) : ""].filter(Boolean).join(" · ");
