/**
 * React, its router and components, shared by Airflow's page; and markup without a build step.
 */

import htm from "./vendor/htm.js";

/** @type {any} */
const lent = globalThis;

export const { React, ReactRouterDOM, ChakraUI } = lent;
export const html = htm.bind(React.createElement);
