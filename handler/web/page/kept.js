// Stores recordings in IndexedDB, so that they survive crashes, reloads and network failures.
// An entry is {id, name, created, language, format, job, transcript}. Its recording is stored in `chunks`.

let database;

/** Opens the database. Opens it again after an error, or if the browser closed it. */
function open() {
	database ??= new Promise((resolve, reject) => {
		const request = indexedDB.open("steno", 1);
		request.onupgradeneeded = () => {
			request.result.createObjectStore("entries", { keyPath: "id" });
			request.result.createObjectStore("chunks", { autoIncrement: true }).createIndex("entry", "entry");
		};
		request.onsuccess = () => resolve(request.result);
		request.onerror = () => {
			database = null;
			reject(request.error);
		};
	}).then((opened) => Object.assign(opened, { onclose: () => (database = null) }));
	return database;
}

async function transact(mode, action) {
	const transaction = (await open()).transaction(["entries", "chunks"], mode);
	const request = action(transaction.objectStore("entries"), transaction.objectStore("chunks"));
	return new Promise((resolve, reject) => {
		transaction.oncomplete = () => resolve(request?.result);
		transaction.onabort = () => reject(transaction.error);
	});
}

/** Returns the entries, newest first. */
export const entries = async () =>
	(await transact("readonly", (entries) => entries.getAll())).sort((a, b) => b.created - a.created);

export const save = (entry) => transact("readwrite", (entries) => entries.put(entry));

/** Stores bytes instead of a Blob, because Safari can lose Blobs. */
export const addChunk = (entry, bytes) => transact("readwrite", (_, chunks) => chunks.add({ entry: entry.id, bytes }));

/** Returns the recording, or null if it is not stored. */
export async function loadRecording(entry) {
	const chunks = await transact("readonly", (_, chunks) => chunks.index("entry").getAll(entry.id));
	return chunks.length ? new Blob(chunks.map(({ bytes }) => bytes), { type: entry.type }) : null;
}

/** Saves the transcript and deletes the recording, in one transaction. */
export const finish = (entry) =>
	transact("readwrite", (entries, chunks) => {
		entries.put(entry);
		drop(chunks, entry);
	});

export const remove = (entry) =>
	transact("readwrite", (entries, chunks) => {
		entries.delete(entry.id);
		drop(chunks, entry);
	});

function drop(chunks, entry) {
	chunks.index("entry").openKeyCursor(entry.id).onsuccess = ({ target: { result: cursor } }) => {
		if (!cursor) return;
		chunks.delete(cursor.primaryKey);
		cursor.continue();
	};
}
