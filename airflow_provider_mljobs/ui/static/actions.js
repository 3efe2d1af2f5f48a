/**
 * Cancel and drop, for users who may edit the DAG.
 */

import { get, post } from "./api.js";
import { useAnswer } from "./hooks.js";
import { ChakraUI, html, React } from "./host.js";
import * as read from "./untrusted.js";
import { ownRoute, rightsRoute } from "./urls.js";

const { Button, Dialog, Flex, Portal, Text } = ChakraUI;
const { useRef, useState } = React;

/**
 * Drop is disabled until the task is over, because the task still needs the result of the job.
 *
 * @param {object} props
 * @param {import("./urls.js").TaskKey} props.taskKey
 * @param {import("./jobdata.js").JobDetails} props.job
 * @param {() => void} props.onDone
 */
export function Actions({ taskKey, job, onDone }) {
  const rights = useAnswer("rights", (signal) => get(rightsRoute(taskKey.dagId), signal));
  const [outcome, setOutcome] = useState({ words: "", isProblem: false });
  const act = async (what) => {
    try {
      const answer = await post(ownRoute(taskKey, what), { map_index: taskKey.mapIndex, job_id: job.jobId });
      setOutcome({ words: `The job is ${read.text(read.record(answer).status)}.`, isProblem: false });
    } catch (error) {
      setOutcome({ words: error.message, isProblem: true });
    }
    onDone();
  };
  const { words, isProblem } = rights.error ? { words: rights.error.message, isProblem: true } : outcome;
  const canEdit = read.record(rights.data).can_edit === true;
  const buttons = html`
    <${Confirmed} label="Cancel job" testId="cancel" disabled=${job.isJobOver} onConfirm=${() => act("cancel")}>
      Stops the job. Its log and files are kept. A task that waits for the job fails, and is retried if it has retries left.
    <//>
    <${Confirmed} label="Drop job" testId="drop" isDanger disabled=${!job.isOver} onConfirm=${() => act("drop")}>
      Removes the job and its log from Snowflake. The log and the XComs in Airflow are kept. Cancel the job first if it is
      still running.
    <//>`;
  return html`
    <${Flex} align="center" gap=${2} wrap="wrap">
      <${Text} fontSize="sm" color=${isProblem ? "fg.error" : "fg"} role="status" aria-live="polite">${words}<//>
      ${canEdit && buttons}
    <//>`;
}

/**
 * A button with a confirmation.
 *
 * @param {object} props
 * @param {string} props.label
 * @param {string} props.testId
 * @param {() => Promise<void>} props.onConfirm
 * @param {any} props.children the consequences
 * @param {boolean} [props.isDanger]
 * @param {boolean} [props.disabled]
 */
export function Confirmed({ label, testId, onConfirm, children, isDanger = false, disabled = false }) {
  const [isOpen, setIsOpen] = useState(false);
  const [isBusy, setIsBusy] = useState(false);
  const safe = useRef(null);
  const palette = isDanger ? "danger" : "brand";
  const state = { open: isOpen, onOpenChange: ({ open }) => setIsOpen(open), initialFocusEl: () => safe.current };
  const close = () => setIsOpen(false);
  const confirm = async () => {
    setIsBusy(true);
    await onConfirm();
    setIsBusy(false);
    close();
  };
  const opener = { size: "sm", variant: "outline", colorPalette: palette, disabled, "data-testid": testId };
  const confirmer = { colorPalette: palette, loading: isBusy, onClick: confirm, "data-testid": `${testId}-confirm` };
  return html`
    <${Dialog.Root} role="alertdialog" placement="center" ...${state}>
      <${Dialog.Trigger} asChild><${Button} ...${opener}>${label}<//><//>
      <${Portal}>
        <${Dialog.Backdrop} />
        <${Dialog.Positioner}>
          <${Dialog.Content} maxW="lg">
            <${Dialog.Header}><${Dialog.Title}>${label}?<//><//>
            <${Dialog.Body}>${children}<//>
            <${Dialog.Footer}>
              <${Button} ref=${safe} variant="outline" onClick=${close}>Go back<//>
              <${Button} ...${confirmer}>${label}<//>
            <//>
          <//>
        <//>
      <//>
    <//>`;
}
