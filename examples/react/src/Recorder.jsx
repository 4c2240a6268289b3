import { useEffect, useRef, useState } from "react";
import { record, transcribe } from "./steno.js";

const baseUrl = import.meta.env.VITE_STENO_URL ?? "http://127.0.0.1:8000";

/** Records speech and shows its transcript. `token` is the user's access token, if one is required. */
export default function Recorder({ token }) {
  const recorder = useRef(null);
  const mounted = useRef(null); // an AbortController, which is aborted when the component is removed
  const [phase, setPhase] = useState("idle");
  const [unsent, setUnsent] = useState(null); // the recording, until it is transcribed
  const [transcript, setTranscript] = useState("");
  const [error, setError] = useState("");
  useEffect(() => {
    const controller = (mounted.current = new AbortController());
    return () => {
      controller.abort();
      recorder.current?.stop();
    };
  }, []);

  async function run(phaseDuring, phaseAfter, action) {
    setPhase(phaseDuring);
    setError("");
    try {
      await action(mounted.current.signal);
      setPhase(phaseAfter);
    } catch (problem) {
      if (problem.name !== "AbortError") setError(problem.message);
      setPhase("idle");
    }
  }

  const start = () =>
    run("starting", "recording", async (signal) => {
      recorder.current = await record();
      if (signal.aborted) recorder.current.stop();
    });
  const send = (getRecording) =>
    run("sending", "idle", async (signal) => {
      const recording = await getRecording();
      setUnsent(recording);
      const onProgress = (progress) => setPhase(progress.phase);
      const result = await transcribe(recording, { baseUrl, token, signal, onProgress });
      setTranscript(result.transcript || "No speech found.");
      setUnsent(null);
    });

  return (
    <section>
      <button disabled={phase !== "idle"} onClick={start}>Record</button>
      <button disabled={phase !== "recording"} onClick={() => send(() => recorder.current.stop())}>Stop</button>
      {unsent && phase === "idle" && <button onClick={() => send(() => unsent)}>Send again</button>}
      <p role="status">{phase === "idle" ? "" : `${phase} …`}</p>
      <p role="alert">{error}</p>
      <p id="transcript">{transcript}</p>
    </section>
  );
}
