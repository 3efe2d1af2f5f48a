/**
 * The frames around views: the page in the menu, and the tabs.
 */

import { ChakraUI, html, React } from "./host.js";
import { PageLink } from "./parts.js";
import { PAGE } from "./urls.js";

const { Box, Flex, Heading, Text } = ChakraUI;

/**
 * @param {object} props
 * @param {string} props.title of the view; empty for the list
 * @param {any} [props.aside] beside the heading
 * @param {any} props.children the view
 */
export function Page({ title = "", aside = null, children }) {
  React.useEffect(() => {
    const before = document.title;
    document.title = title === "" ? "ML Jobs" : `${title} – ML Jobs`;
    return () => {
      document.title = before;
    };
  }, [title]);
  const wayBack = html`
    <${PageLink} to=${PAGE} whiteSpace="nowrap">ML Jobs<//>
    <${Text} as="span" color="fg.muted" aria-hidden="true">/<//>`;
  const heading = title || "ML Jobs";
  return html`
    <${Box} as="main" p=${4}>
      <${Flex} justify="space-between" align="center" gap=${3} mb=${4} wrap="wrap">
        <${Flex} align="baseline" gap=${2} minW=${0}>
          ${title !== "" && wayBack}
          <${Heading} as="h1" size="xl" truncate title=${heading}>${heading}<//>
        <//>
        ${aside}
      <//>
      ${children}
    <//>`;
}

/** The frame of a tab; Airflow shows its heading. */
export function Tab({ children }) {
  return html`<${Box} py=${3}>${children}<//>`;
}
