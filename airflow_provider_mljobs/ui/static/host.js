/**
 * What Airflow's page lends to its plugins: React, its router and its components; and markup without a build step.
 */

import htm from "./vendor/htm.js";

/** @type {any} */
const lent = globalThis;

export const { React, ReactRouterDOM, ChakraUI } = lent;
export const html = htm.bind(React.createElement);
