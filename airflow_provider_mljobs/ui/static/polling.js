/**
 * One question that is asked again and again, and what is known of its answers.
 */

import { ApiError } from "./api.js";

/**
 * @typedef {object} Known
 * @property {string | null} question that `data` answers
 * @property {any} data the last answer; undefined before the first
 * @property {Error | null} error why the last question has no answer
 * @property {number | null} at when `data` came, in seconds since the epoch
 */

/** @type {Known} */
export const NOTHING_KNOWN = { question: null, data: undefined, error: null, at: null };

/** One question, asked again after each answer; not while the tab is hidden. */
export class Asking {
  /**
   * @param {object} about
   * @param {string} about.question its name
   * @param {number} about.seconds between an answer and the next question; 0 asks once
   * @param {() => Promise<any>} about.ask
   * @param {(change: (last: Known) => Known) => void} about.tell takes what has become known
   */
  constructor({ question, seconds, ask, tell }) {
    this.question = question;
    this.seconds = seconds;
    this.answer = ask;
    this.tell = tell;
    this.timer = 0;
    this.isBusy = false;
    this.isOver = false;
  }

  async ask() {
    this.isBusy = true;
    const { question } = this;
    try {
      const data = await this.answer();
      this.note(() => ({ question, data, error: null, at: Date.now() / 1000 }));
    } catch (error) {
      // What was known stays, as the answer to what was asked then.
      this.note((last) => ({ ...last, error }));
      this.isOver ||= error instanceof ApiError && !error.isPassing;
    }
    this.isBusy = false;
    this.plan();
  }

  /** An answer that comes after the end is nobody's any more. */
  note(change) {
    if (!this.isOver) this.tell(change);
  }

  plan() {
    if (this.isOver || this.seconds === 0 || document.hidden) return;
    this.timer = setTimeout(() => this.ask(), this.seconds * 1000);
  }

  /** Take note that the tab is hidden, or is seen again. */
  look() {
    clearTimeout(this.timer);
    if (!document.hidden && !this.isBusy && !this.isOver && this.seconds > 0) this.ask();
  }

  stop() {
    this.isOver = true;
    clearTimeout(this.timer);
  }
}
