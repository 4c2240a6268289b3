// Describes in words what is happening to an item.

import { clock, isRecording, state } from "./items.js";

// Plain messages by error code
const USER_MESSAGES = {
	unsupported_media:
		"This file is not a recording in a supported format." +
		" It may be a document, a picture or a web page." +
		" Choose an MP3, M4A, WAV, WebM, Ogg or FLAC file.",
};

export const errorText = (error) => USER_MESSAGES[error.code] ?? error.message;

export const rejectsKeywords = ({ error, entry }) =>
	error?.code === "invalid_option" && error.message.includes("`keywords`") && entry.keywords?.length > 0;

export const isSending = (progress) => progress?.phase === "sending" && progress.done < progress.total;

export function statusText(item) {
	const { entry, progress, offline, error, controller, storing } = item;
	if (rejectsKeywords(item)) return "The speech model of this server does not support names and terms.";
	if (error) return errorText(error);
	if (isRecording(item)) return state.recording.paused ? "Paused" : "Recording …";
	if (offline) return offlineText();
	if (controller) return workText(progress);
	if (storing) return "Saving in this browser …";
	if (entry.transcript === "") return "No speech found.";
	if (entry.transcript) return `Transcribed by ${entry.model}`;
	return "Not sent yet";
}

function offlineText() {
	return `No connection, retrying. ${state.saveFailed ? "Do not close this page." : "Your recording is safe."}`;
}

function workText(progress) {
	if (!progress) return "Starting …";
	if (isSending(progress)) return "Sending …";
	if (progress.phase === "queued") return "Waiting for the server …";
	return "Transcribing …";
}

export const shortStatus = (item) =>
	item.entry.transcript && !item.controller && !item.error ? "Transcribed" : statusText(item);

/** How much is done, and the time left if it can be estimated. */
export function amountText(item) {
	const { done, total, duration, phase } = item.progress ?? {};
	if (!total) return "";
	const left = timeLeft(item);
	if (phase === "sending") return done < total ? `${Math.floor((100 * done) / total)} % sent${left}` : "";
	const parts = `${done} of ${total} parts`;
	return (duration ? `${clock((duration * done) / total)} of ${clock(duration)}` : parts) + left;
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
