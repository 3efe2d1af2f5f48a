/**
 * Hooks of the views: polling, settings of the browser, the theme.
 */

import { React } from "./host.js";
import { NO_ANSWER, Poll } from "./polling.js";

const { useCallback, useEffect, useRef, useState, useSyncExternalStore } = React;

/**
 * @typedef {object} Answer
 * @property {any} data the last answer; undefined before the first
 * @property {Error | null} error of the last request; null if it succeeded
 * @property {boolean} isStale whether `data` answers an earlier question
 * @property {number | null} at when `data` came, in seconds since the epoch
 * @property {() => void} refresh asks again
 */

/**
 * Poll a question: one request at a time, none while the tab is hidden.
 *
 * @param {string | null} question the name of the question; a new name asks at once, null asks nothing
 * @param {(signal: AbortSignal) => Promise<any>} ask
 * @param {number} [seconds] between an answer and the next question; 0 asks once
 * @returns {Answer}
 */
export function useAnswer(question, ask, seconds = 0) {
  const [last, setLast] = useState(NO_ANSWER);
  const [turn, setTurn] = useState(0);
  const latest = useRef(ask);
  latest.current = ask;
  // A new turn asks again.
  useEffect(() => {
    if (question === null) return undefined;
    const controller = new AbortController();
    const answer = () => latest.current(controller.signal);
    const poll = new Poll({ question, seconds, ask: answer, update: setLast });
    const onVisibility = () => poll.look();
    document.addEventListener("visibilitychange", onVisibility);
    poll.ask();
    return () => {
      poll.stop();
      controller.abort();
      document.removeEventListener("visibilitychange", onVisibility);
    };
  }, [question, seconds, turn]);
  const refresh = useCallback(() => setTurn((count) => count + 1), []);
  const { data, error, at } = last;
  return { data, error, isStale: last.question !== question, at, refresh };
}

/**
 * @param {string} name
 * @returns {[boolean, (value: boolean) => void]} a choice that this browser remembers; it is on at first
 */
export function useRemembered(name) {
  const [isOn, setIsOn] = useState(() => localStorage.getItem(name) !== "off");
  const choose = (value) => {
    localStorage.setItem(name, value ? "on" : "off");
    setIsOn(value);
  };
  return [isOn, choose];
}

const zones = new Map();

/** @returns {string | undefined} the time zone chosen in Airflow; undefined for the browser's */
export function timeZone() {
  const chosen = localStorage.getItem("timezone")?.replaceAll('"', "");
  if (!zones.has(chosen)) zones.set(chosen, supportedZone(chosen));
  return zones.get(chosen);
}

function supportedZone(name) {
  try {
    return new Intl.DateTimeFormat("en", { timeZone: name }).resolvedOptions().timeZone;
  } catch {
    // A zone that this browser doesn't support.
    return undefined;
  }
}

/** @returns {"dark" | "light"} the theme of Airflow's page */
export function useTheme() {
  return useSyncExternalStore(watchTheme, () =>
    document.documentElement.classList.contains("dark") ? "dark" : "light",
  );
}

/**
 * @param {() => void} onChange
 * @returns {() => void} ends the watch
 */
function watchTheme(onChange) {
  const observer = new MutationObserver(onChange);
  observer.observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
  return () => observer.disconnect();
}
