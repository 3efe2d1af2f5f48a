/**
 * A question that is polled, and its last answer.
 */

import { ApiError } from "./api.js";

/**
 * @typedef {object} LastAnswer
 * @property {string | null} question that `data` answers
 * @property {any} data the last answer; undefined before the first
 * @property {Error | null} error of the last request; null if it succeeded
 * @property {number | null} at when `data` came, in seconds since the epoch
 */

/** @type {LastAnswer} */
export const NO_ANSWER = { question: null, data: undefined, error: null, at: null };

/** One question, asked again after each answer; not while the tab is hidden. */
export class Poll {
  /**
   * @param {object} about
   * @param {string} about.question its name
   * @param {number} about.seconds between an answer and the next question; 0 asks once
   * @param {() => Promise<any>} about.ask
   * @param {(change: (last: LastAnswer) => LastAnswer) => void} about.update takes a change of the last answer
   */
  constructor({ question, seconds, ask, update }) {
    this.question = question;
    this.seconds = seconds;
    this.answer = ask;
    this.update = update;
    this.timer = 0;
    this.isBusy = false;
    this.isOver = false;
  }

  async ask() {
    this.isBusy = true;
    const { question } = this;
    try {
      const data = await this.answer();
      this.record(() => ({ question, data, error: null, at: Date.now() / 1000 }));
    } catch (error) {
      // The last data stays, with the question that it answers.
      this.record((last) => ({ ...last, error }));
      this.isOver ||= error instanceof ApiError && !error.isPassing;
    }
    this.isBusy = false;
    this.plan();
  }

  /** Record a change, unless the poll has stopped. */
  record(change) {
    if (!this.isOver) this.update(change);
  }

  plan() {
    if (this.isOver || this.seconds === 0 || document.hidden) return;
    this.timer = setTimeout(() => this.ask(), this.seconds * 1000);
  }

  /** Pause while the tab is hidden; resume when it is visible. */
  look() {
    clearTimeout(this.timer);
    if (!document.hidden && !this.isBusy && !this.isOver && this.seconds > 0) this.ask();
  }

  stop() {
    this.isOver = true;
    clearTimeout(this.timer);
  }
}
