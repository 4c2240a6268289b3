// What this browser keeps, so that no crash, reload or dead connection loses a recording: IndexedDB.
// An entry is {id, name, created, language, format, job, transcript}; the bytes of its recording are in `chunks`.

const opened = new Promise((resolve, reject) => {
	const request = indexedDB.open("steno", 1);
	request.onupgradeneeded = () => {
		request.result.createObjectStore("entries", { keyPath: "id" });
		request.result.createObjectStore("chunks", { autoIncrement: true }).createIndex("entry", "entry");
	};
	request.onsuccess = () => resolve(request.result);
	request.onerror = () => reject(request.error);
});
opened.catch(() => {}); // whoever uses it is told

async function within(mode, work) {
	const transaction = (await opened).transaction(["entries", "chunks"], mode);
	const request = work(transaction.objectStore("entries"), transaction.objectStore("chunks"));
	return new Promise((resolve, reject) => {
		transaction.oncomplete = () => resolve(request?.result);
		transaction.onabort = () => reject(transaction.error);
	});
}

/** The newest first. */
export const entries = async () =>
	(await within("readonly", (kept) => kept.getAll())).sort((a, b) => b.created - a.created);

export const save = (entry) => within("readwrite", (kept) => kept.put(entry));

/** Bytes and not a Blob, which Safari has lost more than once. */
export const addChunk = (entry, bytes) => within("readwrite", (_, chunks) => chunks.add({ entry: entry.id, bytes }));

/** The recording, or null where there is none (any more). */
export async function recording(entry) {
	const found = await within("readonly", (_, chunks) => chunks.index("entry").getAll(entry.id));
	return found.length ? new Blob(found.map(({ bytes }) => bytes), { type: entry.type }) : null;
}

export const dropRecording = (entry) => within("readwrite", (_, chunks) => drop(chunks, entry));

export const remove = (entry) =>
	within("readwrite", (kept, chunks) => {
		kept.delete(entry.id);
		drop(chunks, entry);
	});

function drop(chunks, entry) {
	chunks.index("entry").openKeyCursor(entry.id).onsuccess = ({ target: { result: cursor } }) => {
		if (!cursor) return;
		chunks.delete(cursor.primaryKey);
		cursor.continue();
	};
}
