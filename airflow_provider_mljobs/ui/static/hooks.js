/**
 * What the views have in common in behaviour: asking again and again, settings of the browser, the theme.
 */

import { React } from "./host.js";
import { Asking, NOTHING_KNOWN } from "./polling.js";

const { useCallback, useEffect, useRef, useState, useSyncExternalStore } = React;

/**
 * @typedef {object} Answer
 * @property {any} data the last answer; undefined before the first
 * @property {Error | null} error why the last question has no answer
 * @property {boolean} isStale whether `data` answers an earlier question
 * @property {number | null} at when `data` came, in seconds since the epoch
 * @property {() => void} refresh asks again
 */

/**
 * Ask a question, and again while it is worth it: one request at a time, none while the tab is hidden.
 *
 * @param {string | null} question names what is asked; another one is asked at once, null asks nothing
 * @param {(signal: AbortSignal) => Promise<any>} ask
 * @param {number} [seconds] between an answer and the next question; 0 asks once
 * @returns {Answer}
 */
export function useAnswer(question, ask, seconds = 0) {
  const [known, setKnown] = useState(NOTHING_KNOWN);
  const [turn, setTurn] = useState(0);
  const latest = useRef(ask);
  latest.current = ask;
  // Another turn asks again.
  useEffect(() => {
    if (question === null) return undefined;
    const controller = new AbortController();
    const answer = () => latest.current(controller.signal);
    const asking = new Asking({ question, seconds, ask: answer, tell: setKnown });
    const onVisibility = () => asking.look();
    document.addEventListener("visibilitychange", onVisibility);
    asking.ask();
    return () => {
      asking.stop();
      controller.abort();
      document.removeEventListener("visibilitychange", onVisibility);
    };
  }, [question, seconds, turn]);
  const refresh = useCallback(() => setTurn((last) => last + 1), []);
  const { data, error, at } = known;
  return { data, error, isStale: known.question !== question, at, refresh };
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

/** @returns {string | undefined} the time zone that is chosen in Airflow; undefined: the browser's */
export function timeZone() {
  const chosen = localStorage.getItem("timezone")?.replaceAll('"', "");
  if (!zones.has(chosen)) zones.set(chosen, knownZone(chosen));
  return zones.get(chosen);
}

function knownZone(name) {
  try {
    return new Intl.DateTimeFormat("en", { timeZone: name }).resolvedOptions().timeZone;
  } catch {
    // Of a newer Airflow or another browser.
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
