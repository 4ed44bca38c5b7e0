// What each node of the quick start runs: the real ansible-playbook where it can be had.
import { writeFileSync } from 'node:fs';
import { basename, delimiter, dirname, join } from 'node:path';
import type { ShowFetching } from '../test/support/fetching.ts';
import { ansible } from '../test/support/provision.ts';

export interface NodeCommand {
  readonly command: readonly string[];
  /** Of its environment. */
  readonly settings: Readonly<Record<string, string>>;
  /** What a reader must know about it. */
  readonly note?: string;
}

const STAND_IN = `#!/bin/sh
printf '# %s, grant %s\\nserver_name %s;\\n' "$RUNLOCK_RUN_GROUP" "$RUNLOCK_FENCING_TOKEN" "$RUNLOCK_RUN_NODE" >"$1/$RUNLOCK_RUN_NODE.conf"
[ ! -e "$1/broken" ] || { echo "$RUNLOCK_RUN_NODE does not work with this change"; exit 2; }
`;

/** ansible-playbook with examples/site.yml, else a shell script, which the note then calls a stand-in. */
export async function whatToRun(folder: string, show: ShowFetching): Promise<NodeCommand> {
  const path = process.env['PATH'] ?? '';
  try {
    const { command, env } = await ansible(show);
    const words = [basename(command), '-i', 'localhost,', '-e', `folder=${folder}`, 'examples/site.yml'];
    const settings = { ...env, ...ansibleSettings(folder), PATH: `${dirname(command)}${delimiter}${path}` };
    return { command: words, settings };
  } catch (error) {
    const script = join(folder, 'stand-in.sh');
    writeFileSync(script, STAND_IN);
    const reason = error instanceof Error ? error.message : String(error);
    const note = `No Ansible (${reason}); using the shell script stand-in.sh, which does the same as examples/site.yml.`;
    return { command: ['sh', script, folder], settings: { PATH: path }, note };
  }
}

/** The user's own settings and folders are none of the quick start's business. */
function ansibleSettings(folder: string): Record<string, string> {
  writeFileSync(join(folder, 'ansible.cfg'), '[defaults]\n');
  return {
    ANSIBLE_CONFIG: join(folder, 'ansible.cfg'),
    ANSIBLE_HOME: join(folder, 'ansible'),
    ANSIBLE_LOCAL_TEMP: join(folder, 'ansible'),
    ANSIBLE_REMOTE_TEMP: join(folder, 'ansible'),
  };
}
