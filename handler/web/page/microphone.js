// Records from the microphone: the clock, the waveform, pausing, and storing each chunk at once.

import { $, changed, clock, hold, onSaveError, save, state } from "./items.js";
import * as storage from "./kept.js";
import { record } from "../recorder.js";
import { createWaveform } from "./waveform.js";

const CLOCK_MILLISECONDS = 200;
const SAVING_MILLISECONDS = 5000; // maximum wait for IndexedDB

/** Starts to record. Calls `onChange` when the recording starts, pauses, resumes and ends, then `onEnd(item)`. */
export async function startRecording({ createItem, onChange, onEnd }) {
	let saving = Promise.resolve();
	let item, wave;
	const recording = await record({
		onLevel(level) {
			$("level").value = level;
			if (!state.recording?.paused) wave?.add(level);
		},
		onChunk: (chunk) => (saving = saving.then(() => store(item, chunk)).catch(onSaveError)),
	});
	wave = createWaveform($("wave"));
	item = createItem();
	hold(item, recording.finished);
	state.recording = Object.assign(recording, { paused: false, item, onChange });
	navigator.storage?.persist?.().catch(() => {}); // browsers may evict other data
	const screenLock = navigator.wakeLock?.request("screen").catch(() => null); // phones stop when they sleep
	const stopClock = runClock();
	onChange();
	const end = async (blob, error) => {
		item.entry.duration = stopClock();
		wave.end();
		state.recording = null;
		Object.assign(item, { blob, error });
		onChange();
		(await screenLock)?.release();
		await Promise.race([saving, new Promise((resolve) => setTimeout(resolve, SAVING_MILLISECONDS))]);
		if (blob) await save(item);
		changed(item);
		onEnd(item);
	};
	recording.finished.then(end, (error) => end(error.recording, error));
}

async function store(item, chunk) {
	item.entry.type = chunk.type;
	await storage.addChunk(item.entry, await chunk.arrayBuffer());
	if (!item.stored) await storage.save(item.entry);
	item.stored = true;
}

export function togglePause() {
	const { recording } = state;
	recording.paused = !recording.paused;
	if (recording.paused) recording.pause();
	else recording.resume();
	recording.onChange();
}

/** Runs the clock. Returns a function that stops it and returns the recorded seconds. */
function runClock() {
	let seconds = 0;
	let last = performance.now();
	const tick = () => {
		const now = performance.now();
		if (!state.recording?.paused) seconds += (now - last) / 1000;
		last = now;
		$("clock").textContent = clock(seconds);
	};
	tick();
	const timer = setInterval(tick, CLOCK_MILLISECONDS);
	return () => (clearInterval(timer), seconds);
}
