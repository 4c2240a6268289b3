// Texts for the state of an item.

import { clock, isRecording, state } from "./items.js";

const UNSENT = "Not sent yet";
const TRANSCRIBED = "Transcribed";
const NOT_A_RECORDING =
	"This file is not a recording in a supported format." +
	" It may be a document, a picture or a web page." +
	" Choose an MP3, M4A, WAV, WebM, Ogg or FLAC file.";

export const errorText = ({ code, message }) => (code === "unsupported_media" ? NOT_A_RECORDING : message);

/** Returns whether it is useless to send the file again. Errors of an earlier visit have no code. */
export const isNotARecording = ({ error }) => Boolean(error) && errorText(error) === NOT_A_RECORDING;

export const rejectsKeywords = ({ error, entry }) =>
	error?.code === "invalid_option" && error.message.includes("`keywords`") && entry.keywords?.length > 0;

/** The status in the list. */
export function shortStatus(item) {
	const { entry, progress, offline, error, controller, storing } = item;
	if (rejectsKeywords(item)) return "The speech model of this server does not support names and terms.";
	if (error) return errorText(error);
	if (isRecording(item)) return state.recording.paused ? "Paused" : "Recording …";
	if (offline) return `No connection, retrying. ${state.saveFailed ? "Do not close this page." : "Your recording is safe."}`;
	if (controller) return workText(progress);
	if (storing) return "Saving in this browser …";
	if (entry.transcript === "") return "No speech found.";
	return entry.transcript ? TRANSCRIBED : UNSENT;
}

function workText(progress) {
	if (!progress) return "Starting …";
	const { phase, done, total } = progress;
	if (phase === "sending" && done < total) return "Sending …";
	return phase === "queued" ? "Waiting for the server …" : "Transcribing …";
}

/** The status above the transcript. */
export function statusText(item) {
	const status = shortStatus(item);
	if (status === TRANSCRIBED) return `Transcribed by ${item.entry.model}`;
	return status === UNSENT ? `${UNSENT}. Press Send to transcribe this recording.` : status;
}

export function statusClass(item) {
	if (item.error) return "bad";
	if (isRecording(item)) return state.recording.paused ? "" : "live";
	if (item.offline || shortStatus(item) === UNSENT) return "warn";
	return item.controller || item.storing ? "busy" : "";
}

/** How much is done, and the time left if it can be estimated. */
export function amountText(item) {
	const { done, total, duration, phase } = item.progress ?? {};
	if (!total) return "";
	const left = timeLeft(item);
	if (phase === "sending") return done < total ? `${Math.floor((100 * done) / total)} % sent${left}` : "";
	const unit = duration < 3600 ? "minutes" : "hours";
	const times = `${clock((duration * done) / total)} of ${clock(duration)} ${unit}`;
	return `${duration ? times : `${done} of ${total} parts`} transcribed${left}`;
}

export function noteProgress(item, progress) {
	if (item.pace?.phase !== progress.phase)
		item.pace = { phase: progress.phase, since: performance.now(), done: progress.done };
	item.progress = progress;
}

function timeLeft({ progress, pace }) {
	const done = progress.done - pace.done;
	if (done <= 0) return "";
	const seconds = ((performance.now() - pace.since) / 1000 / done) * (progress.total - progress.done);
	if (seconds < 5) return "";
	return seconds < 90 ? `, about ${Math.ceil(seconds / 5) * 5} s left` : `, about ${Math.round(seconds / 60)} min left`;
}
