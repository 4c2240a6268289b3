// Sends items to the server and waits for their transcripts.

import { openDialog } from "./dialogs.js";
import { $, changed, loadAudio, onSaveError, save, showAlert } from "./items.js";
import * as storage from "./kept.js";
import { deleteJob, followJob, retryJob, transcribe } from "../recorder.js";
import { errorText, noteProgress } from "./status.js";

const access = () => ({ token: localStorage.getItem("token") });

const isUntimed = (error) => error.code === "invalid_option" && error.message.includes("response_format");

/** Runs an action, and shows its progress and any error. Returns whether it succeeded. */
async function run(item, action) {
	const controller = (item.controller = new AbortController());
	item.error = item.pace = null;
	const onProgress = (progress) => showProgress(item, progress);
	changed(item);
	try {
		await action({ ...wishes(item), ...access(), signal: controller.signal, onProgress });
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
	const { phase, job } = progress;
	item.offline = phase === "offline";
	if (!item.offline) noteProgress(item, progress);
	if (job && job !== item.entry.job && (phase === "queued" || phase === "transcribing")) {
		item.entry.job = job;
		save(item);
	}
	changed(item);
}

export async function transcribeItem(item, { retrying = false, again = false } = {}) {
	const { entry } = item;
	if (item.controller) return;
	if (entry.failed) {
		entry.failed = "";
		await save(item);
	}
	if (again) {
		if (entry.job) deleteJob(entry.job, access()).catch(() => {}); // this browser has its transcript
		Object.assign(entry, { repeating: true, job: "" });
	}
	const done = await run(item, async (options) => {
		const { transcript, model, job, segments, duration } = await getTranscription(item, options, retrying);
		const length = duration ? { duration } : {};
		Object.assign(entry, { transcript, model, job, segments, edited: false, ...length });
		const isAudioDeleted = transcript && localStorage.getItem("deleteAudio"); // without speech, it is kept
		await storage.save(entry).then(() => isAudioDeleted && deleteAudio(item)).catch(onSaveError);
	});
	if (entry.repeating) {
		entry.repeating = false;
		await save(item);
	}
	if (done) notify(item);
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
	tokenDialog ??= openDialog($("access")).then((isGiven) => {
		if (isGiven) localStorage.setItem("token", $("token").value.replace(/[^ -~]/g, "").trim());
		$("token").value = "";
		tokenDialog = null;
		return isGiven;
	});
	return tokenDialog;
}

function notify({ entry }) {
	if (!document.hidden || !localStorage.getItem("notify")) return;
	try {
		new Notification("The transcript is ready.", { body: entry.name, icon: "page/icon.svg" });
	} catch {
		// Chrome on Android allows notifications only from service workers.
	}
}
