// Stores recordings in IndexedDB, so that they survive crashes, reloads and network failures.
// An entry is {id, name, created, language, keywords, type, duration, job, transcript, segments, ...}.
// The bytes of its audio are stored in `chunks`.

const SLICE_BYTES = 4 * 1024 * 1024;
const BATCH = 16; // chunks that are in memory at the same time

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

export const save = (entry) => transact("readwrite", (entries) => commit(entries.put(entry)));

/** Stores bytes instead of a Blob, because Safari can lose Blobs. */
export const addChunk = (entry, bytes) =>
	transact("readwrite", (_, chunks) => commit(chunks.add({ entry: entry.id, bytes })));

/** Commits at once, so that the transaction survives if the page is closed. */
function commit(request) {
	request.transaction.commit?.();
	return request;
}

/** Stores a file in slices, so that a large file never has to fit into memory. */
export async function saveFile(entry, file) {
	for (let start = 0; start < file.size; start += SLICE_BYTES)
		await addChunk(entry, await file.slice(start, start + SLICE_BYTES).arrayBuffer());
}

/** Deletes audio without an entry: the page was closed while it stored a file. */
export const dropOrphans = (knownIds) =>
	transact("readwrite", (_, chunks) => {
		chunks.index("entry").openKeyCursor(null, "nextunique").onsuccess = ({ target: { result: cursor } }) => {
			if (!cursor) return;
			if (!knownIds.includes(cursor.key)) drop(chunks, cursor.key);
			cursor.continue();
		};
	});

/** Returns the recording as a file, or null if it is not stored. */
export async function loadRecording(entry) {
	const keys = await transact("readonly", (_, chunks) => chunks.index("entry").getAllKeys(entry.id));
	const parts = [];
	for (let first = 0; first < keys.length; first += BATCH) {
		const range = IDBKeyRange.bound(keys[first], keys[Math.min(first + BATCH, keys.length) - 1]);
		const found = await transact("readonly", (_, chunks) => chunks.getAll(range));
		parts.push(new Blob(found.filter((chunk) => chunk.entry === entry.id).map(({ bytes }) => bytes)));
	}
	return parts.length ? new File(parts, entry.name, { type: entry.type }) : null;
}

export const dropAudio = (entry) => transact("readwrite", (_, chunks) => void drop(chunks, entry.id));

export const remove = (entry) =>
	transact("readwrite", (entries, chunks) => {
		entries.delete(entry.id);
		drop(chunks, entry.id);
	});

function drop(chunks, id) {
	const request = chunks.index("entry").getAllKeys(id);
	request.onsuccess = () => request.result.forEach((key) => chunks.delete(key));
}
