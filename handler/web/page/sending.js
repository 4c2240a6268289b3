// Sends items to the server and waits for their transcripts.

import { openDialog } from "./dialogs.js";
import { $, changed, loadAudio, onSaveError, save, showAlert } from "./items.js";
import * as storage from "./kept.js";
import { deleteJob, followJob, retryJob, transcribe } from "../recorder.js";
import { errorText, noteProgress } from "./status.js";

const access = () => ({ token: localStorage.getItem("token") ?? undefined });

const isUntimed = (error) => error.code === "invalid_option" && error.message.includes("response_format");

/** Runs an action, and shows its progress and any error. Returns whether it succeeded. */
async function run(item, action) {
	const controller = (item.controller = new AbortController());
	item.error = item.pace = null;
	const options = { ...wishes(item), ...access(), signal: controller.signal };
	changed(item);
	try {
		await action({ ...options, onProgress: (progress) => showProgress(item, progress) });
		return true;
	} catch (error) {
		if (error.status === 401 && (await askForToken())) return await run(item, action);
		if (!controller.signal.aborted) setError(item, error);
		return false;
	} finally {
		item.progress = item.offline = item.controller = null;
		changed(item);
	}
}

const wishes = ({ entry }) => ({
	language: entry.language || undefined,
	keywords: entry.keywords?.length ? entry.keywords : undefined,
	responseFormat: "verbose_json", // times are requested once, so that subtitles are never billed
	asJob: true,
});

function showProgress(item, progress) {
	item.offline = progress.phase === "offline";
	if (!item.offline) noteProgress(item, progress);
	if (!item.offline && progress.phase !== "sending") saveJob(item, progress.job);
	changed(item);
}

export async function transcribeItem(item, { retrying = false, again = false } = {}) {
	const { entry } = item;
	if (item.controller) return false;
	await forgetFailure(item);
	if (again) beginAgain(entry);
	const done = await run(item, async (options) => {
		const { transcript, model, job, segments, duration } = await getTranscription(item, options, retrying);
		const length = duration ? { duration } : {};
		Object.assign(entry, { transcript, model, job, segments, edited: false, ...length });
		await finish(item);
	});
	if (entry.repeating) {
		entry.repeating = false;
		await save(item);
	}
	if (done) notify(item);
	return done;
}

/** Deletes the earlier job. Its transcript is stored in this browser. */
function beginAgain(entry) {
	if (entry.job) deleteJob(entry.job, access()).catch(() => {});
	Object.assign(entry, { repeating: true, job: "" });
}

async function forgetFailure(item) {
	if (!item.entry.failed) return;
	item.entry.failed = "";
	await save(item);
}

/** Waits for the entry's job. If there is none, sends the recording. */
async function getTranscription(item, options, retrying) {
	const { entry } = item;
	const blob = await loadAudio(item);
	if (retrying && entry.job)
		await retryJob(entry.job, options).catch((error) => {
			if (error.code === "not_failed") return; // the job is still running
			if (error.status !== 404 || !blob) throw error;
			entry.job = "";
		});
	const get = (wanted) => (entry.job ? followJob(entry.job, wanted) : transcribe(blob, wanted));
	return get(options).catch((error) => {
		if (!isUntimed(error)) throw error;
		return get({ ...options, responseFormat: "json" }); // this server cannot measure times
	});
}

/** Stores the transcript. If no speech was found, keeps the audio in any case. */
async function finish(item) {
	const { entry } = item;
	try {
		await storage.save(entry);
		if (entry.transcript && localStorage.getItem("deleteAudio")) await deleteAudio(item);
	} catch (error) {
		onSaveError(error);
	}
}

export async function deleteAudio(item) {
	await storage.dropAudio(item.entry);
	item.blob = item.loading = null;
}

function setError(item, error) {
	const { entry } = item;
	item.error = error;
	entry.job = error.job || entry.job;
	const isFinal = error.job || error.status === 404; // reloading would not help
	if (isFinal && entry.transcript === undefined) entry.failed = errorText(error);
	save(item);
}

function saveJob(item, job) {
	if (!job || item.entry.job === job) return;
	item.entry.job = job;
	save(item);
}

export async function cancel(item) {
	const { entry, progress, controller } = item;
	const isFetching = entry.transcript !== undefined && !entry.repeating; // keep completed jobs
	const job = progress?.job || (isFetching ? "" : entry.job);
	if (job) entry.job = "";
	controller.abort();
	if (job) deleteJob(job, access()).catch((error) => error.status === 404 || showAlert(error.message));
	await save(item);
}

/** Deletes a job, then its entry. If the server cannot be reached, the next visit tries again. */
export async function purge(entry) {
	try {
		if (entry.job) await deleteJob(entry.job, access());
	} catch (error) {
		if (error.status !== 404) {
			await storage.dropAudio(entry).catch(() => {});
			return showAlert(`The copy on the server is not deleted yet. Open this page again later. ${error.message}`);
		}
	}
	await storage.remove(entry).catch(() => {});
}

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

function notify({ entry }) {
	if (!document.hidden || !localStorage.getItem("notify")) return;
	if (globalThis.Notification?.permission !== "granted") return;
	try {
		new Notification("The transcript is ready.", { body: entry.name, icon: "page/icon.svg" });
	} catch {
		// Chrome on Android allows notifications only from service workers.
	}
}
