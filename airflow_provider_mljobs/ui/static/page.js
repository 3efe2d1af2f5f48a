/**
 * The frames of the views: of the page in the menu, and of tabs.
 */

import { ChakraUI, html, React } from "./host.js";
import { PageLink } from "./parts.js";
import { PAGE } from "./urls.js";

const { Box, Flex, Heading, Text } = ChakraUI;

/**
 * @param {object} props
 * @param {string} props.title of the view; without one it is the list, where all ways begin
 * @param {any} [props.aside] stands beside the heading
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

/** The frame of a tab, which has Airflow's heading. */
export function Tab({ children }) {
  return html`<${Box} py=${3}>${children}<//>`;
}
