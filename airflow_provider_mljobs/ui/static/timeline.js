/**
 * A job's timeline as a bar and as a list.
 */

import { capital, formatDuration } from "./format.js";
import { ChakraUI, html } from "./host.js";
import { Time } from "./parts.js";

const { Box, Flex, Text } = ChakraUI;

const PALETTES = new Map([
  ["queued", "queued"],
  ["pool starting", "purple"],
  ["no capacity", "orange"],
  ["image pulling", "sky"],
  ["image pull failing", "red"],
  ["running", "green"],
  ["cancelling", "pink"],
  ["deleting", "pink"],
  ["suspended", "amber"],
  ["finishing", "blue"],
]);

/** @param {{spans: import("./phases.js").Span[]}} props */
export function Timeline({ spans }) {
  const words = spans.map(({ phase, seconds }) => `${phase} ${formatDuration(seconds)}`).join(", ");
  return html`
    <${Box} data-testid="timeline">
      <${Flex} role="img" aria-label=${`Timeline: ${words}`} h="14px" gap="2px" mb=${3}>
        ${spans.map((span, index) => html`<${Bar} key=${index} span=${span} />`)}
      <//>
      <${Flex} as="ol" wrap="wrap" columnGap=${6} rowGap=${2} listStyleType="none">
        ${spans.map((span, index) => html`<${Phase} key=${index} span=${span} />`)}
      <//>
    <//>`;
}

function Swatch({ phase, ...props }) {
  const palette = PALETTES.get(phase) ?? "gray";
  return html`<${Box} colorPalette=${palette} bg="colorPalette.solid" borderRadius="sm" ...${props} />`;
}

/** Proportional to the phase, but always visible. */
function Bar({ span: { phase, seconds } }) {
  const length = { minW: "6px", flexBasis: 0, flexGrow: Math.max(seconds, 0.01) };
  return html`<${Swatch} phase=${phase} title=${`${capital(phase)}: ${formatDuration(seconds)}`} ...${length} />`;
}

function Phase({ span: { phase, message, from, seconds } }) {
  return html`
    <${Box} as="li" maxW="260px">
      <${Flex} align="center" gap=${2} fontSize="sm" fontVariantNumeric="tabular-nums">
        <${Swatch} phase=${phase} boxSize="10px" aria-hidden="true" />
        <${Text} fontWeight="medium">${capital(phase)}<//>${formatDuration(seconds)}
      <//>
      <${Box} fontSize="xs" color="fg.muted">
        <${Time} at=${from} />
        <${Text} truncate title=${message}>${message}<//>
      <//>
    <//>`;
}
