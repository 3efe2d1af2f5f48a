/**
 * The frames of the views: of the page in the menu, and of tabs.
 */

import { ChakraUI, html, React, ReactRouterDOM } from "./host.js";
import { Loading, PageLink } from "./parts.js";
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

let isSettled = false;

/**
 * What is in it stays as it is while the user goes from view to view.
 *
 * The first time, Airflow shows a plugin out of the promise that has loaded it; from the next navigation on it takes
 * it from globalThis, and so makes it anew: what the user was typing would lose the focus. That navigation is made
 * here, to where the user is already, before there is anything to lose.
 */
export function Settled({ children }) {
  const navigate = ReactRouterDOM.useNavigate();
  const location = ReactRouterDOM.useLocation();
  const [before] = React.useState(isSettled ? null : location.key);
  const isReady = before !== location.key;
  // Only of the first one, and only once.
  React.useEffect(() => {
    if (isSettled) return;
    isSettled = true;
    navigate(location, { replace: true, state: location.state });
  }, []);
  return isReady ? children : html`<${Box} p=${4}><${Loading} /><//>`;
}
